"""A backend of numbered records that misbehaves in every way a test can say."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiohttp import web

_MAX_BODY = 64 << 20


class Record(NamedTuple):
    """One record: the numbers of a device go 1, 2, 3 ..."""

    device: str
    number: int


class Call:
    """One POST of one record, or of one in a batch, as a behaviour gets it."""

    def __init__(self, backend: Backend, request: web.Request, record: Record, key: str | None) -> None:
        self.backend = backend
        self.request = request
        self.record = record
        self.key = key

    def apply(self) -> None:
        """Take the record: it has arrived, whatever the engine is told."""
        self.backend.arrivals.append(self.record)
        self.backend.arrived[self.record.device].append(self.record.number)
        self.backend.times[self.record] += 1

    def answer(self, status: int = 200, body: Any = None, **headers: str) -> web.Response:
        """An answer; underscores in a header's name stand for hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response({} if body is None else body, status=status, headers=named)

    def drop(self) -> web.Response:
        """Reset the connection: the engine gets no answer."""
        if self.request.transport is not None:
            self.request.transport.abort()
        return web.Response(status=500)


Behaviour = Callable[[Call], Awaitable[web.StreamResponse]]


async def healthy(call: Call) -> web.StreamResponse:
    """Takes the record and says so."""
    call.apply()
    return call.answer()


def answers(status: int, body: Any = None, **headers: str) -> Behaviour:
    """Takes nothing, and answers this: `answers(429, Retry_After="1")`."""

    async def behave(call: Call) -> web.StreamResponse:
        return call.answer(status, body, **headers)

    return behave


def slow(seconds: float) -> Behaviour:
    """Takes each record, and answers late."""

    async def behave(call: Call) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await healthy(call)

    return behave


async def hangs(call: Call) -> web.StreamResponse:
    """Takes nothing and does not answer; when the backend behaves otherwise, the connection is reset."""
    await call.backend.changed()
    return call.drop()


async def drops(call: Call) -> web.StreamResponse:
    """Takes nothing and resets the connection."""
    return call.drop()


async def applies_then_drops(call: Call) -> web.StreamResponse:
    """Takes the record and resets the connection: the engine cannot know."""
    call.apply()
    return call.drop()


async def breaks_off(call: Call) -> web.StreamResponse:
    """Takes the record, answers 200, and resets the connection in the middle of the body."""
    call.apply()
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    with suppress(ConnectionError):
        await response.prepare(call.request)
        await response.write(b'{"half": ')
    call.drop()
    return response


def only(which: Callable[[Call], bool], then: Behaviour, otherwise: Behaviour = healthy) -> Behaviour:
    """One behaviour for some calls and another for the rest."""

    async def behave(call: Call) -> web.StreamResponse:
        return await (then if which(call) else otherwise)(call)

    return behave


class Backend:
    """Takes records on a port of 127.0.0.1 that stays the same over `stop` and `start`.

    backend.behave = answers(503)           # from the next request on; what hangs is let go

    `arrived` are the numbers of each device as they were taken, repeats among them; `arrivals` the same over all devices; `times`
    how often each was taken; `attempts` how often each was sent; `keys` the Idempotency-Keys with which it was.
    """

    def __init__(self) -> None:
        self.arrivals: list[Record] = []
        self.arrived: defaultdict[str, list[int]] = defaultdict(list)
        self.times: Counter[Record] = Counter()
        self.attempts: Counter[Record] = Counter()
        self.keys: defaultdict[Record, set[str | None]] = defaultdict(set)
        self.requests = 0
        self.port = 0
        self._behave: Behaviour = healthy
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where records go, whatever the path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def behave(self) -> Behaviour:
        """How it behaves; assign to change."""
        return self._behave

    @behave.setter
    def behave(self, behaviour: Behaviour) -> None:
        self._behave = behaviour
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Return when the behaviour changes, or it stops."""
        await self._changed.wait()

    async def start(self) -> None:
        """Listen (again)."""
        app = web.Application(client_max_size=_MAX_BODY)
        app.router.add_post("/{path:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close the port."""
        runner, self._runner = self._runner, None
        if runner is not None:
            self._changed.set()
            self._changed = asyncio.Event()
            await runner.cleanup()

    async def _take(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        key = request.headers.get("Idempotency-Key")
        self.requests += 1
        if not isinstance(body, list):
            return await self._behave(self._call(request, body, key))
        behave = self._behave
        calls = [self._call(request, *each) for each in zip(body, (key or "").split(", "), strict=True)]
        answers = [await behave(call) for call in calls]
        return max(answers, key=lambda answer: answer.status)

    def _call(self, request: web.Request, body: Any, key: str | None) -> Call:
        record = Record(body["device"], body["number"])
        self.attempts[record] += 1
        self.keys[record].add(key)
        return Call(self, request, record, key)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
