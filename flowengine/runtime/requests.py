"""What a person may ask about dead letters and the outbox: the same beside a running engine and on its file alone.

A request is a JSON object whose `do` names it; an answer is a few JSON objects. `answer` does what needs no engine; what does is
left to the desk: `runtime.desk` beside a running engine, `runtime.stopped` for its file alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec

from flowengine.delivery import clearing, desk
from flowengine.delivery.clearing import LaneOnDisk, Meant
from flowengine.delivery.desk import Chosen, Count

T = TypeVar("T")
_PAGE = 200
_ROOM = 1 << 20
"""Bytes of payload that are in memory at once."""


class Request(msgspec.Struct, tag_field="do", forbid_unknown_fields=True, frozen=True):
    """One thing that a person asks."""


class DeadCount(Request, tag="dead.count", frozen=True):
    """How much is chosen: a Count."""

    chosen: Chosen = Chosen()


class DeadList(Request, tag="dead.list", frozen=True):
    """The newest letters, the newest first, without payload."""

    chosen: Chosen = Chosen()
    limit: int = 100


class DeadExport(Request, tag="dead.export", frozen=True):
    """Whole letters, the oldest first."""

    chosen: Chosen = Chosen()


class DeadDrop(Request, tag="dead.drop", frozen=True):
    """Delete letters: a Progress, several times."""

    chosen: Chosen


class DeadReplay(Request, tag="dead.replay", frozen=True):
    """Let letters enter their flows again: a Replayed, several times."""

    chosen: Chosen


class OutboxList(Request, tag="outbox.list", frozen=True):
    """What waits: a LaneShown for each lane."""

    action: str | None = None
    lane: str | None = None


class OutboxMove(Request, tag="outbox.move", frozen=True):
    """Give rows to another action: a Progress, several times."""

    meant: Meant
    to: str


class OutboxDrop(Request, tag="outbox.drop", frozen=True):
    """Delete rows: a Progress, several times."""

    meant: Meant


AnyRequest = DeadCount | DeadList | DeadExport | DeadDrop | DeadReplay | OutboxList | OutboxMove | OutboxDrop


class Replayed(msgspec.Struct, omit_defaults=True):
    """What became of some letters that were replayed. marked: the next start of the engine does it. under_way: not ended yet, or
    an earlier replay of it has not. no_node: their node, or their flow, is no more; they stay.
    unfit: what is left of their payload is not what it was; they stay."""

    delivered: int = 0
    stored: int = 0
    dropped: int = 0
    dead: int = 0
    marked: int = 0
    under_way: int = 0
    no_node: list[tuple[int, str]] = []
    unfit: list[int] = []

    def letters(self) -> int:
        """How many."""
        some = self.delivered + self.stored + self.dropped + self.dead + self.marked + self.under_way
        return some + len(self.no_node) + len(self.unfit)


class Progress(msgspec.Struct, omit_defaults=True):
    """How many letters or rows were dropped or moved. duplicates: rows whose id the new owner had already, and which are gone."""

    done: int = 0
    duplicates: int = 0


class LaneShown(LaneOnDisk, kw_only=True):
    """What waits in a lane. owner: whether a flow has its action; unknown where no engine runs. next_try: seconds."""

    owner: bool | None = None
    next_try: float | None = None


class Refused(Exception):
    """What was asked cannot be done; the text says why."""


class Desk(Protocol):
    """Who carries out what needs an engine, or must be done otherwise without one."""

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a query."""
        ...

    async def change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Make a change; returns when it is on the disk."""
        ...

    def shown(self, lanes: list[LaneOnDisk]) -> list[LaneShown]:
        """What is known of these lanes beside what is on the disk."""
        ...

    def replay(self, chosen: Chosen) -> AsyncIterator[Replayed]:
        """Let letters enter again."""
        ...

    def move(self, meant: Meant, to: str) -> AsyncIterator[Progress]:
        """Give rows to another action."""
        ...

    def drop(self, meant: Meant) -> AsyncIterator[Progress]:
        """Delete rows."""
        ...


_requests: msgspec.json.Decoder[AnyRequest] = msgspec.json.Decoder(AnyRequest)


def read_request(line: bytes) -> AnyRequest:
    """The request in a line; raises msgspec.DecodeError, UnicodeDecodeError, RecursionError."""
    return _requests.decode(line)


async def answer(at: Desk, request: AnyRequest) -> AsyncGenerator[Any, None]:
    """The answer, piece by piece. Raises Refused, sqlite3.Error."""
    match request:
        case DeadCount(chosen):
            yield await at.read(lambda db: desk.count(db, chosen))
        case DeadList(chosen, limit):
            async for letter in _listed(at, chosen, limit):
                yield letter
        case DeadExport(chosen):
            async for letter in _exported(at, chosen):
                yield letter
        case DeadDrop(chosen):
            chosen = await bounded(at, chosen)
            while done := await at.change(lambda db: desk.drop(db, chosen)):
                yield Progress(done)
        case DeadReplay(chosen):
            async for replayed in at.replay(await bounded(at, chosen)):
                yield replayed
        case OutboxList(action, lane):
            lanes = await at.read(lambda db: clearing.listing(db, action, lane))
            for shown in at.shown(lanes):
                yield shown
        case OutboxMove(meant, to):
            async for progress in at.move(meant, to):
                yield progress
        case OutboxDrop(meant):
            async for progress in at.drop(meant):
                yield progress


async def bounded(at: Desk, chosen: Chosen) -> Chosen:
    """The same letters, but for those that come from now on: a replay may bring new ones."""
    found: Count = await at.read(lambda db: desk.count(db, chosen))
    return msgspec.structs.replace(chosen, upto=min(found.highest, chosen.upto or found.highest))


async def _listed(at: Desk, chosen: Chosen, limit: int) -> AsyncIterator[Any]:
    before: int | None = None
    while limit > 0:
        few = min(limit, _PAGE)
        page = await at.read(partial(desk.letters, chosen=chosen, limit=few, before=before))
        for letter in page:
            yield letter
        if len(page) < few:
            return
        limit -= few
        before = page[-1].number


async def _exported(at: Desk, chosen: Chosen) -> AsyncIterator[Any]:
    after = 0
    while page := await at.read(partial(desk.whole, chosen=chosen, after=after, limit=_PAGE, room=_ROOM)):
        for letter in page:
            yield letter
        after = page[-1].number
