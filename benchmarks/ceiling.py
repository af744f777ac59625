"""What the generator with the broker, and the sink, can do alone: several times what systems do, or figures would be theirs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any, ClassVar, cast

import uvloop

from benchmarks.payloads import around_number
from benchmarks.processes import cpu_seconds
from benchmarks.results import Ceiling
from benchmarks.rig import Rig
from benchmarks.systems.system import PYTHON, ROOT, Ability, Place, System

_SECONDS = 2.0
_CLIENTS = 16
_AT_ONCE = 8
_ANSWER_END = b"{}"


class NoSystem(System):
    """wire.py in the place of a system."""

    name = "wire"
    abilities: ClassVar[frozenset[Ability]] = frozenset({"records", "heartbeats", "many devices"})

    def __init__(self, board: str) -> None:
        super().__init__()
        self._board = board

    def version(self) -> str:
        return ""

    def command(self, place: Place) -> list[str]:
        return [PYTHON, "-m", "benchmarks.wire", self._board, str(place.broker_port)]

    def env(self, place: Place) -> dict[str, str]:
        return {"PYTHONPATH": str(ROOT)}


_LOADS: dict[str, dict[str, Any]] = {
    "records-1.5k": {},
    "records-60k": {"size": 60_000, "window": 128},
    "heartbeats": {"kinds": ("heartbeat",)},
}


def measure() -> Iterator[Ceiling]:
    """The generator and Mosquitto with a system that only acknowledges; the sink with clients that send the next requests as soon
    as they are answered."""
    for load, plan in _LOADS.items():
        with Rig("wide") as rig:
            rig.start(NoSystem(str(rig.board.path)))
            before = cpu_seconds([rig.broker.pid])
            sample = rig.load(warm_up=0.5, seconds=_SECONDS, **plan)
            broker = (cpu_seconds([rig.broker.pid]) - before) / sample.sent * 1e6
            generator = sample.own_cpu / (sample.rate * sample.seconds) * 1e6
            cpu = {"generator": round(generator, 1), "Mosquitto": round(broker, 1)}
            yield Ceiling("broker", load, sample.rate, cpu)
    for load, size in (("records-1.5k", 1500), ("records-60k", 60_000)):
        with Rig() as rig:
            rig.board.begin(1)
            before = cpu_seconds([rig.sink.pid])
            count, seconds = uvloop.run(_post(rig, size))
            sink = (cpu_seconds([rig.sink.pid]) - before) / count * 1e6
            yield Ceiling("sink", load, round(count / seconds, 1), {"sink": round(sink, 1)})


class _Client(asyncio.Protocol):
    """Sends some requests at once, and again when all are answered."""

    answered = 0

    def __init__(self, requests: bytes) -> None:
        self._requests = requests
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._requests)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if self._data.count(_ANSWER_END) == _AT_ONCE:
            self._data = b""
            _Client.answered += _AT_ONCE
            self._transport.write(self._requests)


async def _post(rig: Rig, size: int) -> tuple[int, float]:
    """How many requests were answered, and in how many seconds."""
    before, after = around_number("record", rig.board.batch, size)
    body = before + b"00000000" + after
    request = f"POST / HTTP/1.1\r\nHost: sink\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    _Client.answered = 0
    began = time.monotonic()
    for _ in range(_CLIENTS):
        await asyncio.get_running_loop().create_connection(
            lambda: _Client(request * _AT_ONCE), "127.0.0.1", rig.sink_port
        )
    await asyncio.sleep(_SECONDS)
    return _Client.answered, time.monotonic() - began
