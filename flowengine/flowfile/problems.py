"""What is wrong with a flow file, said to a person: where, what, what to do, with the line and a caret."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from flowengine.i18n import _

Mark = tuple[int, int]
"""A place in a file: line and column, both from 0, in characters."""


@dataclass(frozen=True)
class Source:
    """A file as it was read."""

    path: Path
    lines: list[str] = field(default_factory=list, compare=False)

    def __str__(self) -> str:
        return self.path.as_posix()


@dataclass(frozen=True)
class Problem:
    """One error or warning at one place."""

    source: Source
    mark: Mark
    where: str
    text: str
    severity: Literal["error", "warning", "hidden"] = "error"
    """hidden: follows from an error that is said elsewhere; it only keeps the part from being used."""

    @property
    def headline(self) -> str:
        """`flows/facegate.yaml:23:9: chains.records[3] http-post: unknown option 'ulr', did you mean 'url'?`"""
        line, column = self.mark
        where = f"{self.where}: " if self.where else ""
        kind = _("warning: ") if self.severity == "warning" else ""
        return f"{self.source}:{line + 1}:{column + 1}: {kind}{where}{self.text}"

    def __str__(self) -> str:
        line, column = self.mark
        if line >= len(self.source.lines):
            return self.headline
        text = self.source.lines[line]
        shown, column = _window(text, column)
        pad = "".join("\t" if c == "\t" else " " * _width(c) for c in shown[:column])
        return f"{self.headline}\n    {shown}\n    {pad}^"


class FlowError(Exception):
    """A flow file cannot be used; `problems` has every one of them."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class Problems:
    """Collects every problem of every file; `fork` shares the list and says another place."""

    def __init__(self, source: Source, found: list[Problem] | None = None, where: str = "") -> None:
        self.source = source
        self.found: list[Problem] = found if found is not None else []
        self.where = where

    def at(self, where: str) -> Problems:
        """The same collection, for a place further in."""
        return Problems(self.source, self.found, where)

    def error(self, mark: Mark, text: str, where: str | None = None) -> None:
        """Note an error."""
        self.found.append(Problem(self.source, mark, self.where if where is None else where, text))

    def warn(self, mark: Mark, text: str) -> None:
        """Note a warning."""
        self.found.append(Problem(self.source, mark, self.where, text, "warning"))

    def hide(self, mark: Mark) -> None:
        """Note that something cannot be used, for a reason said elsewhere."""
        self.found.append(Problem(self.source, mark, self.where, "", "hidden"))

    def count(self) -> int:
        """How many errors there are so far."""
        return sum(p.severity != "warning" for p in self.found)


def suggestion(word: str, known: Iterable[str]) -> str:
    """`, did you mean 'url'?`, or nothing where no known word is near."""
    near = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return _(", did you mean '{word}'?").format(word=near[0]) if near else ""


def ordered(problems: Iterable[Problem]) -> list[Problem]:
    """Those to show: by file, line and column; each once."""
    shown = [p for p in dict.fromkeys(problems) if p.severity != "hidden"]
    return sorted(shown, key=lambda p: (str(p.source), p.mark, p.severity, p.text))


def _width(char: str) -> int:
    if unicodedata.combining(char):
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
