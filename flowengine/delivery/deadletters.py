"""Dead letters: messages that were given up, kept in the state folder with the reason, so that a person can see what was lost.

One SQLite file, one writer thread. Whatever is queued is written in one transaction, and only then is each letter's `kept`
called: a sender hears yes for a dead message when the letter is on the disk. If it cannot be written, it is tried again,
loudly, and nobody hears yes meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog

from flowengine.errors import FAULTS
from flowengine.i18n import N_
from flowengine.message import Failure, Message

log = structlog.get_logger(__name__)
_TABLE = """
CREATE TABLE IF NOT EXISTS dead (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL, part TEXT NOT NULL,
    flow TEXT NOT NULL, node TEXT NOT NULL, reason TEXT NOT NULL, status TEXT, attempts INTEGER NOT NULL,
    arrived REAL NOT NULL, died REAL NOT NULL,
    meta TEXT NOT NULL, payload BLOB NOT NULL, json INTEGER NOT NULL
) STRICT
"""
_INSERT = "INSERT INTO dead VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_AGAIN = 1.0
_CLOSE_WITHIN = 3.0
Kept = Callable[[], None]


class DeadLetters:
    """The dead letters of one state folder. `open` first; `put` from the event loop; `close` writes what is queued."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "dead-letters.db"
        self.waiting = 0
        self.commits = 0
        self._queue: queue.SimpleQueue[tuple[tuple[Any, ...], Kept] | None] = queue.SimpleQueue()
        self._database: sqlite3.Connection | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = threading.Event()

    def open(self) -> None:
        """Make or open the file (readable by its owner only); raises OSError or sqlite3.Error."""
        self._connect().close()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._write, name="dead-letters", daemon=True)
        self._thread.start()

    def _connect(self) -> sqlite3.Connection:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        database = sqlite3.connect(self.path, timeout=1.0, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.execute(_TABLE)
        except BaseException:
            database.close()
            raise
        return database

    def put(self, flow: str, msg: Message, failure: Failure, kept: Kept) -> None:
        """Keep one letter; `kept` is called in the event loop when it is on the disk. Never raises."""
        payload, is_json = _bytes(msg.payload)
        status = None if failure.status is None else _text(failure.status)
        row = (
            _text(msg.id), msg.part, flow, failure.node, _text(failure.reason), status, failure.attempts,
            msg.time, time.time(), _bytes(msg.meta)[0].decode("utf-8", "backslashreplace"), payload, is_json,
        )  # fmt: skip
        self.waiting += 1
        self._queue.put((row, kept))

    async def close(self) -> None:
        """Write what is queued and close the file; what cannot be written by then is told nobody."""
        if self._thread is not None:
            self._stop.set()
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join, _CLOSE_WITHIN)

    def _write(self) -> None:
        batch: list[tuple[tuple[Any, ...], Kept]] = []
        failed = False
        while not (self._stop.is_set() and self._queue.empty()):
            batch += self._queued(wait=not batch)
            if not batch:
                continue
            failed = not self._commit(batch, failed)
            if failed:
                self._stop.wait(_AGAIN)
            else:
                self._tell([kept for _row, kept in batch])
                batch = []
        if self._database is not None:
            self._database.close()

    def _queued(self, wait: bool) -> list[tuple[tuple[Any, ...], Kept]]:
        """All that is queued, at least one if told to wait; None wakes the thread to look whether it shall stop."""
        found = []
        try:
            while (letter := self._queue.get(wait)) is not None:
                found.append(letter)
                wait = False
        except queue.Empty:
            pass
        return found

    def _commit(self, batch: list[tuple[tuple[Any, ...], Kept]], failed: bool) -> bool:
        """Write a batch in one transaction; False, loudly, if that is not possible now. failed: whether the last one was not."""
        try:
            if self._database is None:
                self._database = self._connect()
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(_INSERT, [row for row, _kept in batch])
            self._database.execute("COMMIT")
        except Exception as error:
            if self._database is not None:
                self._database.close()  # rolls back; a new connection finds a file that was put back or made writable
                self._database = None
            text = N_("dead letters cannot be written; their senders are not told yes")
            log.error(text, file=str(self.path), waiting=len(batch), reason=str(error))
            return False
        self.commits += 1
        if failed:
            log.info(N_("dead letters are written again"), file=str(self.path), letters=len(batch))
        return True

    def _tell(self, kept: list[Kept]) -> None:
        def tell() -> None:
            self.waiting -= len(kept)
            for callback in kept:
                callback()

        assert self._loop is not None
        self._loop.call_soon_threadsafe(tell)


def _bytes(value: Any) -> tuple[bytes, bool]:
    """A payload as it is kept: bytes as they came, anything else as JSON, and what JSON cannot hold as Python shows it."""
    if isinstance(value, bytes):
        return value, False
    try:
        return msgspec.json.encode(value), True
    except (TypeError, ValueError, OverflowError, RecursionError):
        return _text(value, repr).encode(), False


def _text(value: Any, show: Callable[[Any], str] = str) -> str:
    """A text that SQLite takes: half a surrogate pair, which JSON may hold, is written out."""
    try:
        return show(value).encode("utf-8", "backslashreplace").decode()
    except FAULTS:
        return f"<{type(value).__name__}>"
