"""What the commands of this pack show: aligned tables, and a status that redraws itself on a terminal."""

from __future__ import annotations

import shutil
import sys
import time
import unicodedata
from collections.abc import Sequence

import click


def width(text: str) -> int:
    """The columns `text` takes on a terminal; Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def shorten(text: str, columns: int) -> str:
    """`text` as one line of at most `columns`, cut with an ellipsis, free of control characters."""
    text = "".join(char if char.isprintable() else " " for char in text)
    if width(text) <= columns:
        return text
    kept, left = [], columns - 1
    for char in text:
        left -= width(char)
        if left < 0:
            break
        kept.append(char)
    return "".join(kept) + "…"


def table(rows: Sequence[Sequence[object]]) -> str:
    """`rows` in aligned columns, numbers to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row, texts in zip(rows, cells, strict=True):
        parts = []
        for cell, text, columns in zip(row, texts, widths, strict=True):
            space = " " * (columns - width(text))
            parts.append(space + text if isinstance(cell, int) else text + space)
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


class Status:
    """A status on standard error: redrawn in place on a terminal, elsewhere a line every `every` seconds."""

    def __init__(self, every: float = 5.0) -> None:
        self._redraws = sys.stderr.isatty()
        self._every = every
        self._next = 0.0
        self._shown = False

    def show(self, text: str) -> None:
        """Show `text` instead of what was shown before."""
        if self._redraws:
            columns = shutil.get_terminal_size().columns - 1
            click.echo("\r\x1b[K" + shorten(text, columns), nl=False, err=True)
            self._shown = True
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + self._every
            click.echo(text, err=True)

    def line(self, text: str, *, err: bool = True) -> None:
        """Write a line that stays, above the status."""
        self.clear()
        click.echo(text, err=err)

    def clear(self) -> None:
        """Remove the status."""
        if self._shown:
            click.echo("\r\x1b[K", nl=False, err=True)
            self._shown = False
