"""The file behind the outbox and the dead letters: SQLite with one writer thread, group commit, and no silent failure.

A change is a function of the connection; whatever is queued is done in one transaction, and each change's `done` is
called in the event loop after the commit, never before. Reads have a thread and a connection of their own (WAL: they
disturb no writer).

What it does when the disk does not do its part:
- full (the file's bound, the disk's, or ENOSPC): changes that grow the file wait, those that shrink it go on; it is
  said, tried again every second, and nobody hears yes meanwhile;
- a failed sync, or a damaged file while running: `failed` is called once; nothing more is written and nobody hears yes.
  What the kernel did with the pages is not known any more, so the only safe way on is a new start;
- a damaged file at the start: see `rescue`.
"""

from __future__ import annotations

import asyncio
import os
import queue
import shutil
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from flowengine.delivery import rescue, tables
from flowengine.errors import StartError
from flowengine.i18n import N_, _

Work = Callable[[sqlite3.Connection], Any]
Done = Callable[[Any], None]

DEFAULT_BOUND = 8 << 30
"""Bytes that the file and its WAL may take."""
FREE = 32 << 20
"""Bytes of the disk that are left to others."""
_AGAIN = 1.0
_BATCH = 2000
_GATHER = 0.002
"""Seconds for which a change waits for others: a sync of the disk costs as much for one as for a hundred, and what is delivered
meanwhile need not be written at all."""
_FREE_PAGES = 500
log: Any = structlog.get_logger("flowengine.store")


@dataclass(eq=False)
class _Change:
    work: Work
    done: Done | None
    grows: bool


