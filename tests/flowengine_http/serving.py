"""A real listener with http-in nodes on it, and a chain that stands in for the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from flowengine import Outcome
from flowengine.testing import make
from flowengine_http import HttpIn, HttpListener

End = Callable[[Outcome], None]


def delivered(outcome: Outcome) -> None:
    outcome.delivered += 1
    outcome.close_part()


def dropped(outcome: Outcome) -> None:
    outcome.dropped += 1
    outcome.close_part()


def dead(outcome: Outcome) -> None:
    outcome.dead += 1
    outcome.reason = "the backend said no"
    outcome.close_part()


def stored(outcome: Outcome) -> None:
    outcome.stored += 1
    outcome.close_part()


@dataclass
class Arrival:
    payload: Any
    meta: Mapping[str, Any]
    outcome: Outcome


class Chain:
    """Takes messages as the engine would. end: what becomes of each at once; None leaves them pending."""

    def __init__(self, end: End | None = delivered) -> None:
        self.end = end
        self.arrivals: list[Arrival] = []
        self._came = asyncio.Event()

    def __call__(
        self,
        payload: Any,
        meta: Mapping[str, Any],
        settled: Callable[[Outcome], None] | None = None,
        *,
        store: bool = True,
        expendable: bool = False,
        size: int = 0,
    ) -> Outcome:
        assert not expendable  # whoever asks by HTTP expects an answer
        outcome = Outcome(settled)
        outcome.storable = store
        self.arrivals.append(Arrival(payload, meta, outcome))
        self._came.set()
        if self.end is not None:
            self.end(outcome)
        return outcome

    def press(self) -> None:
        """There is always room."""

    async def arrival(self) -> Arrival:
        """The first message, as soon as it is there."""
        async with asyncio.timeout(10):
            await self._came.wait()
        return self.arrivals[0]


@asynccontextmanager
async def listening(options: str = "127.0.0.1:0") -> AsyncIterator[HttpListener]:
    """A listener that is open and not yet started."""
    listener = make(HttpListener, options)
    await listener.open()
    try:
        yield listener
    finally:
        await listener.close()


@asynccontextmanager
async def serving(*nodes: tuple[str, Chain], listener: str = "{listen: '127.0.0.1:0'}") -> AsyncIterator[HttpListener]:
    """A started listener with an http-in for each (options without the connection, chain)."""
    async with listening(listener) as found:
        running = []
        for options, chain in nodes:
            node = make(HttpIn, f"{{connection: it{options and ', '}{options}}}", connections={"it": found})
            running.append(asyncio.create_task(node.run(chain)))
        await asyncio.sleep(0)  # each registers before its first await
        await found.start()
        try:
            yield found
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


def url(listener: HttpListener, path: str = "/") -> str:
    """Where it listens."""
    base = listener.ready()
    assert base
    return base + path


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str
    json: Any


async def ask(address: str, method: str = "POST", **options: Any) -> Answer:
    """One request, one connection."""
    async with aiohttp.ClientSession() as session, session.request(method, address, **options) as answer:
        text = await answer.text()
        is_json = answer.content_type == "application/json"
        return Answer(answer.status, answer.headers, text, await answer.json() if is_json else None)


async def connect(listener: HttpListener) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A bare socket to the listener."""
    parts = urlsplit(url(listener))
    return await asyncio.open_connection(parts.hostname, parts.port)


async def hung_up(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the listener closes the connection."""
    async with asyncio.timeout(20):
        return await reader.read()
