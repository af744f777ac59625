"""The fast client: aiohttp's connector and response parser without its ClientSession, which costs a POST three quarters of
its time.

What is used of aiohttp below its documented API, all of it in this module and `deadlines.py`: `BaseConnector.connect`, what
`ClientRequest` makes of a URL, `ResponseHandler` (the protocol of a pooled connection: `should_close`, `set_response_params`,
`read`, `closed`), and of a StreamReader `is_eof`, `read_nowait` and `set_exception`. `open_client` in `choosing.py` tries them
out before it lets a node use this client.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import hdrs
from aiohttp.http import HttpProcessingError
from yarl import URL

from flowengine_http.client import BODY_LIMIT, USER_AGENT, Response, as_written, beginning, connector, joined, no_answer
from flowengine_http.deadlines import Deadlines

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection

_KNOWN_URLS = 256  # URLs may hold values of messages: there is no end of them
_KNOWN_SERVERS = 64
_JOINED = 65_536
"""Bytes of a body up to which copying it behind the head is cheaper than handing both on."""

_BROKEN = (aiohttp.ClientError, HttpProcessingError, OSError)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class DirectClient:
    """`HttpClient` that writes the request itself and has aiohttp connect, keep connections and read the answer.

    A POST on a kept connection makes no task, no timer and one future (see `Deadlines`). One that is cancelled, times out, or is
    answered before its body is through closes its connection. Closing the client ends what is under way with Retry.

    timeout: seconds for a whole exchange, connecting included. ca: a PEM file with the certificates to trust in place of the
    system's; empty for those.
    """

    def __init__(self, *, timeout: float, ca: str = "") -> None:
        self._timeout = timeout
        self._ca = ca
        self._connector: aiohttp.TCPConnector | None = None
        # The connector applies `connect` only where it has no connection at hand.
        self._connecting = aiohttp.ClientTimeout(total=None, connect=timeout)
        self._servers: dict[tuple[str, str], _Server] = {}
        self._resolve = functools.lru_cache(_KNOWN_URLS)(self._resolve_anew)

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(self._loop)
        self._connector = connector(self._ca)

    async def close(self) -> None:
        pool, self._connector = self._connector, None
        if pool is not None:
            await self._deadlines.cut_off_all()
            await pool.close()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        if self._connector is None:
            raise RuntimeError("the client is not open")
        due = self._loop.time() + self._timeout
        server, target = self._resolve(url)
        head = server.head(target, headers, len(body))
        try:
            connection = await self._connector.connect(server.request, [], self._connecting)
            return await self._over(connection, head, body, due)
        except _BROKEN as failure:
            raise no_answer(failure, url, self._timeout) from failure

    async def _over(self, connection: Connection, head: bytes, body: bytes, due: float) -> Response:
        """The exchange over this connection, which is then given back to the pool, or closed."""
        protocol = connection.protocol
        assert protocol is not None
        self._deadlines.begin(protocol, due)
        try:
            response, whole = await _exchange(protocol, head, body)
        except BaseException as failure:
            in_time = self._deadlines.end(protocol)
            _abort(connection)
            if not in_time and isinstance(failure, _BROKEN):
                raise self._cut_off() from None
            raise
        if not self._deadlines.end(protocol):  # cut off: an answer that ends with its connection seems to be whole
            _abort(connection)
            raise self._cut_off()
        if whole:
            connection.release()
        else:
            _abort(connection)
        return response

    def _cut_off(self) -> OSError:
        """Why a connection was cut off: its time was up, or the client was closed."""
        return ConnectionAbortedError() if self._connector is None else TimeoutError()

    def _resolve_anew(self, url: str) -> tuple[_Server, str]:
        """Whom a URL means, and the target of the request. Raises Reject if it is none."""
        parsed = as_written(url)
        key = (parsed.scheme, parsed.raw_authority)
        server = self._servers.get(key)
        if server is None:
            if len(self._servers) >= _KNOWN_SERVERS:  # a flow may put even the host together from a message
                self._servers.clear()
            server = self._servers[key] = _Server(parsed)
        return server, parsed.raw_path_qs


class _Server:
    """What is the same for all requests to one scheme, host, port and credentials: how to connect, and heads of requests.

    request: what the connector and its pool tell servers apart by.
    """

    __slots__ = ("_heads", "request")

    def __init__(self, url: URL) -> None:
        loop = asyncio.get_running_loop()
        self.request = aiohttp.ClientRequest(hdrs.METH_POST, url, headers={"User-Agent": USER_AGENT}, loop=loop)
        self._heads: dict[tuple[str, ...], str] = {}

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


async def _exchange(protocol: ResponseHandler, head: bytes, body: bytes) -> tuple[Response, bool]:
    """Send a request and read its answer; also whether the connection may be used again, as far as this exchange goes."""
    transport = protocol.transport
    # should_close before anything is sent: the far end spoke unasked on a kept connection, and what it said would be taken
    # for the answer.
    if transport is None or transport.is_closing() or protocol.should_close:
        raise aiohttp.ServerDisconnectedError()
    protocol.set_response_params(read_until_eof=True)
    # Nothing waits for the body to be sent: it is in memory as a whole, and an answer may come before it is through.
    if len(body) <= _JOINED:
        transport.write(head + body)
    else:
        transport.write(head)
        transport.write(body)
    while True:
        message, content = await protocol.read()
        if not 100 <= message.code < 200 or message.code == 101:  # interim answers (RFC 9110 section 15.2)
            break
    start = content.read_nowait()[:BODY_LIMIT] if content.is_eof() else await _beginning(protocol, content)
    whole = content.is_eof() and not transport.get_write_buffer_size()
    return Response(message.code, joined(message.headers), start), whole


async def _beginning(protocol: ResponseHandler, content: aiohttp.StreamReader) -> bytes:
    """The body of an answer where it did not all come with the head.

    If what comes is no HTTP, aiohttp closes the connection and leaves whoever reads the body waiting; here that is heard.
    """
    closed = protocol.closed
    if closed is None:
        raise aiohttp.ServerDisconnectedError()

    def lost(_closed: asyncio.Future[None]) -> None:
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the connection is lost"))

    closed.remove_done_callback(_heard)  # it lives as long as the connection, and one is enough
    closed.add_done_callback(_heard)
    closed.add_done_callback(lost)
    try:
        return await beginning(content)
    finally:
        closed.remove_done_callback(lost)


def _heard(closed: asyncio.Future[None]) -> None:
    """Why a connection was lost is told by its exchange: asyncio need not complain that nobody asked the future."""
    if not closed.cancelled():
        closed.exception()


def _abort(connection: Connection) -> None:
    if connection.transport is not None:
        connection.transport.abort()  # close() alone would go on sending what is left of the request
    connection.close()
