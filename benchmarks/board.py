"""Memory that the processes of a measurement share: when each record was sent, when it arrived, and what was counted."""

from __future__ import annotations

import mmap
from pathlib import Path

CAPACITY = 1 << 20
"""How many numbered messages a batch may have"""

_HEAD = 16


class _Field:
    """One whole number at a fixed place of the board."""

    def __init__(self, place: int) -> None:
        self._place = place

    def __get__(self, board: Board, owner: type[Board]) -> int:
        return board.head[self._place]

    def __set__(self, board: Board, value: int) -> None:
        board.head[self._place] = value


class Board:
    """A file in memory; each field has one writer.

    Set by who measures: `batch`; `devices`, over which the numbers go round; `status` and `delay_us`, with which the sink
    answers. Counted by the sink: `posts`, first arrivals of a number; `repeats`; `swapped`, first arrivals behind a later
    number of the same device; `strays` of other batches; `refused`, answers other than 200. `sent` and `arrived` are times by
    number, in seconds of the monotonic clock that all processes share; 0 is never.
    """

    batch = _Field(0)
    devices = _Field(1)
    status = _Field(2)
    delay_us = _Field(3)
    posts = _Field(4)
    repeats = _Field(5)
    swapped = _Field(6)
    strays = _Field(7)
    refused = _Field(8)

    def __init__(self, path: Path, *, create: bool = False) -> None:
        size = 8 * (_HEAD + 2 * CAPACITY)
        if create:
            with path.open("wb") as file:
                file.truncate(size)
        self.path = path
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), size)
        view = memoryview(self._map)
        self.head = view[: 8 * _HEAD].cast("q")
        self.sent = view[8 * _HEAD : 8 * (_HEAD + CAPACITY)].cast("d")
        self.arrived = view[8 * (_HEAD + CAPACITY) :].cast("d")
        if create:
            self.status = 200

    def begin(self, devices: int) -> int:
        """A new batch, with nothing sent and nothing counted; its number."""
        self.batch += 1
        self.devices = devices
        self.posts = self.repeats = self.swapped = self.strays = self.refused = 0
        self._map[8 * _HEAD :] = bytes(len(self._map) - 8 * _HEAD)
        return self.batch
