"""A fixed replay of messages through the shipped flow, run by the real engine in this process.

Its MQTT session, its listener and its HTTP client speak over real sockets with the stand-ins of `far_ends`. Time stands still
while messages are counted, so that no tick of a timer and no new millisecond falls into one run and not into another.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import structlog

from benchmarks.counting import Count, Counting
from benchmarks.far_ends import Backend, Broker, Caller
from flowengine import logs, plugins
from flowengine.delivery.width import NARROW
from flowengine.flowfile import project
from flowengine.runtime.engine import Engine
from flowengine_http.client import Response
from flowengine_http.http_post import HttpPost

_FLOW = Path(__file__).parents[1] / "flows" / "facegate.yaml"
_DEVICES = 32
"""In a batch."""
_WARM_UP = 4
_BATCHES = 7
_DEADLINE = 30.0
_HEARTBEAT = (
    b'{"cmd": "heartU", "deviceNo": "0", "time": "2026-01-01 00:00:00", "version": "3.2.14", "personCount": 12}'
)
_RECORD = (
    b'{"cmd": "verifiedRecordU", "deviceNo": "0", "data": [{"num": "_NUMBER__", "name": "Ana Garc\\u00eda", "personType": "1", '
    b'"verifiedCode": 0, "time": "2026-01-01 00:00:00", "deviceNo": "0", "similarity": 91.5, "temperature": 36.6, '
    b'"mask": false, "liveImageBase64": "' + b"/9j/4AAQSkZJRgABAQAAAQABAAD/" * 43 + b'"}]}'
)
"""Ready-made, since what the standard library did for a stand-in would be counted."""


class Site:
    """A running engine and its far ends. `heartbeats`, `records` and `commands` send a message for each of the next 32 devices,
    which go round, and return once all has come out at the far end and is acknowledged."""

    def __init__(self, devices: int, engine: Engine, broker: Broker, posted: list[bytes], caller: Caller) -> None:
        self._devices = itertools.cycle(range(devices))
        self.engine = engine
        self.broker = broker
        self.posted = posted
        self.caller = caller
        self._number = 0

    async def heartbeats(self) -> None:
        """A heartbeat of each device: answered, the answer heard as the flow's own and dropped, acknowledged."""
        acknowledged, published = self.broker.acknowledged, self.broker.published
        self.broker.send([(f"fungxi_{device}_upLink", _HEARTBEAT) for device in self._next()])
        await self._until(
            lambda: (
                self.broker.acknowledged == acknowledged + _DEVICES and self.broker.published == published + _DEVICES
            )
        )

    async def records(self) -> None:
        """A record of 1.5 KB of each device: posted, and acknowledged."""
        acknowledged = self.broker.acknowledged
        self.broker.send([(f"fungxi_{device}_upLink", self._record()) for device in self._next()])
        await self._until(lambda: self.broker.acknowledged == acknowledged + _DEVICES)

    async def commands(self) -> None:
        """A command for each device, one after another over one connection: published, acknowledged by the broker, answered."""
        for device in self._next():
            wanted = self.caller.answered + 1
            self.caller.post(f"/devices/{device}/commands", b'{"cmd": "openDoor", "seconds": 5}')
            await self._until(partial(self.caller.has, wanted))

    def _next(self) -> Iterable[int]:
        return itertools.islice(self._devices, _DEVICES)

    def _record(self) -> bytes:
        self._number += 1
        return _RECORD.replace(b"_NUMBER__", b"%09d" % self._number)

    async def _until(self, condition: Callable[[], bool]) -> None:
        latest = time.perf_counter() + _DEADLINE
        while not condition():
            if time.perf_counter() > latest:
                raise TimeoutError(f"the replay does not end: {self.engine.books().lines(self.engine.pending())}")
            await asyncio.sleep(0)


Batch = Callable[[Site], Awaitable[None]]
WORKS: Mapping[str, tuple[Batch, bool]] = {
    "heartbeats": (Site.heartbeats, True),
    "records": (Site.records, False),
    "records, posted": (Site.records, True),
    "commands": (Site.commands, True),
}
"""What is replayed, and whether http-post has its own client or a stand-in that answers at once. Beside that of a client the
engine's own share would hardly show."""


