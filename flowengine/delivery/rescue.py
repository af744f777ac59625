"""Opening a file that may be damaged: it is set aside, what can be read of it goes into a new one, and the start goes
on, loudly."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import structlog

from flowengine.delivery import tables
from flowengine.i18n import N_

log: Any = structlog.get_logger("flowengine.store")
_TABLES = ("outbox", "dead", "suspects")
_NO_KEY = 1 << 62
_KEYS = {"outbox": "seq", "dead": "number", "suspects": "rowid"}


def opened(path: Path) -> sqlite3.Connection:
    """The file, whole and of this version. Raises StartError for a newer version, sqlite3.Error and OSError where even
    a new file cannot be made."""
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
    _lengthen(aside)
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
    """Every row that can be read: from the front to the first damage, from the back to the last, and between them
    wherever a row is found again."""
    key = _KEYS[table]
    select = f"SELECT {key}, * FROM {table} NOT INDEXED WHERE {key} >= ? AND {key} < ? ORDER BY {key}"
    at, end, step = 0, _NO_KEY, 1
    passes = ["DESC", "ASC"]
    way = "ASC"
    with closing(sqlite3.connect(f"{aside.absolute().as_uri()}?mode=ro", uri=True)) as source:
        while at < end:
            try:
                for number, *row in source.execute(f"{select} {way}", (at, end)):
                    yield tuple(row)
                    if way == "ASC":
                        at, step = number + 1, 1
                    else:
                        end = number
                return
            except sqlite3.Error:
                if passes:
                    way = passes.pop(0)
                else:
                    at, step = at + step, step * 2


def _lengthen(aside: Path) -> None:
    """SQLite reads nothing of a file that is shorter than its header says (https://sqlite.org/fileformat2.html, 1.3.7):
    what was cut off comes back as empty pages, which are damaged as others are."""
    with aside.open("r+b") as file:
        header = file.read(32)
        size = int.from_bytes(header[28:32], "big") * tables.PAGE
        if header.startswith(b"SQLite format 3\0") and file.seek(0, os.SEEK_END) < size:
            file.truncate(size)
