"""Text broken into lines by the columns it takes on a terminal: Chinese characters take two and have no blanks between."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

import click

_WIDE = "\u2e80-\u9fff\uff00-\uffef"
_OPENING = r"（《【“\[("
_CLOSING = "，。；：、！？）》】”…"
_UNIT = re.compile(rf"\s+|[{_OPENING}]*(?:[^\s{_WIDE}]+|[{_WIDE}])[{_CLOSING}]*")
"""What stays on one line: a word, or one Chinese character with the punctuation that must not be parted from it."""


def width(text: str) -> int:
    """The columns that `text` takes on a terminal."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def wrapped(text: str, columns: int, indent: str = "") -> str:
    """`text` in lines of at most `columns`, each behind `indent`; only a word that is longer passes the edge."""
    lines = [""]
    for unit in _UNIT.findall(text):
        if unit.isspace():
            lines[-1] += " " * len(unit) if lines[-1] else ""
        elif lines[-1] and width(indent + lines[-1] + unit) > columns:
            lines.append(unit)
        else:
            lines[-1] += unit
    return "\n".join(indent + line.rstrip() for line in lines)


class HelpFormatter(click.HelpFormatter):
    """click's help pages, which count characters, counted in columns where the text is not ASCII."""

    def write_text(self, text: str) -> None:
        """Write paragraphs."""
        if text.isascii():
            return super().write_text(text)
        indent = " " * self.current_indent
        self.write("\n\n".join(wrapped(part, self.width, indent) for part in text.split("\n\n")) + "\n")

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write names and what is said of each beside it, or below where a name is longer than `col_max`."""
        rows = list(rows)
        if all(text.isascii() for row in rows for text in row):
            return super().write_dl(rows, col_max, col_spacing)
        column = self.current_indent + min(max(width(name) for name, _text in rows), col_max) + col_spacing
        for name, text in rows:
            head = " " * self.current_indent + name
            body = wrapped(text, self.width, " " * column)
            if width(head) + col_spacing > column:
                self.write(f"{head}\n{body}\n")
            else:
                self.write(head + body[width(head) :] + "\n")
