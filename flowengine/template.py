"""References and templates: `{device}`, `{payload.data.0.num}`, `{message.time:%Y-%m-%d}`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

import msgspec

from flowengine.errors import Missing, OptionError, Reject
from flowengine.i18n import N_, _
from flowengine.message import Message
from flowengine.options import OptionType, Path

RESERVED = ("payload", "result", "error", "message")
"""Roots of a reference that are not metadata."""

_MEMBERS = {
    "result": ("status", "headers", "body"),
    "error": ("node", "reason", "status", "attempts"),
    "message": ("id", "time", "part"),
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NOT_IN_TOPIC = re.compile(r"[/+#\x00-\x1f\x7f-\x9f]")
_encode = msgspec.json.Encoder().encode


WORDS = ("and", "or", "not", "in", "exists", "true", "false", "null")
"""Words of the condition language."""


def check_name(name: str) -> None:
    """Raise OptionError if `name` cannot name metadata: it must be a name and mean nothing else already."""
    if _NAME.fullmatch(name) is None:
        raise OptionError(_("'{name}' is no name: use letters, digits and _, and no digit first").format(name=name))
    if name in RESERVED + WORDS:
        raise OptionError(_("'{name}' has a meaning of its own: choose another name").format(name=name))


class Reference:
    """What stands between braces, and in a condition without them: a root, a path below it, and for a time how to write it.

    root: `payload`, `result`, `error`, `message`, or the name of metadata. Raises OptionError if the text is none of these.
    """

    __slots__ = ("get", "path", "root", "spec", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        name, colon, self.spec = text.partition(":")
        self.root, dot, rest = name.partition(".")
        if _NAME.fullmatch(self.root) is None:
            raise OptionError(_("'{text}' is not a reference: write {{device}} or {{payload.name}}").format(text=text))
        self.path = Path(rest)
        if dot and not rest:
            raise OptionError(_("'{text}' ends in a dot").format(text=text))
        members = _MEMBERS.get(self.root)
        if members is not None and (not self.path.segments or self.path.segments[0] not in members):
            raise OptionError(
                _("'{text}' is unknown: {root} has {members}").format(
                    text=name, root=self.root, members=", ".join(f"{self.root}.{m}" for m in members)
                )
            )
        if colon and name != "message.time":
            raise OptionError(_("only message.time takes a format after a colon, not '{name}'").format(name=name))
        try:
            _written(0.0, self.spec)
        except ValueError:
            raise OptionError(_("'{spec}' is no time format").format(spec=self.spec)) from None
        self.get: Callable[[Message], Any] = self._getter()

    def _getter(self) -> Callable[[Message], Any]:
        root, path, spec = self.root, self.path, self.spec
        if root == "payload":
            return path.reader()
        if root in _MEMBERS:
            first, below = path.segments[0], path.segments[1:]
            if root == "message":
                if first != "time":
                    return lambda msg: getattr(msg, first)
                return lambda msg: _written(msg.time, spec)
            rest = Path(".".join(f'"{s}"' for s in below))

            def member(msg: Message) -> Any:
                holder = getattr(msg, root)
                if holder is None:
                    raise Missing(self.text, root, None)
                return rest.get(getattr(holder, first))

            return member

        def metadata(msg: Message) -> Any:
            try:
                value = msg.meta[root]
            except KeyError:
                raise Reject(_("this message has no '{name}'").format(name=root)) from None
            return path.get(value) if path.segments else value

        return metadata

    def find(self, msg: Message) -> Any:
        """The value, or None where it leads nowhere."""
        try:
            return self.get(msg)
        except Reject:
            return None


def _written(seconds: float, spec: str) -> str:
    moment = datetime.fromtimestamp(seconds).astimezone()
    return moment.strftime(spec) if spec else moment.isoformat(timespec="milliseconds")


def as_text(value: Any) -> str:
    """A value as it stands in a text: a text as it is, anything else as JSON."""
    if type(value) is str:
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return _encode(value).decode()


class Template(OptionType):
    """A text with references in braces; `{{` and `}}` are braces. `render(msg)` raises Reject where a name leads nowhere."""

    def __init__(self, value: str) -> None:
        super().__init__(value)
        self.pieces: tuple[str | Reference, ...] = tuple(_pieces(value))
        self.references = tuple(p for p in self.pieces if isinstance(p, Reference))
        self.constant: str | None = None if self.references else "".join(str(p) for p in self.pieces)
        self._shape = "".join(p.replace("%", "%%") if isinstance(p, str) else "%s" for p in self.pieces)
        self._gets = [reference.get for reference in self.references]

    @staticmethod
    def literal(value: str, before: str) -> str:
        return value.replace("{", "{{").replace("}", "}}")

    def value(self, value: Any) -> str:
        """How a reference's value is written into the text; types of template differ in this alone."""
        return value if type(value) is str else as_text(value)

    def render(self, msg: Message) -> str:
        """The text for this message."""
        if self.constant is not None:
            return self.constant
        value = self.value
        return self._shape % tuple([value(get(msg)) for get in self._gets])


