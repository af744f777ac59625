"""Which client a node gets: the fast one, if what it uses of aiohttp and httptools behaves as it expects, else the plain one.

Tried out once in a process, with an exchange over the loopback interface: a release of aiohttp that changed them, or a
distribution's patch, costs speed and not messages.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from flowengine import N_
from flowengine_http.client import HttpClient, Response
from flowengine_http.direct import DirectClient
from flowengine_http.session import SessionClient

_PATIENCE = 2.0
_BODY = b'{"n":1}'
# A plain answer, and one that is interim first, comes in chunks, and ends with the connection.
_ANSWERS = (
    (b"HTTP/1.1 200 OK\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 2\r\n\r\nok",),
    (
        b"HTTP/1.1 103 Early Hints\r\n\r\n"
        b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nab\r\n",
        b"1\r\nc\r\n0\r\n\r\n",
    ),
)
_EXPECTED = (
    Response(200, {"x-a": "1, 2", "content-length": "2"}, b"ok"),
    Response(202, {"transfer-encoding": "chunked", "connection": "close"}, b"abc"),
)

_usable: bool | None = None


async def open_client(*, timeout: float, ca: str, log: Any) -> HttpClient:
    """An open client. timeout, ca: as `DirectClient` has them. log: takes the warning if it is the plain one. Raises
    StartError."""
    global _usable
    if _usable is None:
        try:
            await try_out()
            _usable = True
        except Exception as failure:
            _usable = False
            words = N_("aiohttp is not as the fast client expects: posts go the plain way, at several times the cost")
            log.warning(words, reason=f"{type(failure).__name__}: {failure}")
    client: HttpClient = DirectClient(timeout=timeout, ca=ca) if _usable else SessionClient(timeout=timeout, ca=ca)
    await client.open()
    return client


async def try_out() -> None:
    """Post with a `DirectClient` to a server in this process. Raises whatever goes wrong."""
    loop = asyncio.get_running_loop()
    connections: list[_Answering] = []

    def connected() -> _Answering:
        connections.append(_Answering())
        return connections[-1]

    server = await loop.create_server(connected, "127.0.0.1", 0)
    client = DirectClient(timeout=_PATIENCE)
    try:
        async with asyncio.timeout(_PATIENCE):
            await client.open()
            await _exchanges(client, server.sockets[0].getsockname()[1], connections)
            await client.close()
    finally:
        for connection in connections:
            connection.hang_up()
        server.close()


async def _exchanges(client: DirectClient, port: int, connections: list[_Answering]) -> None:
    for expected in _EXPECTED:
        answer = await client.post(f"http://127.0.0.1:{port}/a?b", {"X-B": "c"}, _BODY)
        if answer != expected:
            raise ValueError(f"{answer} is not {expected}")
    if len(connections) != 1:
        raise ValueError("a connection is not used again")
    head = connections[0].requests[1].partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
    if head[0] != b"post /a?b http/1.1" or not {b"x-b: c", b"content-length: %d" % len(_BODY)} < set(head):
        raise ValueError(f"a request is not as it should be: {head}")


class _Answering(asyncio.Protocol):
    """A server that gives `_ANSWERS` in turn, the parts of each one by one."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._received.endswith(b"\r\n\r\n" + _BODY):
            return
        self.requests.append(self._received)
        self._received = b""
        first, *others = _ANSWERS[len(self.requests) - 1]
        assert self._transport is not None
        self._transport.write(first)
        for delay, part in enumerate(others, 1):
            asyncio.get_running_loop().call_later(delay / 1000, self._transport.write, part)

    def hang_up(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()
