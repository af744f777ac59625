"""What a state folder's store holds, read from the file, whether the engine runs or not."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.backend import Record


class Letter(NamedTuple):
    """A dead letter. record: None where its payload names none."""

    record: Record | None
    node: str
    reason: str
    attempts: int


def letters(state: Path) -> list[Letter]:
    """The dead letters of a state folder."""
    found = _query(state, "SELECT payload, node, reason, attempts FROM dead ORDER BY number")
    return [Letter(_record(payload), node, reason, attempts) for payload, node, reason, attempts in found]


def rows(state: Path) -> list[Record]:
    """The records in the outbox of a state folder, in the order of their rows."""
    return [
        _record(payload) or Record("?", 0) for (payload,) in _query(state, "SELECT payload FROM outbox ORDER BY seq")
    ]


def stored(state: Path) -> int:
    """How many rows the outbox of a state folder has."""
    found = _query(state, "SELECT COUNT(*) FROM outbox")
    return int(found[0][0]) if found else 0


def _record(payload: bytes) -> Record | None:
    try:
        content = json.loads(payload)
        return Record(content["device"], content["number"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _query(state: Path, sql: str) -> list[Any]:
    path = state / "flowengine.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as database:
        try:
            return database.execute(sql).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):  # killed before it had made any
                return []
            raise
