"""aiohttp's low-level server, and what a listener that strangers reach needs beside it.

- A client has `head_timeout` to finish the head of a request, from its first byte; then it gets 408 and the
  connection is closed.
  (aiohttp knows only the idle time between requests, which must be longer than that of a proxy in front of
  it.)
- What is no HTTP is answered in the words and form of the other errors, and is not an error in our log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from flowengine import _
from flowengine_http.answers import error, response

IDLE_TIMEOUT = 75.0
"""Seconds that a connection may be idle between two requests; longer than nginx keeps one to its upstream
(60)."""

_LINGER = 2.0
"""Seconds for which the rest of a refused body is read, so that the client sees the answer (RFC 9112 section
9.6)."""

_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Server(web.Server):
    """A factory of connections for `loop.create_server`. handle: answers a request. log: a structlog
    logger."""

    def __init__(
        self,
        handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        head_timeout: float,
        log: Any,
    ) -> None:
        super().__init__(self._answer)
        self._handle = handle
        self._head_timeout = head_timeout
        self._running = asyncio.get_running_loop()
        # Connections in the middle of a head, and since when, the oldest first.
        self._heads: dict[_ServerConnection, float] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self.log = log

    def __call__(self) -> web.RequestHandler:
        return _ServerConnection(
            self,
            loop=self._running,
            keepalive_timeout=IDLE_TIMEOUT,
            lingering_time=_LINGER,
            access_log=None,
        )

    async def shutdown(self, timeout: float | None = None) -> None:
        """Close all connections; those with an answer under way get `timeout` seconds to finish it."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        await super().shutdown(timeout)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, _ServerConnection)
        self._heads.pop(connection, None)
        connection.answering = True
        try:
            return await self._handle(request)
        finally:
            connection.answering = False

    def head_begins(self, connection: _ServerConnection) -> None:
        """Bytes came on a connection where no request is being answered."""
        if connection not in self._heads:
            self._heads[connection] = self._running.time()
            if self._sweeper is None:
                self._sweeper = self._running.call_later(self._head_timeout, self._sweep)

    def head_ends(self, connection: _ServerConnection) -> None:
        """The connection is gone."""
        self._heads.pop(connection, None)

    def _sweep(self) -> None:
        """One timer for all connections: none is armed per request."""
        now = self._running.time()
        for connection, began in list(self._heads.items()):
            due = began + self._head_timeout
            if due > now:
                self._sweeper = self._running.call_at(due, self._sweep)
                return
            del self._heads[connection]
            connection.cut_off()
        self._sweeper = None


class _ServerConnection(web.RequestHandler):
    """One client's connection."""

    def __init__(self, server: Server, **settings: Any) -> None:
        super().__init__(server, **settings)
        self._server = server
        self.answering = False

    def data_received(self, data: bytes) -> None:
        if data and not self.answering:
            self._server.head_begins(self)
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.head_ends(self)
        super().connection_lost(exc)

    def cut_off(self) -> None:
        """The head did not come in time (RFC 9110 section 15.5.9)."""
        if self.transport is not None:
            self.transport.write(_TOO_SLOW)
        self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """aiohttp's parser could not read the request."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun; another one cannot be sent")
        self._server.log.debug("not an HTTP request", remote=request.remote, reason=message or str(exc))
        answer = response(error(status, _("this is not a request that HTTP/1.1 allows")))
        answer.force_close()
        return answer
