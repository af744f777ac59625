"""The backend of all measurements: the cheapest HTTP server that still looks at what it gets.

    python -m benchmarks.sink BOARD PORT

It answers each POST with the board's status after the board's delay, and notes when which record arrived.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.board import CAPACITY, Board
from benchmarks.payloads import number_in, numbers_in

_LOOK = 2048
"""The record's number stands within so many bytes of the body"""
_ARRAY = b"["
_ANSWERS = {
    200: b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    503: b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
}


class Tally:
    """Notes arrivals on the board."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._batch = -1
        self._last: dict[int, int] = {}

    def note(self, data: bytes) -> None:
        """The body that begins with `data`, or the array that it is, was taken."""
        for found in numbers_in(data) if data.startswith(_ARRAY) else (number_in(data),):
            self._note(found)

    def _note(self, found: tuple[int, int] | None) -> None:
        board = self._board
        if found is None or found[0] != board.batch or found[1] >= CAPACITY:
            board.strays += 1
            return
        batch, number = found
        if batch != self._batch:
            self._batch, self._last = batch, {}
        if board.arrived[number]:
            board.repeats += 1
            return
        device = number % (board.devices or 1)
        if self._last.get(device, -1) > number:
            board.swapped += 1
        else:
            self._last[device] = number
        board.arrived[number] = time.monotonic()
        board.posts += 1


class Sink(asyncio.Protocol):
    """One connection; requests have a Content-Length."""

    def __init__(self, board: Board, tally: Tally) -> None:
        self._board = board
        self._tally = tally
        self._rest = b""
        self._missing = 0
        self._begins = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        if self._missing:
            if len(data) < self._missing:
                self._missing -= len(data)
                return
            data = data[self._missing :]
            self._missing = 0
            self._taken()
        data = self._rest + data
        while data:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                break
            head = data[:end].lower()
            size = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0] or 0)
            have = len(data) - end - 4
            needed = size if data.startswith(_ARRAY, end + 4) else min(size, _LOOK)
            if have < needed:
                break
            self._begins = data[end + 4 : end + 4 + needed]
            if have < size:
                self._missing, data = size - have, b""
                break
            data = data[end + 4 + size :]
            self._taken()
        self._rest = data

    def _taken(self) -> None:
        status, delay = self._board.status, self._board.delay_us
        if delay:
            self._loop.call_later(delay / 1e6, self._answer, status, self._begins)
        else:
            self._answer(status, self._begins)

    def _answer(self, status: int, begins: bytes) -> None:
        if status == 200:
            self._tally.note(begins)
        else:
            self._board.refused += 1
        self._transport.write(_ANSWERS[status])


async def serve(board: Board, port: int) -> None:
    """Serve on this loopback port for ever."""
    tally = Tally(board)
    server = await asyncio.get_running_loop().create_server(lambda: Sink(board, tally), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(Board(Path(sys.argv[1])), int(sys.argv[2])))