def replay(work: str, devices: int = _DEVICES) -> tuple[Count, list[tuple[str, float]]]:
    """What one message of this work costs, and where (see `Counting`): the middle one of some batches, after each device was
    heard. On a busy machine what the kernel hands over at once differs now and then."""
    batch, own_client = WORKS[work]
    with _logs_to_nowhere(), asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(_replay(batch, own_client, devices))


async def _replay(batch: Batch, own_client: bool, devices: int) -> tuple[Count, list[tuple[str, float]]]:
    countings = [Counting() for _batch in range(_BATCHES)]
    async with _at_work(own_client, devices) as site:
        for _round in range(_WARM_UP + devices // _DEVICES):
            await batch(site)
        with _standing_clock():
            await batch(site)  # what came by the clock has come
            for lanes in site.engine.flows[0].lanes:
                lanes.turns.width.now = NARROW  # as where no lane waits long: on a busy machine some have
            for counting in countings:
                with counting.on():
                    await batch(site)
        books = site.engine.books()
        if not books.balance(site.engine.pending()) or books.dead:
            raise AssertionError(f"the replay is not what it should be: {books.lines(site.engine.pending())}")
        if site.posted and not own_client:
            raise AssertionError("http-post has not taken the stand-in for its client")
    middle = sorted(countings, key=lambda counting: counting.count(_DEVICES))[_BATCHES // 2]
    return middle.count(_DEVICES), middle.places(_DEVICES)


@contextmanager
def _logs_to_nowhere() -> Iterator[None]:
    """Log as `flowengine run` does, but for where it goes."""
    root, config = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        logs.configure("info", json=True, stream=nowhere)
        try:
            yield
        finally:
            structlog.configure(**config)
            logging.captureWarnings(False)
            root.handlers[:] = handlers
            root.setLevel(level)


@contextmanager
def _standing_clock() -> Iterator[None]:
    now, wall, collects = time.monotonic(), time.time(), gc.isenabled()
    gc.disable()
    try:
        with (
            patch.object(time, "monotonic", partial(float, now)),
            patch.object(time, "time", partial(float, wall)),
            patch.object(time, "time_ns", partial(int, wall * 1e9)),
        ):
            yield
    finally:
        if collects:
            gc.enable()


@asynccontextmanager
async def _at_work(own_client: bool, devices: int) -> AsyncIterator[Site]:
    loop = asyncio.get_running_loop()
    broker, posted, caller = Broker(), list[bytes](), Caller()
    brokers = await loop.create_server(lambda: broker, "127.0.0.1", 0)
    backends = await loop.create_server(lambda: Backend(posted), "127.0.0.1", 0)
    environ = {
        "MQTT_URL": f"mqtt://127.0.0.1:{_port(brokers)}",
        "BACKEND_URL": f"http://127.0.0.1:{_port(backends)}/api/user/mqtt_msg",
        "COMMAND_LISTEN": "127.0.0.1:0",
    }
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        engine = Engine(project.load([_FLOW], plugins.load(), environ=environ, state=state).checked(), state)
        try:
            await engine.start()
            if not own_client:
                await _answer_at_once(engine)
            ports = [urlsplit(said).port for said in await engine.until_ready() if said.startswith("http://")]
            await loop.create_connection(lambda: caller, "127.0.0.1", ports[0] or 0)
            yield Site(devices, engine, broker, posted, caller)
        finally:
            caller.close()
            await engine.stop()
            brokers.close()
            backends.close()


def _port(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


class _AnswersAtOnce:
    """An `HttpClient` that has nowhere to go."""

    _response = Response(200, {"content-type": "application/json"}, b'{"code":0}')

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def post(self, _url: str, _headers: Mapping[str, str], _body: bytes) -> Response:
        return self._response


async def _answer_at_once(engine: Engine) -> None:
    """Have the opened http-post nodes use the stand-in."""
    for run in engine.flows:
        for definition in run.flow.nodes():
            if isinstance(definition.node, HttpPost):
                node: Any = definition.node
                await node._client.close()
                node._client = _AnswersAtOnce()
