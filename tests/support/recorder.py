"""A backend that keeps each POST as it came, byte for byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiohttp import web


@dataclass(frozen=True)
class Posted:
    """One POST."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


class Recorder:
    """Answers every POST and keeps it in `posts`, on a free port of 127.0.0.1.

    `answers` are the statuses of the next answers; after them it is 200. From `hold()` to `release()` none is given.
    """

    def __init__(self) -> None:
        self.posts: list[Posted] = []
        self.answers: list[int] = []
        self._open = asyncio.Event()
        self._open.set()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where to post to."""
        assert self._runner is not None
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/api/user/mqtt_msg"

    def hold(self) -> None:
        """Take requests and do not answer."""
        self._open.clear()

    def release(self) -> None:
        """Answer again, also what was held."""
        self._open.set()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        assert self._runner is not None
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.posts.append(Posted(request.path, dict(request.headers), await request.read()))
        status = self.answers.pop(0) if self.answers else 200
        await self._open.wait()
        return web.json_response({}, status=status)
