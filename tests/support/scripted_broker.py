"""A broker that says what a test tells it to say, byte for byte: for what no real broker can be made to do."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, UNSUBSCRIBE, DISCONNECT = 1, 2, 3, 4, 8, 9, 10, 14


class Peer:
    """One client's connection."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self._reader = reader
        self._writer = writer

    async def receive(self) -> tuple[int, bytes]:
        """The type and the body of the next packet. Raises IncompleteReadError when the client has gone."""
        first = (await self._reader.readexactly(1))[0]
        length, shift = 0, 0
        while True:
            byte = (await self._reader.readexactly(1))[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return first >> 4, await self._reader.readexactly(length)

    async def expect(self, kind: int) -> bytes:
        """The body of the next packet of this type; others are passed over."""
        while True:
            got, body = await self.receive()
            if got == kind:
                return body

    def send(self, kind: int, body: bytes, flags: int = 0) -> None:
        """Send a packet; `body` is at most 16 KB."""
        length = bytes([len(body)]) if len(body) < 128 else bytes([len(body) & 127 | 128, len(body) >> 7])
        self._writer.write(bytes([kind << 4 | flags]) + length + body)

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)

    async def accept(self, *, version: int, session_present: bool = False, properties: bytes = b"") -> bytes:
        """Wait for CONNECT, accept it, and return its body. `version` is 5, or 4 for MQTT 3.1.1."""
        connect = await self.expect(CONNECT)
        told = bytes([session_present, 0]) + (bytes([len(properties)]) + properties if version == 5 else b"")
        self.send(CONNACK, told)
        return connect

    async def grant(self, *codes: int, version: int) -> bytes:
        """Wait for SUBSCRIBE, answer with these reason codes, and return its body."""
        body = await self.expect(SUBSCRIBE)
        self.send(SUBACK, body[:2] + (b"\0" if version == 5 else b"") + bytes(codes))
        return body

    def publish(self, topic: str, payload: bytes, *, mid: int, version: int, dup: bool = False) -> None:
        """Send a QoS 1 message."""
        head = struct.pack("!H", len(topic)) + topic.encode() + struct.pack("!H", mid)
        self.send(PUBLISH, head + (b"\0" if version == 5 else b"") + payload, flags=0x2 | (0x8 if dup else 0))

    async def until_closed(self) -> None:
        """Read on until the client closes."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await self.receive()


class ScriptedBroker:
    """Runs `script(peer)` for each connection, and closes the connection when the script ends.

    An exception from a script is raised when the broker is left; that the client has gone is none.
    """

    def __init__(self, script: Callable[[Peer], Awaitable[None]]) -> None:
        self._script = script
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._problem: BaseException | None = None
        self.connections = 0

    @property
    def url(self) -> str:
        """mqtt://127.0.0.1:PORT"""
        assert self._server is not None
        return f"mqtt://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._problem is not None and error is None:
            raise self._problem

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._script(Peer(self.connections, reader, writer))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        except BaseException as problem:
            self._problem = problem
        finally:
            self._tasks.discard(task)
            writer.close()
