"""A backend that takes records over HTTP, counts them, and fails when told to."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Self

import msgspec
from aiohttp import web

from flowengine import Duration, _

DEFAULT_PATH = "/api/user/mqtt_msg"
_MAX_BODY = 16 * 1024 * 1024


class Faults(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How the backend misbehaves; `Faults()` is a healthy one. `PUT /faults` takes these fields as JSON.

    - `fail`: the status it answers with instead of 200 (300 to 599; 503 if only the next two are given)
    - `fail_rate`: the share of requests that fail, 0 to 1
    - `fail_for`: how long it fails, counted from the first request after the faults were set
    - `delay`: how long it waits before each answer
    - `hang`: it does not answer until the faults change
    """

    fail: int = 0
    fail_rate: float | None = None
    fail_for: str | float | None = None
    delay: str | float = 0.0
    hang: bool = False

    def __post_init__(self) -> None:
        if self.fail and not 300 <= self.fail <= 599:
            raise ValueError(_("fail: not a status from 300 to 599: {status}").format(status=self.fail))
        if self.fail_rate is not None and not 0 <= self.fail_rate <= 1:
            raise ValueError(_("fail_rate: not a share from 0 to 1: {rate}").format(rate=self.fail_rate))
        for duration in (self.delay, self.fail_for or 0):
            Duration(duration)

    @property
    def status(self) -> int:
        """The status of a failed answer; 0 if none is to fail."""
        return self.fail or (503 if self.fail_rate is not None or self.fail_for is not None else 0)


@dataclass(slots=True)
class BackendCounts:
    """What came in. `requests = records + failed + refused + abandoned`, once all are answered."""

    requests: int = 0
    """POSTs to the path, whatever came of them"""
    records: int = 0
    """answered 200, repeats among them"""
    distinct: int = 0
    """of the records, those with an Idempotency-Key not taken before"""
    repeats: int = 0
    """of the records, those with an Idempotency-Key taken before"""
    without_key: int = 0
    """of the records, those without an Idempotency-Key"""
    retries: int = 0
    """records whose Idempotency-Key came before, whether it was taken or failed then"""
    failed: int = 0
    """answered with an error because the faults say so"""
    refused: int = 0
    """answered 400: no JSON object"""
    abandoned: int = 0
    """the client went away before the answer"""


_KEY = re.compile(r'"[^"]*"')
_Records = Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1)]
_decode = msgspec.json.Decoder(dict[str, Any] | _Records).decode


@dataclass(frozen=True, slots=True)
class Taken:
    """One record and what was answered."""

    body: dict[str, Any]
    key: str | None
    """Its Idempotency-Key"""
    repeat: bool
    """Its key was taken before"""
    status: int


class Backend:
    """Takes each record as a POST of a JSON object, or several as one of an array of them (http-post with `batch`).

        async with Backend() as backend:            # on a free port of 127.0.0.1
            use(backend.url)
            backend.faults = Faults(fail=503)       # from now on
            assert backend.counts.records == 10

    `GET /stats` answers with the counts, `PUT /faults` changes the faults, `GET /faults` tells them.
    `on_record` is called with each record once its answer is known. Keys are remembered as long as the
    backend lives: some 100 bytes a record.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        path: str = DEFAULT_PATH,
        faults: Faults | None = None,
        on_record: Callable[[Taken], None] | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.path = path
        self.counts = BackendCounts()
        self._on_record = on_record
        self._faults = faults or Faults()
        self._faulty_since: float | None = None
        self._faults_changed = asyncio.Event()
        self._seen: set[str] = set()
        self._taken: set[str] = set()
        self._random = random.Random()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where records go; the port is known once started."""
        return f"http://{self.host}:{self.port}{self.path}"

    @property
    def faults(self) -> Faults:
        """How it misbehaves; assign to change. Requests that hang are then answered."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults = faults
        self._faulty_since = None
        self._faults_changed.set()
        self._faults_changed = asyncio.Event()

    async def start(self) -> None:
        """Listen. OSError if the port is taken."""
        app = web.Application(client_max_size=_MAX_BODY)
        app.router.add_post(self.path, self._take)
        app.router.add_get("/stats", self._stats)
        app.router.add_get("/faults", self._get_faults)
        app.router.add_put("/faults", self._put_faults)
        # Without cancellation a client that gave up would stay unseen until its answer is due.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self.port).start()
        except OSError:
            await runner.cleanup()
            raise
        self.port = runner.addresses[0][1]
        self._runner = runner

    async def stop(self) -> None:
        """Answer what is under way and close."""
        self.faults = Faults()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def _take(self, request: web.Request) -> web.Response:
        self.counts.requests += 1
        try:
            return await self._answer(request)
        except (asyncio.CancelledError, ConnectionError):
            self.counts.abandoned += 1
            raise

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            body = _decode(await request.read())
        except msgspec.DecodeError as error:
            self.counts.refused += 1
            return web.json_response({"error": str(error)}, status=400)
        records = _keyed(body, request.headers.get("Idempotency-Key"))
        for _record, key in records:
            self.counts.retries += key in self._seen
            if key is not None:
                self._seen.add(key)
        status = await self._misbehave()
        self.counts.failed += status != 200
        for record, key in records:
            repeat = key in self._taken
            if status == 200:
                self._count(key, repeat)
            if self._on_record is not None:
                self._on_record(Taken(record, key, repeat, status))
        return web.json_response({"ok": status == 200}, status=status)

    async def _misbehave(self) -> int:
        faults = self._faults
        status = self._status(faults)
        if faults.hang:
            await self._faults_changed.wait()
        if delay := Duration(faults.delay).seconds:
            await asyncio.sleep(delay)
        return status

    def _status(self, faults: Faults) -> int:
        if not faults.status:
            return 200
        now = time.monotonic()
        if self._faulty_since is None:
            self._faulty_since = now
        if faults.fail_for is not None and now - self._faulty_since >= Duration(faults.fail_for).seconds:
            return 200
        if faults.fail_rate is not None and self._random.random() >= faults.fail_rate:
            return 200
        return faults.status

    def _count(self, key: str | None, repeat: bool) -> None:
        self.counts.records += 1
        if key is None:
            self.counts.without_key += 1
        elif repeat:
            self.counts.repeats += 1
        else:
            self.counts.distinct += 1
            self._taken.add(key)

    async def _stats(self, request: web.Request) -> web.Response:
        return web.json_response(asdict(self.counts))

    async def _get_faults(self, request: web.Request) -> web.Response:
        return web.json_response(msgspec.to_builtins(self._faults))

    async def _put_faults(self, request: web.Request) -> web.Response:
        try:
            self.faults = msgspec.json.decode(await request.read(), type=Faults)
        except msgspec.DecodeError as error:
            return web.json_response({"error": str(error)}, status=400)
        return await self._get_faults(request)


def _keyed(body: dict[str, Any] | list[dict[str, Any]], header: str | None) -> list[tuple[dict[str, Any], str | None]]:
    """The records of a request, each with its Idempotency-Key: of an array the header holds a list (RFC 9651 section 3.1)."""
    if isinstance(body, dict):
        return [(body, header)]
    keys: list[str] = _KEY.findall(header or "")
    return list(zip(body, keys, strict=True)) if len(keys) == len(body) else [(record, None) for record in body]
