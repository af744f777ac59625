"""Opening a file that may be damaged: it is set aside, what can be read of it goes into a new one, and the start goes
on, loudly."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog

from flowengine.delivery import tables
from flowengine.i18n import N_

log: Any = structlog.get_logger("flowengine.store")
_TABLES = ("outbox", "dead", "suspects")
_KEYS = {"outbox": "seq", "dead": "number", "suspects": "rowid"}


def opened(path: Path) -> sqlite3.Connection:
    """The file, whole and of this version. Raises StartError for a newer version, sqlite3.Error and OSError where even a new file
    cannot be made."""
    try:
        database = tables.connect(path)
        if not _whole(database):
            raise sqlite3.DatabaseError("the file is damaged")
        tables.prepare(database, path)
        return database
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        return _renewed(path, str(error))


def _whole(database: sqlite3.Connection) -> bool:
    """SQLite's own check. After a clean end it is left out: on a large file it takes as long as reading it does."""
    if database.execute("PRAGMA user_version").fetchone()[0] != tables.VERSION:
        return bool(database.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
    running = database.execute("SELECT value FROM facts WHERE name = 'running'").fetchone()
    if running is not None and running[0] == "no":
        return True
    return bool(database.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")


def _renewed(path: Path, reason: str) -> sqlite3.Connection:
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    for ending in ("", "-wal", "-shm"):
        part = path.with_name(path.name + ending)
        if part.exists():
            part.rename(aside.with_name(aside.name + ending))
    aside.chmod(0o600)
    path.touch(0o600)
    database = tables.connect(path)
    tables.prepare(database, path)
    rescued = {table: _copy(aside, database, table) for table in _TABLES}
    log.error(
        N_("the store was damaged: it was set aside, and what could be read of it was rescued"),
        file=str(path),
        set_aside_as=str(aside),
        reason=reason,
        rescued=rescued,
    )
    return database


def _copy(aside: Path, into: sqlite3.Connection, table: str) -> int:
    """Copy the rows that can be read; how many."""
    count = 0
    into.execute("BEGIN IMMEDIATE")
    for row in _rows(aside, table):
        marks = ", ".join("?" * len(row))
        try:
            into.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)
            count += 1
        except sqlite3.Error:
            continue  # a row whose values are damaged
    into.execute("COMMIT")
    return count


def _rows(aside: Path, table: str) -> Iterator[tuple[Any, ...]]:
    """Every row that can still be read, from the front, and behind the damage from the back."""
    key = _KEYS[table]
    seen: set[Any] = set()
    for order in ("ASC", "DESC"):
        try:
            source = sqlite3.connect(f"{aside.absolute().as_uri()}?mode=ro", uri=True)
            cursor = source.execute(f"SELECT {key}, * FROM {table} NOT INDEXED ORDER BY {key} {order}")
            for number, *row in cursor:
                if number in seen:
                    break
                seen.add(number)
                yield tuple(row)
        except sqlite3.Error:
            continue
