"""What is wrong with a flow file, said to a person: where, what, what to do, with the line and a caret."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from flowengine.i18n import _

Mark = tuple[int, int]
"""A place in a file: line and column, both from 0, in characters."""
Severity = Literal["error", "warning", "hidden"]


_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PASSWORD = re.compile(r"(?<=://)([^\s/:@\"']*:)([^\s/@\"'$]+)(?=@)")


def lines_of(text: str) -> list[str]:
    """The lines of a text, broken where PyYAML breaks them, so that its line numbers fit."""
    return _BREAK.split(text)


def end_of(text: str) -> Mark:
    """The place behind a text that begins a file."""
    lines = lines_of(text)
    return len(lines) - 1, len(lines[-1])


@dataclass(frozen=True)
class Source:
    """A file as it was read."""

    path: Path
    lines: list[str] = field(default_factory=list, compare=False)

    def mask(self, mark: Mark) -> None:
        """Show stars for the text at `mark`, which is a secret, where its line is shown."""
        line, column = mark
        if line < len(self.lines):
            found = re.compile(r'"(?:[^"\\]|\\.)*"?|' + r"'(?:[^']|'')*'?|[^\s,}]+").match(self.lines[line], column)
            if found is not None:
                text = self.lines[line]
                self.lines[line] = text[:column] + "*" * len(found[0]) + text[found.end() :]

    def __str__(self) -> str:
        return self.path.as_posix()


@dataclass(frozen=True)
class Problem:
    """One error or warning at one place."""

    source: Source
    mark: Mark
    where: str
    text: str
    severity: Severity = "error"
    """hidden: follows from an error that is said elsewhere; it only keeps the part from being used."""
    flow: str = field(default="", compare=False)
    """The flow that uses the template this stands in. One mistake in a template is said once, whoever uses it."""

    @property
    def headline(self) -> str:
        """`flows/facegate.yaml:23:9: chains.records[3] http-post: unknown option 'ulr', did you mean 'url'?`"""
        line, column = self.mark
        where = f"{self.where}: " if self.where else ""
        kind = _("warning: ") if self.severity == "warning" else ""
        user = _(" (as flow '{name}' uses it)").format(name=self.flow) if self.flow else ""
        return f"{self.source}:{line + 1}:{column + 1}: {kind}{where}{self.text}{user}"

    def __str__(self) -> str:
        line, column = self.mark
        if line >= len(self.source.lines) or not self.source.lines[line].strip():
            return self.headline
        text = _PASSWORD.sub(lambda p: p[1] + "*" * len(p[2]), self.source.lines[line])
        shown, column = _window(text, column)
        shown = _CONTROL.sub("\ufffd", shown)
        pad = "".join("\t" if c == "\t" else " " * _width(c) for c in shown[:column])
        return f"{self.headline}\n    {shown}\n    {pad}^"


class FlowError(Exception):
    """A flow file cannot be used; `problems` has every one of them."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class Problems:
    """Collects every problem of every file; `at` shares the list and says another place. flow: see `Problem`."""

    def __init__(self, source: Source, found: list[Problem] | None = None, where: str = "", flow: str = "") -> None:
        self.source = source
        self.found: list[Problem] = found if found is not None else []
        self.where = where
        self.flow = flow

    def at(self, where: str) -> Problems:
        """The same collection, for a place further in."""
        return Problems(self.source, self.found, where, self.flow)

    def error(self, mark: Mark, text: str, where: str | None = None) -> None:
        """Note an error."""
        self._note(mark, text, "error", where)

    def warn(self, mark: Mark, text: str) -> None:
        """Note a warning."""
        self._note(mark, text, "warning")

    def hide(self, mark: Mark) -> None:
        """Note that something cannot be used, for a reason said elsewhere."""
        self._note(mark, "", "hidden")

    def _note(self, mark: Mark, text: str, severity: Severity, where: str | None = None) -> None:
        place = self.where if where is None else where
        self.found.append(Problem(self.source, mark, place, text, severity, self.flow))

    def count(self) -> int:
        """How many errors there are so far."""
        return sum(p.severity != "warning" for p in self.found)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant; case, `_` and `-` do not count."""
    plain = {_plain(k): k for k in known}
    near = get_close_matches(_plain(word), list(plain), n=1, cutoff=0.6)
    return plain[near[0]] if near else None


def suggestion(word: str, known: Iterable[str]) -> str:
    """`, did you mean 'url'?`, or nothing where no known word is near."""
    near = nearest(word, known)
    return _(", did you mean '{word}'?").format(word=near) if near is not None else ""


def _plain(word: str) -> str:
    return word.lower().replace("_", "-")


def ordered(problems: Iterable[Problem]) -> list[Problem]:
    """Those to show: by file, line and column; each once."""
    shown = [p for p in dict.fromkeys(problems) if p.severity != "hidden"]
    return sorted(shown, key=lambda p: (str(p.source), p.mark, p.severity, p.text))


def _width(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _window(text: str, column: int, limit: int = 120) -> tuple[str, int]:
    """A long line is shown around the column only."""
    if len(text) <= limit:
        return text, column
    start = max(0, min(column - limit // 2, len(text) - limit))
    shown = text[start : start + limit]
    if start:
        shown = "…" + shown[1:]
    if start + limit < len(text):
        shown = shown[:-1] + "…"
    return shown, column - start
