"""The fast client: aiohttp connects (names, TLS, IPv6), and then the connection is ours (see `wire.py`). Through ClientSession a
POST costs ten times as much.

What is used of aiohttp below its documented API, all of it here and in `wire.py`: `BaseConnector.connect`, what `ClientRequest`
makes of a URL, and of a connection's `ResponseHandler` `transport`, `should_close` and `connection_lost`. `open_client` in
`choosing.py` tries them out before it lets a node use this client.
"""

from __future__ import annotations

import asyncio
import functools
import math
import re
from collections.abc import Mapping

import aiohttp
from aiohttp import hdrs
from yarl import URL

from flowengine_http.client import HEADERS, KEEP_ALIVE, Response, as_written, connector, no_answer
from flowengine_http.deadlines import Deadlines
from flowengine_http.wire import Wire

_KNOWN_URLS = 256  # URLs may hold values of messages: there is no end of them
_KNOWN_SERVERS = 64

_BROKEN = (aiohttp.ClientError, OSError)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class DirectClient:
    """`HttpClient` that writes the request itself and reads the answer with httptools.

    A POST on a kept connection makes no task, no timer and one future (see `Deadlines`). One that is cancelled, times out, or is
    answered before its body is through closes its connection. Closing the client ends what is under way with Retry.

    timeout: seconds for a whole exchange, connecting included. ca: a PEM file with the certificates to trust in place of the
    system's; empty for those.
    """

    def __init__(self, *, timeout: float, ca: str = "") -> None:
        self._timeout = timeout
        self._ca = ca
        self._connector: aiohttp.TCPConnector | None = None
        self._connecting = aiohttp.ClientTimeout(total=None, connect=timeout)
        self._servers: dict[tuple[str, str], _Server] = {}
        self._resolve = functools.lru_cache(_KNOWN_URLS)(self._resolve_anew)
        self._sweep_timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(self._loop, Wire.abort)
        self._connector = connector(self._ca)

    async def close(self) -> None:
        pool, self._connector = self._connector, None
        if pool is not None:
            if self._sweep_timer is not None:
                self._sweep_timer.cancel()
            self._forget_servers()
            closed = [wire.closed for wire in self._deadlines.cut_off_all()]
            if closed:
                await asyncio.wait(closed)
            await pool.close()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        if self._connector is None:
            raise RuntimeError("the client is not open")
        due = self._loop.time() + self._timeout
        server, target = self._resolve(url)
        head = server.head(target, headers, len(body))
        try:
            wire = server.idle_wire() or Wire(await self._connector.connect(server.request, [], self._connecting))
            self._deadlines.begin(wire, due)
            try:
                response = await wire.exchange(head, body)
            except BaseException as failure:
                wire.abort()
                if not self._deadlines.end(wire) and isinstance(failure, OSError):
                    raise self._cut_off() from None
                raise
            if not self._deadlines.end(wire):  # cut off: an answer that ends with its connection seems to be whole
                wire.abort()
                raise self._cut_off()
        except _BROKEN as failure:
            raise no_answer(failure, url, self._timeout) from failure
        self._keep(server, wire)
        return response

    def _keep(self, server: _Server, wire: Wire) -> None:
        """Keep a connection for the next exchange, where that is allowed, or close it."""
        if not wire.kept or server.forgotten:
            wire.abort()
            return
        wire.idle_since = self._loop.time()
        server.idle.append(wire)
        if self._sweep_timer is None:
            self._sweep_timer = self._loop.call_later(KEEP_ALIVE, self._sweep)

    def _cut_off(self) -> OSError:
        """Why a connection was cut off: its time was up, or the client was closed."""
        return ConnectionAbortedError() if self._connector is None else TimeoutError()

    def _sweep(self) -> None:
        """Close what has been idle for long."""
        since = self._loop.time() - KEEP_ALIVE
        left = sum([server.sweep(since) for server in self._servers.values()])
        self._sweep_timer = self._loop.call_later(KEEP_ALIVE, self._sweep) if left else None

    def _forget_servers(self) -> None:
        for server in self._servers.values():
            server.forgotten = True
            server.sweep(math.inf)
        self._servers.clear()
        self._resolve.cache_clear()

    def _resolve_anew(self, url: str) -> tuple[_Server, str]:
        """Whom a URL means, and the target of the request. Raises Reject if it is none."""
        parsed = as_written(url)
        key = (parsed.scheme, parsed.raw_authority)
        server = self._servers.get(key)
        if server is None:
            if len(self._servers) >= _KNOWN_SERVERS:  # a flow may put even the host together from a message
                self._forget_servers()
            server = self._servers[key] = _Server(parsed)
        return server, parsed.raw_path_qs


class _Server:
    """What is the same for all requests to one scheme, host, port and credentials: connections, and heads of requests.

    request: what the connector wants to know. idle: connections that are kept, the last used last. forgotten: none is kept any
    more.
    """

    __slots__ = ("_heads", "forgotten", "idle", "request")

    def __init__(self, url: URL) -> None:
        loop = asyncio.get_running_loop()
        self.request = aiohttp.ClientRequest(hdrs.METH_POST, url, headers=HEADERS, loop=loop)
        self.idle: list[Wire] = []
        self.forgotten = False
        self._heads: dict[tuple[str, ...], str] = {}

    def idle_wire(self) -> Wire | None:
        """A kept connection, if there is one that the far end has not closed."""
        while self.idle:
            wire = self.idle.pop()
            if wire.kept:
                return wire
        return None

    def sweep(self, since: float) -> int:
        """Close the connections that were last used before that, in the loop's time; how many are left."""
        for wire in self.idle:
            if wire.idle_since < since:
                wire.abort()
        self.idle = [wire for wire in self.idle if wire.kept]
        return len(self.idle)

    def head(self, target: str, headers: Mapping[str, str], length: int) -> bytes:
        """The head of a request. target: path and query, percent-encoded. length: bytes of the body. Raises ValueError where a
        control character would forge further lines (RFC 9110 section 5.5)."""
        names = tuple(headers)
        template = self._heads.get(names)
        if template is None:
            template = self._heads[names] = self._template(names)
        values = (target, *headers.values())
        if _CONTROL.search("".join(values)) is not None:
            raise ValueError("a control character in the head of a request")
        return (template % (*values, length)).encode("utf-8", "ignore")  # half characters are left out, as aiohttp does

    def _template(self, names: tuple[str, ...]) -> str:
        """The head with places for the target, the values of the headers with these names, and the length of the body."""
        # `Expect: 100-continue` among the names means nothing here: the body need not wait (RFC 9110 section 10.1.1).
        own = self.request.headers.copy()
        del own[hdrs.CONTENT_LENGTH]
        own.setdefault(hdrs.CONTENT_TYPE, "application/octet-stream")
        for name in names:
            if name in own and name.lower() == "authorization":
                raise ValueError("a header Authorization beside credentials in the URL")
            own.pop(name, None)
        lines = [f"{name}: {value}" for name, value in own.items()]
        if any(_CONTROL.search(text) for text in (*lines, *names)):
            raise ValueError("a control character in the head of a request")
        lines = [line.replace("%", "%%") for line in lines]
        lines += [name.replace("%", "%%") + ": %s" for name in names]
        return "\r\n".join(["POST %s HTTP/1.1", *lines, "Content-Length: %d\r\n\r\n"])