class Store:
    """One file of a state folder. `open`, then `change` and `read` from the event loop, `close` at the end.

    failed: called in the loop when the file cannot be trusted any more, with the reason.
    """

    def __init__(
        self, folder: Path, *, bound: int = DEFAULT_BOUND, failed: Callable[[str], None] | None = None
    ) -> None:
        self.path = folder / "flowengine.db"
        self.bound = bound
        self.full = ""
        """Why nothing can be stored now, or nothing."""
        self.commits = 0
        self.clean = True
        """Whether the run before ended as it should."""
        self._failed = failed
        self._dead = False
        self._queue: queue.SimpleQueue[_Change | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="store-read")
        self._reading: sqlite3.Connection | None = None

    @property
    def healthy(self) -> bool:
        """Whether what is put will be stored: it is open, and neither full nor failed."""
        return self._thread is not None and not self.full and not self._dead

    def open(self) -> None:
        """Make or open the file, readable by its owner only; of a damaged one what can be read is rescued.

        Raises StartError if it was made by a newer version or cannot be made.
        """
        self._loop = asyncio.get_running_loop()
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            database = rescue.opened(self.path)
            self.clean = tables.begin(database)
        except (OSError, sqlite3.Error) as error:
            text = _("the store {file} cannot be opened: {reason}")
            raise StartError(text.format(file=self.path, reason=error)) from None
        database.close()
        self._thread = threading.Thread(target=self._write, name="store-write", daemon=True)
        self._thread.start()

    def change(self, work: Work, done: Done | None = None, *, grows: bool = False) -> None:
        """Queue a change; `done(result of work)` is called in the loop once it is on the disk. grows: it needs room."""
        self._queue.put(_Change(work, done, grows))

    def execute(self, statement: str, *rows: tuple[Any, ...]) -> None:
        """Queue one statement, for each of `rows`, of which nobody waits for the end."""
        self.change(lambda database: database.executemany(statement, rows))

    async def read(self, work: Work) -> Any:
        """Run a query in the reading thread; raises sqlite3.Error. One that finds the file damaged ends the store."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)
        except sqlite3.DatabaseError as error:
            if not isinstance(error, sqlite3.OperationalError) and not self._dead:
                self._fail(f"{getattr(error, 'sqlite_errorname', type(error).__name__)}: {error}")
            raise

    def _read(self, work: Work) -> Any:
        if self._reading is None:
            self._reading = tables.connect(self.path, read_only=True)
        return work(self._reading)

    async def close(self) -> None:
        """Write what is queued, note the clean end, close. What finds no room is not done: its senders heard no yes."""
        if self._reading is not None:
            await asyncio.get_running_loop().run_in_executor(self._readers, self._reading.close)
        self._readers.shutdown()
        if self._thread is not None:
            self._stop.set()
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None
        await asyncio.sleep(0)

    # The writer thread

    def _write(self) -> None:
        database = tables.connect(self.path)
        waiting: list[_Change] = []
        while not self._dead:
            batch = self._take(bool(waiting))
            batch, waiting = self._fitting(waiting + batch, database)
            if batch and not self._commit(database, batch):
                waiting = batch + waiting
                if not self._dead:
                    self._stop.wait(_AGAIN)
            if self._queue.empty():
                if self._stop.is_set():
                    break
                self._tidy(database)
        if not self._dead:
            self._end(database)
        database.close()

    def _end(self, database: sqlite3.Connection) -> None:
        try:
            tables.end(database)
        except sqlite3.Error as error:  # the next start has to look through the whole file, and that is all
            log.warning(N_("the clean end could not be noted in the store"), file=str(self.path), reason=str(error))

    def _take(self, impatient: bool) -> list[_Change]:
        """What is queued, up to a bound; waits for the first, a second at most if something else waits already."""
        batch: list[_Change] = []
        try:
            entry = self._queue.get(timeout=_AGAIN if impatient else None)
            self._stop.wait(_GATHER)
            while True:
                if entry is not None:
                    batch.append(entry)
                if len(batch) >= _BATCH:
                    break
                entry = self._queue.get_nowait()
        except queue.Empty:
            pass
        return batch

    def _fitting(self, changes: list[_Change], database: sqlite3.Connection) -> tuple[list[_Change], list[_Change]]:
        """The changes for which there is room, and those that wait for it."""
        if not any(change.grows for change in changes):
            return changes, []
        reason = self._no_room(database)
        self._say(reason)
        if not reason:
            return changes, []
        return [c for c in changes if not c.grows], [c for c in changes if c.grows]

    def _no_room(self, database: sqlite3.Connection) -> str:
        pages, free = (database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
        used = (pages - free) * tables.PAGE + _size(self.path.with_name(self.path.name + "-wal"))
        if used > self.bound:
            return _("it holds {mb} MB, its bound").format(mb=used >> 20)
        left = shutil.disk_usage(self.path.parent).free
        if left < FREE:
            return _("the disk has only {mb} MB left").format(mb=left >> 20)
        return ""

    def _tidy(self, database: sqlite3.Connection) -> None:
        """While nothing waits, give free pages back to the disk, a few at a time."""
        try:
            while self._queue.empty() and database.execute("PRAGMA freelist_count").fetchone()[0] > _FREE_PAGES:
                tables.shrink(database, _FREE_PAGES)
        except sqlite3.Error:
            return  # what matters is said when something is written

    def _say(self, reason: str) -> None:
        if reason and not self.full:
            log.error(N_("the store is full: what comes in is not acknowledged until there is room"), reason=reason)
        elif self.full and not reason:
            log.info(N_("the store has room again"))
        self.full = reason

    def _commit(self, database: sqlite3.Connection, batch: list[_Change]) -> bool:
        results = []
        try:
            database.execute("BEGIN IMMEDIATE")
            results = [change.work(database) for change in batch]
            database.execute("COMMIT")
        except Exception as error:
            self._rolled_back(database, error)
            return False
        self.commits += 1
        told = [(change.done, result) for change, result in zip(batch, results, strict=True) if change.done]
        if told and self._loop is not None:
            self._loop.call_soon_threadsafe(_tell, told)
        return True

    def _rolled_back(self, database: sqlite3.Connection, error: Exception) -> None:
        try:
            if database.in_transaction:
                database.execute("ROLLBACK")
        except sqlite3.Error as second:
            error = second
        code = getattr(error, "sqlite_errorname", "")
        if code.startswith("SQLITE_FULL"):
            self._say(_("the disk is full"))
        elif code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            log.warning(N_("the store is locked by another program; trying again"), file=str(self.path))
        else:
            self._fail(f"{code or type(error).__name__}: {error}")

    def _fail(self, reason: str) -> None:
        self._dead = True
        log.error(N_("the store failed: nothing more is acknowledged"), file=str(self.path), reason=reason)
        if self._failed is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._failed, reason)


def _tell(told: list[tuple[Done, Any]]) -> None:
    for done, result in told:
        try:
            done(result)
        except Exception:
            log.exception(N_("a fault in what follows a commit"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
