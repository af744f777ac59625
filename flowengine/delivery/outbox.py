"""The outbox: messages on disk that wait for a confirming action. Rows, not messages: what a row means is in `lanes`.

A row holds the payload, the body as it will be sent where that is another, the metadata, and where the message goes on;
URL and headers come from the flow as it is when the row is sent. Its owner is the action's durable identity. It carries
a checksum: a row that was damaged on the disk is never sent, it goes to the dead letters.
"""

from __future__ import annotations

import asyncio
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from flowengine.delivery.lane import Parcel
from flowengine.delivery.store import Store
from flowengine.delivery.ticker import Ticker
from flowengine.errors import FAULTS

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

BYTES, JSON, SHOWN = 0, 1, 2
"""Kinds of a payload: as it came, as JSON, or, where it is not what it was, as a person may read it."""
_LEVELS = 3


class Row(msgspec.Struct, gc=False):
    """One message of the outbox. first: when it was first attempted, in seconds since the epoch."""

    seq: int
    action: str
    lane: str
    id: str
    part: str
    arrived: float
    first: float | None
    attempts: int
    error: str | None
    payload: bytes
    kind: int
    body: bytes | None
    body_kind: int | None
    meta: bytes
    more: bytes | None
    checksum: int = 0

    def sum(self) -> int:
        """What the checksum must be. It covers what never changes while the row waits."""
        crc = zlib.crc32(f"{self.seq}\0{self.action}\0{self.lane}\0{self.id}\0{self.part}".encode())
        for part in (self.payload, self.body or b"", self.meta, self.more or b""):
            crc = zlib.crc32(part, crc)
        return crc

    def size(self) -> int:
        """About how many bytes it takes."""
        return len(self.payload) + len(self.body or b"") + len(self.meta) + 200


class Waiting(msgspec.Struct):
    """What waits in one lane of one action."""

    action: str
    lane: str
    rows: int
    bytes: int
    oldest: float
    first_seq: int


COLUMNS = ", ".join(Row.__struct_fields__)
_VALUES = f"({', '.join('?' * len(Row.__struct_fields__))})"
_SELECT = f"SELECT {COLUMNS} FROM outbox WHERE action = ? AND lane = ? AND seq > ? ORDER BY seq LIMIT ?"
_BATCH_BYTES = 256 << 10
_AT_ONCE = 60
"""Rows to a statement: at each the writing thread gives the interpreter away, and a busy event loop takes its time to give it
back. SQLite before 3.32 takes 999 values."""
Stored = Callable[[list[Parcel], list[bool]], None]


class Remains(bytes):
    """What a damaged row has left of a payload: for a person to see, never to be sent."""


def packed(value: Any) -> tuple[bytes, int]:
    """A payload as it is kept, and its kind. Never raises."""
    if type(value) is Remains:
        return bytes(value), SHOWN
    if isinstance(value, bytes):
        return value, BYTES
    try:
        return _encode(value), JSON
    except FAULTS:
        return text(value, repr).encode(), SHOWN


def packed_names(names: Mapping[str, Any]) -> bytes:
    """Metadata, as a JSON object. Never raises: what JSON cannot hold becomes a text."""
    try:
        return _encode(names)
    except FAULTS:
        return _encode(_holdable(names, _LEVELS))


def _holdable(value: Any, levels: int) -> Any:
    try:
        _encode(value)
    except FAULTS:
        if isinstance(value, msgspec.Struct):
            value = msgspec.structs.asdict(value)
        if levels and isinstance(value, Mapping):
            return {text(name): _holdable(held, levels - 1) for name, held in value.items()}
        return text(value)
    return value


def text(value: Any, show: Callable[[Any], str] = str) -> str:
    """What a value is called, as a text that SQLite takes. Never raises."""
    try:
        return clean(show(value))
    except FAULTS:
        return f"<{type(value).__name__}>"


def clean(words: str) -> str:
    """A text that SQLite takes: half a surrogate pair, which JSON may hold, is written out."""
    return words if words.isascii() else words.encode("utf-8", "backslashreplace").decode()


def unpacked(data: bytes, kind: int) -> Any:
    """The payload again."""
    return _decode(data) if kind == JSON else data


