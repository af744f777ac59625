"""A TCP proxy that makes a network go bad: slow, silent, broken, narrow."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

_PIECE = 64 * 1024
_LINGER_NOTHING = struct.pack("ii", 1, 0)


class ChaosProxy:
    """Carries connections to `127.0.0.1:port`, both ways, as well as it is told to; each setting counts at once.

    async with ChaosProxy(broker.port) as network:
        connect_to(network.port)
        network.delay = 0.3                  # seconds that each piece of data is on its way
        network.throttle = 20_000            # bytes a second each way, on each connection; 0 is no bound
        network.blackhole()                  # half-open: connections stay, and take what is sent, but nothing arrives
        network.heal()                       # undoes all three; what the hole swallowed is lost, so its connections are reset
        network.reset()                      # RST to both ends of all connections
        network.refuse(); network.accept()   # no new connections, and again
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.delay = 0.0
        self.throttle = 0
        self.connections = 0
        """How many were ever made."""
        self.swallowed = 0
        """Bytes that went into the black hole."""
        self._target = (host, port)
        self._hole = False
        self._server: asyncio.Server | None = None
        self._port = 0
        self._links: set[_Link] = set()

    @property
    def port(self) -> int:
        """Where to connect to, on 127.0.0.1; it stays."""
        return self._port

    @property
    def url(self) -> str:
        """`mqtt://127.0.0.1:PORT`"""
        return f"mqtt://127.0.0.1:{self._port}"

    @property
    def hole(self) -> bool:
        """Whether nothing arrives."""
        return self._hole

    def blackhole(self) -> None:
        """From now on nothing arrives, in either direction, nor does the news that an end has closed; new connections are taken,
        and get nowhere."""
        self._hole = True

    def heal(self) -> None:
        """Carry everything again, at once. Connections that were in the hole lack bytes in their middle: they are reset."""
        self.delay = self.throttle = 0
        if self._hole:
            self._hole = False
            self.reset()

    def reset(self) -> None:
        """Cut all connections with an RST to both ends: what is under way is lost."""
        for link in list(self._links):
            link.reset()

    def refuse(self) -> None:
        """Take no new connections."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def accept(self) -> None:
        """Take connections, at the port of before."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, limit=_PIECE)
            self._port = self._server.sockets[0].getsockname()[1]

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        self.reset()
        await asyncio.gather(*(link.over.wait() for link in self._links))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        link = _Link(self, reader, writer)
        self._links.add(link)
        try:
            await link.carry(*self._target)
        finally:
            self._links.discard(link)
            link.over.set()


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: ChaosProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.over = asyncio.Event()
        self._proxy = proxy
        self._near = (reader, writer)
        self._writers = [writer]
        self._broken = asyncio.Event()

    def reset(self) -> None:
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOTHING)  # close() sends an RST
            writer.transport.abort()
        self._broken.set()

    async def carry(self, host: str, port: int) -> None:
        try:
            reader, writer = await asyncio.open_connection(host, port, limit=_PIECE)
        except OSError:
            self.reset()  # the far end is not there
            return
        self._writers.append(writer)
        near_reader, near_writer = self._near
        ways = [
            asyncio.create_task(self._one_way(near_reader, writer)),
            asyncio.create_task(self._one_way(reader, near_writer)),
        ]
        both: asyncio.Future[Any] = asyncio.gather(*ways, return_exceptions=True)
        broken: asyncio.Future[Any] = asyncio.create_task(self._broken.wait())
        try:
            await asyncio.wait([both, broken], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*ways, broken):
                task.cancel()
            await asyncio.wait([*ways, broken])
            for each in self._writers:
                each.close()

    async def _one_way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read on even while pieces are delayed, so that a delay is no throttle."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        sender = asyncio.create_task(self._send(under_way, writer))
        loop = asyncio.get_running_loop()
        try:
            while not sender.done():
                try:
                    piece = await reader.read(_PIECE)
                except OSError:
                    piece = b""
                under_way.put_nowait((loop.time(), piece))
                if not piece:
                    break
                if self._proxy.throttle:
                    await asyncio.sleep(len(piece) / self._proxy.throttle)
            await sender
        finally:
            sender.cancel()

    async def _send(self, under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            since, piece = await under_way.get()
            wait = since + self._proxy.delay - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            if self._proxy.hole:
                self._proxy.swallowed += len(piece)
                if not piece:
                    return
                continue
            try:
                if not piece:
                    writer.write_eof()
                    return
                writer.write(piece)
                await writer.drain()
            except OSError:
                self.reset()
                return
