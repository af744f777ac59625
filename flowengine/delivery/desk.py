"""What a person may see and change among the dead letters: queries on the table `dead`.

All functions take the connection: the engine (through its store) and a command on a stopped engine's file do the same.
"""

from __future__ import annotations

import sqlite3
import time
from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import msgspec

from flowengine.delivery.outbox import JSON, unpacked
from flowengine.message import Message, Outcome, Result

WANTED, BEGUN = 1, 2
"""Marks of a letter that is to be replayed, and of one that is."""
_LISTED = "number, flow, node, device, id, part, reason, status, attempts, arrived, died, LENGTH(payload), replay"
_DROPPED_AT_ONCE = 500


Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""What SQLite takes as a row's number."""


class Chosen(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """Which letters are meant: those for which all that is given holds.

    flow, node, device: exactly; a node also by its name alone. reason: a part of it, whatever the case. since, until:
    when it died, in seconds since the epoch. upto: the highest number, so that none that comes meanwhile is meant.
    """

    numbers: list[Number] | None = None
    flow: str | None = None
    node: str | None = None
    device: str | None = None
    reason: str | None = None
    since: float | None = None
    until: float | None = None
    upto: Number | None = None

    def where(self) -> tuple[str, list[Any]]:
        """The condition in SQL, and its values."""
        terms: list[str] = ["TRUE"]
        values: list[Any] = []
        for term, value in (
            ("flow = ?", self.flow),
            ("device = ?", self.device),
            ("INSTR(LOWER(reason), LOWER(?)) > 0", self.reason),
            ("died >= ?", self.since),
            ("died <= ?", self.until),
            ("number <= ?", self.upto),
        ):
            if value is not None:
                terms.append(term)
                values.append(value)
        if self.node is not None:
            terms.append("(node = ? OR SUBSTR(node, -LENGTH(?)) = ?)")
            values += [self.node, f"/{self.node}", f"/{self.node}"]
        if self.numbers is not None:
            terms.append("number IN (SELECT value FROM JSON_EACH(?))")
            values.append(msgspec.json.encode(self.numbers).decode())
        return " AND ".join(terms), values


class Letter(msgspec.Struct):
    """A dead letter without its payload. bytes: the payload's. Times are seconds since the epoch."""

    number: int
    flow: str
    node: str
    device: str
    id: str
    part: str
    reason: str
    status: str | None
    attempts: int
    arrived: float
    died: float
    bytes: int
    replay: int


class WholeLetter(Letter, kw_only=True):
    """A dead letter with its payload: JSON as it is, bytes as text where they are UTF-8, else in base64."""

    payload: Any
    payload_as: Literal["json", "text", "base64"]
    meta: Any


class Return(msgspec.Struct):
    """A dead letter as it enters its flow again."""

    number: int
    flow: str
    node: str
    id: str
    part: str
    arrived: float
    payload: bytes
    kind: int
    meta: bytes
    more: bytes | None

    def message(self, outcome: Outcome) -> Message:
        """The message again, of the same id and part: so with the same Idempotency-Key."""
        outcome.arrived = time.monotonic() - max(0.0, time.time() - self.arrived)
        meta, more = _metadata(self.meta), msgspec.json.decode(self.more) if self.more else {}
        return Message(
            unpacked(self.payload, self.kind),
            meta if isinstance(meta, dict) else {},
            self.id,
            self.arrived,
            outcome,
            self.part,
            result=msgspec.convert(more["result"], Result) if more.get("result") else None,
            acted=bool(more.get("acted")),
        )


class Count(msgspec.Struct):
    """How many letters are meant, their payloads' bytes, and the highest number."""

    letters: int
    bytes: int
    highest: int


def count(database: sqlite3.Connection, chosen: Chosen) -> Count:
    """How much is chosen."""
    where, values = chosen.where()
    query = f"SELECT COUNT(*), COALESCE(SUM(LENGTH(payload)), 0), COALESCE(MAX(number), 0) FROM dead WHERE {where}"
    return Count(*database.execute(query, values).fetchone())


def letters(database: sqlite3.Connection, chosen: Chosen, limit: int, before: int | None = None) -> list[Letter]:
    """The newest `limit` letters, or those below number `before`, the newest first."""
    where, values = chosen.where()
    if before is not None:
        where, values = f"{where} AND number < ?", [*values, before]
    query = f"SELECT {_LISTED} FROM dead WHERE {where} ORDER BY number DESC LIMIT ?"
    return [Letter(*row) for row in database.execute(query, (*values, limit))]


def whole(database: sqlite3.Connection, chosen: Chosen, after: int, limit: int, room: int) -> list[WholeLetter]:
    """The next letters behind number `after`, in order: at most `limit`, and not much more than `room` bytes."""
    found: list[WholeLetter] = []
    for *listed, payload, kind, meta in _next(database, f"{_LISTED}, payload, kind, meta", chosen, after, limit):
        shown, shown_as = _shown(payload, kind)
        found.append(WholeLetter(*listed, payload=shown, payload_as=shown_as, meta=_metadata(meta)))
        room -= len(payload)
        if room < 0:
            break
    return found


def returns(database: sqlite3.Connection, chosen: Chosen, after: int, limit: int, room: int) -> list[Return]:
    """The next letters behind number `after`, as they enter their flows."""
    found: list[Return] = []
    for row in _next(database, ", ".join(Return.__struct_fields__), chosen, after, limit):
        found.append(Return(*row))
        room -= len(found[-1].payload)
        if room < 0:
            break
    return found


def mark(database: sqlite3.Connection, numbers: Sequence[int], value: int) -> set[int]:
    """Note on letters whether they are to be replayed; the numbers of those that were there."""
    wanted = msgspec.json.encode(list(numbers)).decode()
    query = "UPDATE dead SET replay = ? WHERE number IN (SELECT value FROM JSON_EACH(?)) RETURNING number"
    return {number for (number,) in database.execute(query, (value, wanted)).fetchall()}


def mark_chosen(database: sqlite3.Connection, chosen: Chosen) -> int:
    """Have the next start of the engine replay these; how many."""
    where, values = chosen.where()
    return database.execute(f"UPDATE dead SET replay = {WANTED} WHERE {where}", values).rowcount


def marked(database: sqlite3.Connection, value: int) -> list[int]:
    """The numbers of the letters with this mark, in order."""
    rows = database.execute("SELECT number FROM dead WHERE replay = ? ORDER BY number", (value,))
    return [number for (number,) in rows]


def drop(database: sqlite3.Connection, chosen: Chosen) -> int:
    """Delete some hundred of the chosen letters; how many. Whoever drops all of them asks until there is none."""
    where, values = chosen.where()
    query = f"DELETE FROM dead WHERE number IN (SELECT number FROM dead WHERE {where} ORDER BY number LIMIT ?)"
    return database.execute(query, (*values, _DROPPED_AT_ONCE)).rowcount


def remove(database: sqlite3.Connection, numbers: Iterable[int]) -> None:
    """Letters that were replayed and have ended."""
    database.executemany("DELETE FROM dead WHERE number = ?", [(number,) for number in numbers])


def _next(
    database: sqlite3.Connection, columns: str, chosen: Chosen, after: int, limit: int
) -> Iterable[tuple[Any, ...]]:
    where, values = chosen.where()
    query = f"SELECT {columns} FROM dead WHERE {where} AND number > ? ORDER BY number LIMIT ?"
    return database.execute(query, (*values, after, limit))


def _metadata(kept: bytes) -> Any:
    """Metadata as it was, or as a text where a node had put in what is no JSON."""
    try:
        return msgspec.json.decode(kept)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return kept.decode("utf-8", "backslashreplace")


def _shown(payload: bytes, kind: int) -> tuple[Any, Literal["json", "text", "base64"]]:
    if kind == JSON:
        return msgspec.Raw(payload), "json"
    try:
        return payload.decode(), "text"
    except UnicodeDecodeError:
        return b64encode(payload).decode(), "base64"
