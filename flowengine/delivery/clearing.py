"""Rows that leave the outbox otherwise than by delivery: dropped or moved to another action by a person, dead by age.

They leave in batches, each one transaction, in the order of their numbers. `batch` says which come next; then one of
`drop`, `move`, `bury`. While an engine has the rows' lanes at work, only those that are on the disk alone may leave:
`at_rest` says which these are, and `gone` tells the lanes afterwards.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from flowengine.delivery.desk import Number
from flowengine.delivery.keeping import let_go
from flowengine.delivery.lane import Lane
from flowengine.delivery.lanes import Lanes
from flowengine.delivery.outbox import COLUMNS, Row, clean, delete, insert
from flowengine.i18n import _

RETENTION = 30 * 86400.0
"""Seconds that a row may wait; well above `give_up_after`, which runs from a row's own first attempt."""
_ROWS = 500


class Meant(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """Which rows are meant: those of an action, perhaps of one lane, up to a number, that arrived before a time."""

    action: str
    lane: str | None = None
    upto: Number | None = None
    before: float | None = None


class Left(msgspec.Struct):
    """A row that leaves."""

    seq: int
    lane: str


class LaneOnDisk(msgspec.Struct):
    """What waits in one lane of one action. oldest: seconds since the epoch. attempts, error: of the first row."""

    action: str
    lane: str
    rows: int
    bytes: int
    oldest: float
    last_seq: int
    attempts: int
    error: str | None


def listing(database: sqlite3.Connection, action: str | None = None, lane: str | None = None) -> list[LaneOnDisk]:
    """What waits, lane by lane, the lane that waits longest first."""
    query = """
        SELECT action, lane, n, size, since, last, attempts, error FROM (
            SELECT COUNT(*) AS n, MIN(seq) AS head, MAX(seq) AS last, MIN(arrived) AS since,
                   SUM(LENGTH(payload) + COALESCE(LENGTH(body), 0) + LENGTH(meta)) AS size
            FROM outbox WHERE (?1 IS NULL OR action = ?1) AND (?2 IS NULL OR lane = ?2) GROUP BY action, lane
        ) JOIN outbox ON seq = head ORDER BY action, head"""
    return [LaneOnDisk(*row) for row in database.execute(query, (action, lane))]


def batch(
    database: sqlite3.Connection, meant: Meant, after: int, resting: Mapping[str, int] | None
) -> tuple[list[Left], int]:
    """The next rows behind number `after`, and the number to go on behind, 0 at the end. resting: for each lane that an
    engine has, the number behind which its rows are on the disk alone; None where no engine has any."""
    query = """SELECT seq, lane FROM outbox NOT INDEXED WHERE seq > ?1 AND action = ?2 AND (?3 IS NULL OR lane = ?3)
               AND (?4 IS NULL OR seq <= ?4) AND (?5 IS NULL OR arrived < ?5) ORDER BY seq LIMIT ?6"""
    values = (after, meant.action, meant.lane, meant.upto, meant.before, _ROWS)
    found = [Left(*row) for row in database.execute(query, values)]
    last = found[-1].seq if len(found) == _ROWS else 0
    if resting is None:
        return found, last
    return [row for row in found if row.lane in resting and row.seq > resting[row.lane]], last


def drop(database: sqlite3.Connection, rows: Sequence[Left]) -> None:
    """They are wanted no more."""
    delete(database, [row.seq for row in rows])


def move(database: sqlite3.Connection, rows: Sequence[Left], to: str, first: int) -> list[bool]:
    """They are another action's from now on, behind what it has: with numbers from `first`. For each whether it moved;
    else a row of its id was there, and it is gone as a duplicate. The body goes: the new owner makes its own."""
    moved = []
    for number, left in enumerate(rows, first):
        values = database.execute(f"SELECT {COLUMNS} FROM outbox WHERE seq = ?", (left.seq,)).fetchone()
        if values is None:
            moved.append(False)
            continue
        delete(database, [left.seq])
        row = Row(*values)
        intact = row.checksum == row.sum()
        row.seq, row.action, row.body, row.body_kind = number, to, None, None
        row.first, row.attempts, row.error = None, 0, None
        row.checksum = row.sum() if intact else ~row.sum()  # a damaged row stays one
        moved.append(not insert(database, [row]))
    return moved


def bury(database: sqlite3.Connection, rows: Sequence[Left], reason: str) -> None:
    """They become dead letters."""
    query = """INSERT INTO dead (flow, node, device, id, part, reason, status, attempts, arrived, died, payload, kind, meta, more)
               SELECT SUBSTR(action, 1, INSTR(action, '/') - 1), action,
                      CASE WHEN JSON_VALID(CAST(meta AS TEXT))
                           THEN CAST(COALESCE(JSON_EXTRACT(CAST(meta AS TEXT), '$.device'), lane) AS TEXT) ELSE lane END,
                      id, part, ?, NULL, attempts, arrived, ?, payload, kind, meta, NULL
               FROM outbox WHERE seq = ?"""
    now = time.time()
    database.executemany(query, [(reason, now, row.seq) for row in rows])
    drop(database, rows)


def too_old(days: float) -> str:
    """Why a row is dead by age."""
    return _("it waited in the outbox for more than {days:g} days").format(days=days)


def highest(database: sqlite3.Connection) -> int:
    """The highest number in the outbox."""
    return int(database.execute("SELECT COALESCE(MAX(seq), 0) FROM outbox").fetchone()[0])


def actions(database: sqlite3.Connection, before: float | None = None) -> list[str]:
    """Whose rows wait; with `before`, only of rows that arrived before."""
    query = "SELECT DISTINCT action FROM outbox WHERE ?1 IS NULL OR arrived < ?1"
    return [action for (action,) in database.execute(query, (before,))]


# The lanes of an engine at work


def at_rest(lanes: Lanes, only: str | None = None) -> dict[str, int]:
    """Let the memory of the lanes go, but for what is in flight, and for lanes of which something is not on the disk yet; for
    each, the number behind which its rows are on the disk alone. To be called while the lanes are paused."""
    resting: dict[str, int] = {}
    for name, lane in _named(lanes).items():
        if not lane.on_disk or (only is not None and name != only):
            continue
        flying = lane.parcels[0] if lane.flying and lane.parcels else None
        resident = [parcel for parcel in lane.parcels if parcel is not flying]
        if all(parcel.stored for parcel in resident):  # else those that stay would stand before those that go
            let_go(lane, resident)
        resting[name] = max([lane.served, *(parcel.seq for parcel in lane.parcels)])
    return resting


def gone(lanes: Lanes, counts: Mapping[str, int]) -> None:
    """So many rows have left each lane."""
    named = _named(lanes)
    for name, rows in counts.items():
        lane = named[name]
        lane.rows -= rows
        if not lane.parcels:  # its head may be among them; the new one's attempts stand on its row
            lane.attempts, lane.first, lane.error = 0, 0.0, ""
        lanes.rouse(lane)


def expect(lanes: Lanes, counts: Mapping[str, int], first: int) -> None:
    """Rows with numbers from `first` come to each lane: what arrives from now on stands behind them."""
    named = _named(lanes)
    for name, rows in counts.items():
        lane = named.get(name)
        if lane is None:
            lane = Lane(lanes, name, True)
            lanes.adopt(lane)
        if not lane.on_disk:
            lane.on_disk = True
            lane.served = first - 1
        lane.coming += rows


def arrived(lanes: Lanes, expected: Mapping[str, int], moved: Mapping[str, Any]) -> None:
    """What was expected is on the disk; but for duplicates."""
    named = _named(lanes)
    for name, rows in expected.items():
        lane = named[name]
        lane.coming -= rows
        lane.rows += moved.get(name, 0)
        lanes.rouse(lane)


def _named(lanes: Lanes) -> dict[str, Lane]:
    """The lanes that may have rows, by the names that stand there."""
    return {clean(str(key)): lane for key, lane in lanes.lanes.items() if lane.storable}
