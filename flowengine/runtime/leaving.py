"""Rows that leave the outbox of a running engine otherwise than by delivery, in batches; its lanes pause for each.

What is in flight stays. Moved rows go from the books of one flow to those of the other, as `carried`, so that both balance.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import structlog

from flowengine.delivery import clearing
from flowengine.delivery.clearing import Left, Meant
from flowengine.delivery.lanes import Lanes
from flowengine.i18n import N_, _
from flowengine.runtime.books import Books
from flowengine.runtime.requests import Progress, Refused

if TYPE_CHECKING:
    from flowengine.runtime.desk import LiveDesk

DROPPED = "dropped by a person"
_DAY = 86400.0
_CLOSE_WITHIN = 2.0
log: Any = structlog.get_logger("flowengine.desk")


class _Way(NamedTuple):
    """How rows leave. work: makes the change from the rows. left: called once it is on the disk, with the rows and its result."""

    work: Callable[[list[Left]], Callable[[sqlite3.Connection], Any]]
    left: Callable[[list[Left], Any], None]
    grows: bool


class _Move:
    """Rows on their way to other lanes, a batch at a time, and from one flow's books to the other's."""

    def __init__(self, gone: Callable[[list[Left]], None], before: Books, lanes: Lanes, after: Books) -> None:
        self._gone = gone
        self._before = before
        self._lanes = lanes
        self._after = after
        self._expected: Counter[str] = Counter()
        self.duplicates = 0
        """Of the last batch."""

    def prepare(self, rows: list[Left]) -> Callable[[sqlite3.Connection], list[bool]]:
        """Have newcomers stand behind the rows from now on, and what came before in front of them."""
        keeper = self._lanes.keeper
        assert keeper is not None
        keeper.put_all()
        self._expected = Counter(row.lane for row in rows)
        first = keeper.outbox.reserve(len(rows))
        self._gone(rows)
        clearing.expect(self._lanes, self._expected, first)
        self._before.carried -= len(rows)
        self._after.carried += len(rows)
        return partial(clearing.move, rows=rows, to=keeper.identity, first=first)

    def moved(self, rows: list[Left], new: list[bool]) -> None:
        """The batch is on the disk."""
        came = Counter(row.lane for row, fresh in zip(rows, new, strict=True) if fresh)
        clearing.arrived(self._lanes, self._expected, came)
        self.duplicates = len(rows) - came.total()
        self._after.dropped += self.duplicates
        if self.duplicates:
            self._after.reasons["duplicate"] += self.duplicates


class Leaving:
    """Lets rows leave, one batch at a time, whoever asks."""

    def __init__(self, at: LiveDesk) -> None:
        self._desk = at
        self._one = asyncio.Lock()
        self._batch: asyncio.Future[tuple[int, int]] | None = None

    async def close(self) -> None:
        """Let the batch under way come to its end."""
        if self._batch is not None:
            await asyncio.wait([self._batch], timeout=_CLOSE_WITHIN)

    async def drop(self, meant: Meant) -> AsyncIterator[Progress]:
        """Delete rows that are on the disk alone; what is in flight stays."""
        books = self._desk.books(meant.action)

        def left(rows: list[Left], _result: None) -> None:
            self._gone(meant.action, rows)
            books.dropped += len(rows)
            books.reasons[DROPPED] += len(rows)

        way = _Way(lambda rows: partial(clearing.drop, rows=rows), left, grows=False)
        async for rows in self._leave(meant, way):
            yield Progress(rows)

    async def move(self, meant: Meant, to: str) -> AsyncIterator[Progress]:
        """Give rows to another action, whose lanes take them over."""
        target = self._desk.owner(to)
        if target is None:
            known = sorted(
                lanes.keeper.identity for run in self._desk.engine.running() for lanes in run.lanes if lanes.keeper
            )
            text = _("no flow that runs has an action '{action}' that stores messages; there are: {known}")
            raise Refused(text.format(action=to, known=", ".join(known) or "-"))
        if to == meant.action:
            raise Refused(_("it is their action already"))
        if not self._desk.store.healthy:
            raise Refused(_("the store is full: {reason}").format(reason=self._desk.store.full))
        way = _Move(partial(self._gone, meant.action), self._desk.books(meant.action), target[1], target[0].books)
        async for rows in self._leave(meant, _Way(way.prepare, way.moved, grows=True)):
            yield Progress(rows, way.duplicates)

    async def _leave(self, meant: Meant, way: _Way) -> AsyncIterator[int]:
        """Let rows leave in batches; the lanes go on between them."""
        upto = await self._desk.read(clearing.highest)
        meant = msgspec.structs.replace(meant, upto=upto if meant.upto is None else min(meant.upto, upto))
        after = 0
        while True:
            self._batch = asyncio.ensure_future(self._one_batch(meant, after, way))
            rows, after = await asyncio.shield(self._batch)  # a client who goes away does not leave it half done
            if rows:
                yield rows
            if not after:
                return

    async def _one_batch(self, meant: Meant, after: int, way: _Way) -> tuple[int, int]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._one)
            owner = self._desk.owner(meant.action)
            resting = None
            if owner is not None:
                await stack.enter_async_context(owner[1].turns.pause())
                if owner[1].keeper is not None:
                    owner[1].keeper.put_all()
                await self._desk.change(lambda _database: None)  # what is on its way to the disk is there now
                resting = clearing.at_rest(owner[1], meant.lane)
            rows, after = await self._desk.read(lambda db: clearing.batch(db, meant, after, resting))
            if rows:
                await self._desk.change(way.work(rows), partial(way.left, rows), grows=way.grows)
        return len(rows), after

    async def sweep(self, retention: float) -> None:
        """Rows beyond the retention become dead letters."""
        if not self._desk.store.healthy:
            return
        before = time.time() - retention
        reason = clearing.too_old(retention / _DAY)
        for action in await self._desk.read(lambda db: clearing.actions(db, before)):
            books = self._desk.books(action)

            def left(rows: list[Left], _result: None, books: Books = books, action: str = action) -> None:
                self._gone(action, rows)
                books.dead += len(rows)
                books.reasons[action] += len(rows)

            way = _Way(lambda rows: partial(clearing.bury, rows=rows, reason=reason), left, grows=True)
            total = 0
            async for rows in self._leave(Meant(action, before=before), way):
                total += rows
            if total:
                log.error(N_("stored messages are dead: they waited too long"), action=action, messages=total)

    def _gone(self, action: str, rows: list[Left]) -> None:
        counts = Counter(row.lane for row in rows)
        owner = self._desk.owner(action)
        if owner is not None:
            clearing.gone(owner[1], counts)
            return
        for waiting in self._desk.engine.ownerless:
            if waiting.action == action:
                waiting.rows -= counts.pop(waiting.lane, 0)
        self._desk.engine.ownerless = [waiting for waiting in self._desk.engine.ownerless if waiting.rows > 0]
