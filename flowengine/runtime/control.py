"""The control socket of a running engine: `control.sock` in the state folder, for its owner only.

A client sends a JSON object on a line; it is answered by lines of JSON, the last of them `{"end": true}`, with an `error` where
it could not be done. What the requests are is in `requests`. Each client has a task of its own: one that does not read its answer
holds up nobody. There is none where the platform has no Unix sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import structlog

from flowengine.i18n import N_, _
from flowengine.runtime.requests import Desk, Refused, answer, read_request

NAME = "control.sock"
_LONGEST_LINE = 1 << 20
_CLIENTS = 16
_LONGEST_PATH = 100
"""Bytes: Linux takes 107 (unix(7)), macOS 103."""
_CLOSE_WITHIN = 2.0
_encode = msgspec.json.Encoder().encode
log: Any = structlog.get_logger("flowengine.control")


class Control:
    """Serves requests until it is closed."""

    def __init__(self, at: Desk, folder: Path) -> None:
        self._desk = at
        self._path = folder / NAME
        self._server: asyncio.AbstractServer | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen. A failure is said and ends nothing: the engine works without."""
        if not hasattr(socket, "AF_UNIX") or not hasattr(asyncio, "start_unix_server"):
            return
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._path.unlink(missing_ok=True)  # the folder is locked: whoever left it is no more
            with contextlib.suppress(OSError):
                os.fchmod(listening.fileno(), 0o600)  # on Linux it is then made so
            with short(self._path) as address:
                listening.bind(address)
            self._path.chmod(0o600)
            listening.setblocking(False)
            self._server = await asyncio.start_unix_server(self._serve, sock=listening, limit=_LONGEST_LINE)
        except OSError as error:
            listening.close()
            log.warning(N_("no control socket: 'dead' and 'outbox' work only while stopped"), reason=str(error))

    async def close(self) -> None:
        """Take no request any more; those under way are given up, between two steps of theirs."""
        if self._server is None:
            return
        self._server.close()
        for client in self._clients:
            client.cancel()
        if self._clients:
            await asyncio.wait(self._clients, timeout=_CLOSE_WITHIN)
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            if len(self._clients) > _CLIENTS:
                await _say(writer, {"error": _("too many ask at once"), "end": True})
                return
            while line := await _line(reader):
                await self._answer(line, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client went away, or the engine stops
        except Exception:
            log.exception(N_("a fault while answering at the control socket"))
        finally:
            self._clients.discard(task)
            writer.transport.abort() if task.cancelling() else writer.close()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            request = read_request(line)
            pieces = answer(self._desk, request)
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    await _say(writer, piece)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            await _say(writer, {"error": _("not a request: {reason}").format(reason=error), "end": True})
        except (Refused, sqlite3.Error, ValueError, TypeError, ArithmeticError) as error:
            await _say(writer, {"error": str(error), "end": True})
        else:
            await _say(writer, {"end": True})


async def _line(reader: asyncio.StreamReader) -> bytes:
    """The next request, or nothing: the client has no more, or says too much."""
    try:
        return await reader.readline()
    except ValueError:
        return b""


async def _say(writer: asyncio.StreamWriter, piece: Any) -> None:
    writer.write(_encode(piece) + b"\n")
    await writer.drain()


@contextlib.contextmanager
def short(path: Path) -> Iterator[str]:
    """A name of a socket's path that fits into an address (unix(7): 107 bytes); raises OSError where there is none."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield str(path)
        return
    if not Path("/proc/self/fd").is_dir():
        raise OSError(_("the path {path} is too long for a socket").format(path=path))
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
