"""The desk beside a running engine: it changes through the store's one writer; flows and lanes take part, and the books know."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import structlog

from flowengine.delivery.clearing import LaneOnDisk, Meant
from flowengine.delivery.desk import Chosen
from flowengine.delivery.lanes import Lanes
from flowengine.delivery.store import Store
from flowengine.i18n import N_, _
from flowengine.runtime.books import Books
from flowengine.runtime.leaving import Leaving
from flowengine.runtime.replay import Replays
from flowengine.runtime.requests import LaneShown, Progress, Refused, Replayed

if TYPE_CHECKING:
    from flowengine.runtime.engine import Engine
    from flowengine.runtime.flow import FlowRun

T = TypeVar("T")
_SWEEP_EVERY = 3600.0
_FLUSH_WITHIN = 2.0
_OURS = (sqlite3.ProgrammingError, sqlite3.IntegrityError, sqlite3.DataError, ValueError, TypeError, ArithmeticError)
"""Faults of a request, which must not fail the store as faults of the disk do."""
log: Any = structlog.get_logger("flowengine.desk")


class LiveDesk:
    """The desk of one engine; see `runtime.requests.Desk`."""

    def __init__(self, engine: Engine, store: Store, retention: float) -> None:
        self.engine = engine
        self.store = store
        self.retention = retention
        self._replays = Replays(self)
        self._leaving = Leaving(self)
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Before the lanes take their rows over: let rows leave that are too old."""
        await self._leaving.sweep(self.retention)
        self.engine.unowned.carried += self.engine.unowned.dead

    def start(self) -> None:
        """Replay what was marked for it while the engine was stopped, and look for old rows every hour."""
        self._tasks = [
            asyncio.get_running_loop().create_task(self._said(work()))
            for work in (self._replays.replay_marked, self._sweep_hourly)
        ]

    async def close(self) -> None:
        """Begin nothing more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._leaving.close()

    async def flush(self) -> None:
        """Remove the letters whose messages were stored by what is queued so far."""
        if not self.store.healthy:
            return
        with contextlib.suppress(Refused, TimeoutError):
            async with asyncio.timeout(_FLUSH_WITHIN):
                await self.change(lambda _database: None)
                await asyncio.sleep(0)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a query in the store's reading thread."""
        result: T = await self.store.read(work)
        return result

    async def change(
        self, work: Callable[[sqlite3.Connection], T], done: Callable[[T], None] | None = None, *, grows: bool = False
    ) -> T:
        """Make a change; `done` is called once it is on the disk, whether or not somebody still waits here."""
        future: asyncio.Future[T | BaseException] = asyncio.get_running_loop().create_future()

        def told(result: T | BaseException) -> None:
            if done is not None and not isinstance(result, BaseException):
                done(result)
            if not future.done():
                future.set_result(result)

        self.store.change(lambda database: _guarded(database, work), told, grows=grows)
        failed = asyncio.ensure_future(self.engine.failed.wait())
        waited: list[asyncio.Future[Any]] = [future, failed]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        failed.cancel()
        if not future.done():
            raise Refused(_("the store failed; the engine is stopping"))
        result = future.result()
        if isinstance(result, BaseException):
            raise result
        return result

    def replay(self, chosen: Chosen) -> AsyncIterator[Replayed]:
        """Let letters enter their flows again."""
        return self._replays.replay(chosen)

    def move(self, meant: Meant, to: str) -> AsyncIterator[Progress]:
        """Give rows to another action, whose lanes take them over."""
        return self._leaving.move(meant, to)

    def drop(self, meant: Meant) -> AsyncIterator[Progress]:
        """Delete rows that are on the disk alone; what is in flight stays."""
        return self._leaving.drop(meant)

    def shown(self, lanes: list[LaneOnDisk]) -> list[LaneShown]:
        """When each lane's next attempt is, and whether it has an owner."""
        owners = {action: self.owner(action) for action in {lane.action for lane in lanes}}
        tries = {action: owner[1].turns.next_tries() for action, owner in owners.items() if owner is not None}
        return [
            LaneShown(
                *msgspec.structs.astuple(lane),
                owner=owners[lane.action] is not None,
                next_try=tries.get(lane.action, {}).get(lane.lane),
            )
            for lane in lanes
        ]

    def books(self, action: str) -> Books:
        """Where this action's rows are counted."""
        owner = self.owner(action)
        return owner[0].books if owner is not None else self.engine.unowned

    def owner(self, action: str) -> tuple[FlowRun, Lanes] | None:
        """The flow and the lanes that have this action's rows."""
        for run in self.engine.running():
            for lanes in run.lanes:
                if lanes.keeper is not None and lanes.keeper.identity == action:
                    return run, lanes
        return None

    async def _sweep_hourly(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_EVERY)
            await self._leaving.sweep(self.retention)

    async def _said(self, work: Awaitable[None]) -> None:
        try:
            await work
        except (sqlite3.Error, Refused) as error:
            log.error(N_("dead letters or outbox: what is done at a start or every hour failed"), reason=str(error))


def _guarded(database: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T | BaseException:
    """Do it, or nothing of it: what is wrong with a request is its own affair, not the transaction's it happens to be in."""
    result: T | BaseException
    database.execute("SAVEPOINT person")
    try:
        result = work(database)
    except _OURS as error:
        database.execute("ROLLBACK TO person")
        result = error
    database.execute("RELEASE person")
    return result
