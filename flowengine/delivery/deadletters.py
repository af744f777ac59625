"""Dead letters: messages that were given up, kept in the state folder with the reason, so that a person can see what was lost and why.

One SQLite file, one writer thread. Whatever is queued is written in one transaction, and only then is each letter's `kept` called:
a sender hears yes for a dead message when the letter is on the disk. If it cannot be written, it is tried again, loudly, and
nobody hears yes meanwhile.
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
Kept = Callable[[], None]


class DeadLetters:
    """The dead letters of one state folder. `open` first; `put` from the event loop; `close` writes what is queued."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "dead-letters.db"
        self.waiting = 0
        self._queue: queue.SimpleQueue[tuple[tuple[Any, ...], Kept] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = threading.Event()

    def open(self) -> None:
        """Make or open the file (readable by its owner only); raises OSError or sqlite3.Error."""
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        database = self._connect()
        database.execute(_TABLE)
        database.close()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._write, name="dead-letters", daemon=True)
        self._thread.start()

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        return database

    def put(self, flow: str, msg: Message, failure: Failure, kept: Kept) -> None:
        """Keep one letter; `kept` is called in the event loop when it is on the disk."""
        payload, is_json = _bytes(msg.payload)
        status = None if failure.status is None else str(failure.status)
        row = (
            msg.id, msg.part, flow, failure.node, failure.reason, status, failure.attempts,
            msg.time, time.time(), _bytes(dict(msg.meta))[0].decode(), payload, is_json,
        )  # fmt: skip
        self.waiting += 1
        self._queue.put((row, kept))

    async def close(self) -> None:
        """Write what is queued and close the file."""
        if self._thread is not None:
            self._stop.set()
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)

    def _write(self) -> None:
        database = self._connect()
        batch: list[tuple[tuple[Any, ...], Kept]] = []
        while True:
            entry = self._queue.get()
            while entry is not None:
                batch.append(entry)
                entry = self._queue.get() if not self._queue.empty() else None
            if batch and self._commit(database, batch):
                self._tell([kept for _row, kept in batch])
                batch = []
            if self._stop.is_set() and self._queue.empty():
                break
            if batch:
                self._stop.wait(_AGAIN)
                self._queue.put(None)
        database.close()

    def _commit(self, database: sqlite3.Connection, batch: list[tuple[tuple[Any, ...], Kept]]) -> bool:
        try:
            database.execute("BEGIN IMMEDIATE")
            database.executemany(_INSERT, [row for row, _kept in batch])
            database.execute("COMMIT")
        except sqlite3.Error as error:
            if database.in_transaction:
                database.execute("ROLLBACK")
            log.error(
                "dead letters cannot be written; their senders are not told yes", file=str(self.path), reason=str(error)
            )
            return False
        return True

    def _tell(self, kept: list[Kept]) -> None:
        def tell() -> None:
            self.waiting -= len(kept)
            for callback in kept:
                callback()

        assert self._loop is not None
        self._loop.call_soon_threadsafe(tell)


def _bytes(value: Any) -> tuple[bytes, bool]:
    """A payload as it is kept: bytes as they came, anything else as JSON."""
    if isinstance(value, bytes):
        return value, False
    try:
        return msgspec.json.encode(value), True
    except (TypeError, ValueError):
        return repr(value).encode(), False
