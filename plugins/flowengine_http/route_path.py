"""The option type `RoutePath`: a path that http-in answers on, as `/devices/{device}/commands`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from flowengine import OptionError, OptionType, _

GIVEN = ("method", "path", "query", "remote")
"""Metadata that every request has; no capture may take these names."""

# Roots of references, and the words of conditions: metadata so named could never be read.
_RESERVED = {
    "payload",
    "result",
    "error",
    "message",
    "and",
    "or",
    "not",
    "in",
    "exists",
    "true",
    "false",
    "null",
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Segment:
    """What stands between two slashes: a plain text (then `name` is empty), or a capture with the text before
    and after it."""

    before: str
    name: str = ""
    after: str = ""

    @property
    def shape(self) -> tuple[str, ...]:
        """What the segment matches, whatever its capture is called."""
        return (self.before, self.after) if self.name else (self.before,)

    @property
    def rank(self) -> tuple[int, int]:
        """Lower is more specific: a plain text, then a capture with the longest text around it."""
        return (1, -len(self.before) - len(self.after)) if self.name else (0, 0)

    def match(self, text: str) -> str | None:
        """What is captured (empty for a plain text), or None where it does not match. A capture is never
        empty."""
        if not self.name:
            return "" if text == self.before else None
        end = len(text) - len(self.after)
        if end <= len(self.before) or not text.startswith(self.before) or not text.endswith(self.after):
            return None
        return text[len(self.before) : end]


class RoutePath(OptionType):
    """A path that begins with `/`; `{name}` captures a segment, or what stands in it between two plain texts.

    Segments are compared percent-decoded (RFC 3986 section 6.2.2.2), so `/设备` and `/%E8%AE%BE%E5%A4%87` are
    one path. A brace itself is written `%7B` or `%7D`.
    """

    def __init__(self, value: str) -> None:
        super().__init__(value)
        if not value.startswith("/"):
            raise OptionError(_("a path begins with '/'"), 0)
        for char in value:
            if char in "?#" or char.isspace() or not char.isprintable():
                raise OptionError(_("'{char}' cannot stand in a path").format(char=char), value.index(char))
        segments = []
        at = 1
        for text in value[1:].split("/"):
            segments.append(_segment(text, at))
            at += len(text) + 1
        self.segments = tuple(segments)
        self.captures = tuple(s.name for s in segments if s.name)
        for name in self.captures:
            if self.captures.count(name) > 1:
                raise OptionError(_("'{name}' is captured twice").format(name=name), value.rindex("{" + name))
        self.shape = tuple(s.shape for s in segments)
        self.rank = tuple(s.rank for s in segments)

    @staticmethod
    def literal(value: str, before: str) -> str:
        return value.replace("{", "%7B").replace("}", "%7D")

    def match(self, segments: list[str]) -> dict[str, str] | None:
        """The captures, if a request's decoded segments match; else None."""
        if len(segments) != len(self.segments):
            return None
        found = {}
        for segment, text in zip(self.segments, segments, strict=True):
            captured = segment.match(text)
            if captured is None:
                return None
            if segment.name:
                found[segment.name] = captured
        return found


def _segment(text: str, at: int) -> Segment:
    before, brace, rest = text.partition("{")
    name, closed, after = rest.partition("}")
    if not brace:
        if "}" in text:
            raise OptionError(_("a brace is closed and was not opened"), at + text.index("}"))
        return Segment(unquote(text))
    place = at + len(before) + 1
    if not closed:
        raise OptionError(_("a brace is opened and not closed"), place - 1)
    if "{" in after or "}" in before + after:
        raise OptionError(_("only one capture may stand between two slashes"), place + len(name) + 1)
    if _NAME.fullmatch(name) is None:
        raise OptionError(_("'{name}' is not a name: use letters, digits and underscores").format(name=name), place)
    if name in _RESERVED or name in GIVEN:
        raise OptionError(_("'{name}' is a reserved name: call the capture something else").format(name=name), place)
    return Segment(unquote(before), name, unquote(after))