class Outbox:
    """The table of waiting messages. Sequence numbers are given here, in the order of `put`, and never used twice.

    stored: told what has been put and is on the disk now, and for each whether it was new; see `put`.
    """

    def __init__(self, store: Store, stored: Stored) -> None:
        self.store = store
        self.ticker = Ticker()
        self.puts = 0
        """How many rows were ever put in this run: a healthy run puts none."""
        self.kept = 0
        """Bytes of what is on the disk and stays in memory all the same."""
        self.first = 1
        """The first number that this run gives."""
        self._next = 1
        self.stored = stored
        self._rows: list[Row] = []
        self._parcels: list[Parcel] = []
        self._closes: list[int] = []
        self._leaving: list[int] = []
        self._removing = False

    async def open(self) -> list[Waiting]:
        """What waits from runs before, lane by lane. Raises sqlite3.Error."""
        found: list[Waiting] = await self.store.read(_waiting)
        highest = await self.store.read(lambda db: db.execute("SELECT MAX(seq) FROM outbox").fetchone()[0])
        self._next = self.first = (highest or 0) + 1
        return found

    def number(self) -> int:
        """The next sequence number."""
        self._next += 1
        return self._next - 1

    def reserve(self, count: int) -> int:
        """The first of so many sequence numbers."""
        self._next += count
        return self._next - count

    def put(self, rows: list[Row], parcels: list[Parcel], closes: Iterable[int] = ()) -> None:
        """Store rows in one transaction, which also removes the rows `closes`. `stored` is told, for each, whether it was
        new: a row of the same action, id and part that is there already stays, and the newcomer is a duplicate."""
        self.puts += len(rows)
        if not self._rows:
            asyncio.get_running_loop().call_soon(self._put_gathered)
        self._rows += rows
        self._parcels += parcels
        self._closes += closes

    def _put_gathered(self) -> None:
        """Queue what was put in this turn of the loop, as one change."""
        rows, parcels, closes = self._rows, self._parcels, self._closes
        if not rows:
            return
        self._rows, self._parcels, self._closes = [], [], []

        def work(database: sqlite3.Connection) -> list[bool]:
            # What was delivered while it waited for the disk need not be written.
            wanted = [row for row, parcel in zip(rows, parcels, strict=True) if not parcel.ended]
            for row in wanted:
                row.checksum = row.sum()
            there = insert(database, wanted)
            delete(database, closes)
            return [row.seq not in there for row in rows]

        self.store.change(work, lambda new: self.stored(parcels, new), grows=True)

    def remove(self, seq: int) -> None:
        """A row has ended; those of one tick are removed by one change."""
        if not self._removing:
            self._removing = True
            self.ticker.add(self._remove_gathered)
        self._leaving.append(seq)

    def _remove_gathered(self, _held_up: float) -> bool:
        self._removing = False
        self.flush()
        return False

    def flush(self) -> None:
        """Queue now what was put, and the removals."""
        self._put_gathered()  # a row must not come after its removal
        leaving, self._leaving = self._leaving, []
        if leaving:
            self.store.change(lambda database: delete(database, leaving))

    def attempted(self, seq: int, first: float, attempts: int, error: str) -> None:
        """Note on a row that it was tried and failed."""
        statement = "UPDATE outbox SET first = ?, attempts = ?, error = ? WHERE seq = ?"
        self.store.execute(statement, (first, attempts, clean(error[:500]), seq))

    async def rows(self, action: str, lane: str, after: int, limit: int) -> list[Row]:
        """The next rows of a lane, in order: at most `limit`, and not much more than 256 KB of them."""

        def work(database: sqlite3.Connection) -> list[Row]:
            found: list[Row] = []
            size = 0
            for values in database.execute(_SELECT, (action, lane, after, limit)):
                row = Row(*values)
                found.append(row)
                size += row.size()
                if size > _BATCH_BYTES:
                    break
            return found

        rows: list[Row] = await self.store.read(work)
        return rows


def insert(database: sqlite3.Connection, rows: Sequence[Row]) -> set[int]:
    """Insert rows with their checksums; the numbers of those whose action, id and part are there already."""
    there: set[int] = set()
    for some in _pieces(rows):
        values = [value for row in some for value in msgspec.structs.astuple(row)]
        statement = f"INSERT OR IGNORE INTO outbox ({COLUMNS}) VALUES {', '.join([_VALUES] * len(some))}"
        if database.execute(statement, values).rowcount < len(some):
            numbers = [row.seq for row in some]
            found = database.execute(f"SELECT seq FROM outbox WHERE seq IN ({_marks(numbers)})", numbers)
            there.update(set(numbers).difference(seq for (seq,) in found))
    return there


def delete(database: sqlite3.Connection, numbers: Sequence[int]) -> None:
    """Remove rows; numbers that are no more are let pass."""
    for some in _pieces(numbers):
        database.execute(f"DELETE FROM outbox WHERE seq IN ({_marks(some)})", some)


def _pieces(things: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (things[at : at + _AT_ONCE] for at in range(0, len(things), _AT_ONCE))


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _waiting(database: sqlite3.Connection) -> list[Waiting]:
    query = """SELECT action, lane, COUNT(*), SUM(LENGTH(payload) + LENGTH(meta)), MIN(arrived), MIN(seq)
               FROM outbox GROUP BY action, lane ORDER BY MIN(seq)"""
    return [Waiting(*values) for values in database.execute(query)]