def _pieces(text: str) -> Iterator[str | Reference]:
    literal: list[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char in "{}" and text[at : at + 2] == char * 2:
            literal.append(char)
            at += 2
        elif char == "{":
            end = text.find("}", at)
            if end < 0:
                raise OptionError(_("a brace is opened and not closed; a brace itself is written {{"), at)
            if literal:
                yield "".join(literal)
                literal = []
            try:
                yield Reference(text[at + 1 : end].strip())
            except OptionError as error:
                raise OptionError(str(error), at + 1) from None
            at = end + 1
        elif char == "}":
            raise OptionError(_("a brace is closed and was not opened; a brace itself is written }}"), at)
        else:
            literal.append(char)
            at += 1
    if literal:
        yield "".join(literal)


class Topic(Template):
    """An MQTT topic to publish to. A value that holds `/`, `+`, `#` or a control character is refused (MQTT 5 section 4.7)."""

    def __init__(self, value: str) -> None:
        super().__init__(value)
        for piece in self.pieces:
            if isinstance(piece, str) and any(c in piece for c in "+#\0"):
                raise OptionError(_("a topic to publish to has no wildcard: '+' and '#' are not allowed here"))
        if not value:
            raise OptionError(_("a topic has at least one character"))

    def value(self, value: Any) -> str:
        text = as_text(value)
        if _NOT_IN_TOPIC.search(text) is not None:
            raise Reject(
                _("'{value}' cannot stand in a topic: it holds / + # or a control character").format(value=text[:80])
            )
        return text


class Url(Template):
    """A URL; values are percent-encoded (RFC 3986 section 2.1)."""

    def __init__(self, value: str) -> None:
        super().__init__(value)
        shape = "".join(p if isinstance(p, str) else "0" for p in self.pieces)
        try:
            parts = urlsplit(shape)
            good = bool(parts.scheme and parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            good = False
        if not good or any(c.isspace() for c in shape):
            raise OptionError(_("not a URL: write it as http://host:port/path"))
        self.scheme = parts.scheme.lower()

    def value(self, value: Any) -> str:
        return quote(as_text(value), safe="")


class Tree(OptionType):
    """A YAML tree whose texts are templates; a text that is one lone reference keeps the value's type. `build(msg)` makes it."""

    schema: ClassVar[dict[str, Any]] = {}
    kind: ClassVar[str] = N_("any value with references")

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        found: list[Reference] = []
        self.build: Callable[[Message], Any] = _builder(value, found)
        self.references = tuple(found)

    literal = Template.literal


def _builder(value: Any, found: list[Reference]) -> Callable[[Message], Any]:
    if isinstance(value, str):
        template = Template(value)
        found.extend(template.references)
        if len(template.pieces) == 1 and template.references:
            return template.references[0].get
        return template.render
    if isinstance(value, dict):
        members = {key: _builder(item, found) for key, item in value.items()}
        return lambda msg: {key: build(msg) for key, build in members.items()}
    if isinstance(value, list):
        items = [_builder(item, found) for item in value]
        return lambda msg: [build(msg) for build in items]
    return lambda msg: value
