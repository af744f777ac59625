"""A system that does nothing: it reads what terminals send, notes it on the board, answers heartbeats, and acknowledges.

    python -m benchmarks.wire BOARD PORT

Between the generator and the broker it shows how much these two can do; see ceiling.py.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.board import Board
from benchmarks.packets import PUBLISH, Reader, connect, remaining_length, subscribe
from benchmarks.sink import Tally

_REPLY = b'{"cmd":"heartD","time":"2024-11-30 08:15:30"}'
_CONNACK = 0x20


class Wire(asyncio.Protocol):
    """The connection to the broker."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._reader = Reader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(connect("bench-wire"))

    def data_received(self, data: bytes) -> None:
        out = bytearray()
        for first, body in self._reader.feed(data):
            if first & 0xF0 == PUBLISH and first & 0x06:
                end = 2 + (body[0] << 8 | body[1])
                if body.endswith(b'"heartU"}'):
                    topic = body[2:end].replace(b"_upLink", b"_downLink")
                    packet = len(topic).to_bytes(2, "big") + topic + _REPLY
                    out += bytes((PUBLISH,)) + remaining_length(len(packet)) + packet
                else:
                    self._tally.note(body[end + 2 : end + 2050])
                out += b"\x40\x02" + body[end : end + 2]
            elif first == _CONNACK:
                out += subscribe(["+"], 1)[0]
        self._transport.write(out)


async def _run(board: Board, port: int) -> None:
    await asyncio.get_running_loop().create_connection(lambda: Wire(Tally(board)), "127.0.0.1", port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_run(Board(Path(sys.argv[1])), int(sys.argv[2])))
