"""What the store's file holds, how it is opened, and how older versions of it are brought forward."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

from flowengine.errors import StartError
from flowengine.i18n import _

VERSION = 1
PAGE = 4096
_WAL_PAGES = 1000

SCHEMA = """
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY,            -- the order of arrival; never used twice
    action TEXT NOT NULL,               -- whose it is: flow/chain/name
    lane TEXT NOT NULL,
    id TEXT NOT NULL, part TEXT NOT NULL,
    arrived REAL NOT NULL,              -- seconds since the epoch, as all times here
    first REAL, attempts INTEGER NOT NULL, error TEXT,
    payload BLOB NOT NULL, kind INTEGER NOT NULL,
    body BLOB, body_kind INTEGER,       -- what will be sent, where it is not the payload
    meta BLOB NOT NULL, more BLOB,
    checksum INTEGER NOT NULL,
    UNIQUE (action, id, part)
) STRICT;
CREATE INDEX outbox_lane ON outbox (action, lane, seq);
CREATE TABLE dead (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    flow TEXT NOT NULL, node TEXT NOT NULL, device TEXT NOT NULL,
    id TEXT NOT NULL, part TEXT NOT NULL,
    reason TEXT NOT NULL, status TEXT, attempts INTEGER NOT NULL,
    arrived REAL NOT NULL, died REAL NOT NULL,
    payload BLOB NOT NULL, kind INTEGER NOT NULL,
    meta BLOB NOT NULL, more BLOB,
    replay INTEGER NOT NULL DEFAULT 0   -- 1: a person wants it sent again; 2: that was begun
) STRICT;
CREATE INDEX dead_died ON dead (died);
CREATE TABLE suspects (mark TEXT PRIMARY KEY, ends INTEGER NOT NULL) STRICT;
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
"""

MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {}
"""From a version to the next; each runs in the one transaction of the whole migration."""


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection with the settings that the contract asks for: WAL, and a sync at every commit."""
    uri = f"{path.absolute().as_uri()}?mode=ro" if read_only else path.absolute().as_uri()
    database = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5.0)
    if not read_only:
        database.execute(f"PRAGMA page_size={PAGE}")
        database.execute("PRAGMA auto_vacuum=INCREMENTAL")
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES}")
        database.execute(f"PRAGMA journal_size_limit={_WAL_PAGES * PAGE}")
    return database


def prepare(database: sqlite3.Connection, path: Path) -> None:
    """Make the tables, or bring an older file forward, keeping a copy; raises StartError for a newer one."""
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        text = _(
            "{file} was made by a newer flowengine (its format is {theirs}, this one knows {ours}): use that, "
            "or another --state DIR"
        )
        raise StartError(text.format(file=path, theirs=version, ours=VERSION))
    if version == VERSION:
        return
    if not version:
        database.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version={VERSION}; COMMIT;")
        return
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy2(path, path.with_name(f"{path.name}.version-{version}"))
    database.execute("BEGIN IMMEDIATE")
    for step in range(version, VERSION):
        MIGRATIONS[step](database)
    database.execute(f"PRAGMA user_version={VERSION}")
    database.execute("COMMIT")


def begin(database: sqlite3.Connection) -> bool:
    """Note that a run begins; whether the one before ended as it should."""
    before = database.execute("SELECT value FROM facts WHERE name = 'running'").fetchone()
    database.execute("INSERT OR REPLACE INTO facts VALUES ('running', 'yes')")
    return before is None or before[0] == "no"


def end(database: sqlite3.Connection) -> None:
    """Note that the run ends as it should, and give free pages back to the disk."""
    database.execute("INSERT OR REPLACE INTO facts VALUES ('running', 'no')")
    shrink(database)
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def shrink(database: sqlite3.Connection, pages: int = 0) -> None:
    """Give free pages back to the disk: at most `pages`, or all."""
    database.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
