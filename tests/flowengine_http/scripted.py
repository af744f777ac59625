"""A server that speaks HTTP byte by byte, as a script says: for answers that a well-behaved one would not give."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple


class Request(NamedTuple):
    """What came: the request line, the header lines with names in lower case, and the body."""

    line: str
    headers: dict[str, str]
    body: bytes


class Wire:
    """One connection, as the server has it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> Request:
        """The head of the next request. Raises IncompleteReadError where the client has closed."""
        line, *fields = (await self.reader.readuntil(b"\r\n\r\n")).decode().rstrip("\r\n").split("\r\n")
        return Request(line, {n.lower(): v for n, v in (f.split(": ", 1) for f in fields)}, b"")

    async def request(self) -> Request:
        """The next request."""
        head = await self.head()
        return head._replace(body=await self.reader.readexactly(int(head.headers["content-length"])))

    async def send(self, *parts: bytes) -> None:
        """Each part in a turn of the loop of its own."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def hung_up(self) -> int:
        """Wait until the client has closed the connection; how many bytes came until then."""
        size = 0
        try:
            while piece := await self.reader.read(65_536):
                size += len(piece)
        except ConnectionError:
            pass
        return size


Script = Callable[[Wire], Awaitable[None]]


@dataclass
class Scripted:
    """The running server. wires: the connections it had."""

    url: str
    wires: list[Wire] = field(default_factory=list)


@asynccontextmanager
async def scripted(
    script: Script, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Scripted]:
    """Serve each connection with `script` until it returns; then the connection is closed."""
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        wire = Wire(reader, writer)
        running.wires.append(wire)
        try:
            await script(wire)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client is gone, or the test is over
        finally:
            serving.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, host, 0, ssl=tls, limit=1 << 20)
    port = server.sockets[0].getsockname()[1]
    name = f"[{host}]" if ":" in host else host
    running = Scripted(f"{'https' if tls else 'http'}://{name}:{port}")
    try:
        yield running
    finally:
        server.close()
        for task in list(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        for wire in running.wires:
            wire.writer.transport.abort()


def answering(*parts: bytes) -> Script:
    """Give each request this answer, in these parts."""

    async def script(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.send(*parts)

    return script
