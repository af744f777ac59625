"""The engine: starts all flows in order, keeps their books, stops them so that nothing is lost."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog

from flowengine.delivery.deadletters import RETENTION, DeadLetters
from flowengine.delivery.keeping import store_oldest, stored
from flowengine.delivery.outbox import Outbox, Waiting
from flowengine.delivery.poison import Watch
from flowengine.delivery.store import Store
from flowengine.delivery.ticker import TICK
from flowengine.errors import FAULTS, StartError, cancelled, reason_of
from flowengine.flowfile.model import ConnectionDef, Project
from flowengine.i18n import N_, _
from flowengine.message import Budget
from flowengine.node import Connection, Part
from flowengine.runtime.books import Books
from flowengine.runtime.control import Control
from flowengine.runtime.desk import LiveDesk
from flowengine.runtime.flow import FlowRun
from flowengine.runtime.state import StateFolder

PENDING_BYTES = 32 << 20
"""Bytes of messages that may be in memory, neither settled nor stored."""
DRAIN = 5.0
"""Seconds for attempts under way when the engine is stopped; all of a stop stays below Docker's 10."""
_CLOSE_WITHIN = 3.0
_LOOK = 0.02
_PER_STORED = 150e-6
"""Seconds to the next time that room is made, for each message that was stored for it; a tick at most."""


class Engine:
    """Runs the flows of a checked project.

    `start` returns when everything is started; `until_ready` when all that shall listen or be subscribed is. `stop`
    ends with the books closed. state: the folder for what outlives a restart, or None where nothing need be kept
    (tests). retention: seconds that dead letters are kept, and that messages wait in the outbox before they are dead.
    """

    def __init__(self, project: Project, state: Path | None = None, *, retention: float = RETENTION) -> None:
        self.project = project
        self.log: Any = structlog.get_logger("flowengine")
        self.folder = StateFolder(state) if state is not None else None
        self.store = Store(state, failed=self._store_failed) if state is not None else None
        self.outbox = Outbox(self.store, stored) if self.store is not None else None
        self.dead_letters = DeadLetters(self.store, retention=retention) if self.store is not None else None
        self.desk = LiveDesk(self, self.store, retention) if self.store is not None else None
        self.control = Control(self.desk, state) if self.desk is not None and state is not None else None
        self.budget = Budget(PENDING_BYTES)
        self.ownerless: list[Waiting] = []
        """Stored messages whose action is in no flow: kept, counted, never sent elsewhere."""
        self.unowned = Books()
        """Their books."""
        self.failed = asyncio.Event()
        """The store failed: the only safe way on is a new start."""
        self.watch = Watch(state)
        self.flows = [FlowRun(flow, self.dead_letters, self.budget, self._press, self.watch) for flow in project.flows]
        self._pressed = False
        self._press_again = 0.0
        self.hurry = asyncio.Event()
        self._opened: list[Part] = []
        self._connections: list[Connection] = []

    async def start(self) -> None:
        """Open connections, then nodes, run the sources, let messages in. A flow that cannot start is said and left out; raises
        StartError if none can."""
        if self.store is not None:
            self.store.open()
            await self.watch.open(self.store)
        broken: dict[Connection, str] = {}
        for run in self.flows:
            try:
                for definition in self._used(run):
                    await self._connect(definition, broken)
                for node in run.flow.nodes():
                    await self._open(node.node)
            except FAULTS as error:
                self._cannot_start(run, error)
        self._need_one()
        try:
            await self._carry()
        except sqlite3.Error as error:
            text = _(
                "the outbox cannot be read ({reason}); the next start sets the damaged file aside and rescues what it can"
            )
            raise StartError(text.format(reason=error)) from None
        for run in self.flows:
            if run.failed_to_start:
                run.leave_out()
            else:
                run.start_sources()
        await asyncio.sleep(0)
        for connection in self._connections:
            users = self._users(connection)  # none: what comes in would find nobody, and be acknowledged
            try:
                if users:
                    await connection.start()
            except FAULTS as error:
                for run in users:
                    self._cannot_start(run, error)
                    await run.stop_sources()
        self._need_one()
        if self.desk is not None and self.control is not None:
            self.desk.start()
            await self.control.open()

    async def _carry(self) -> None:
        """Give the rows of runs before to their owners; say which have none."""
        if self.outbox is None or self.dead_letters is None:
            return
        if self.desk is not None:
            await self.desk.open()
        waiting: dict[str, list[Waiting]] = {}
        for found in await self.outbox.open():
            waiting.setdefault(found.action, []).append(found)
        for run in self.running():
            run.keep(self.outbox, waiting)
        self.ownerless = [found for lanes in waiting.values() for found in lanes]
        self.unowned.carried += sum(found.rows for found in self.ownerless)
        left_out = {
            node.node.context.identity for run in self.flows for node in run.flow.nodes() if run.failed_to_start
        }
        for action, lanes in waiting.items():
            self.log.error(
                N_("stored messages wait: their flow could not start")
                if action in left_out
                else N_("stored messages have no owner: no flow has this action; see 'flowengine outbox'"),
                action=action,
                messages=sum(found.rows for found in lanes),
            )
        self.dead_letters.look()

    def _press(self) -> None:
        """Somebody needs room: store the oldest of what is unsettled, soon.

        Room is short for as long as more is sent than the far end takes, and what it takes quickly should not all go by
        the disk: storing has only part of the time.
        """
        if not self._pressed:
            self._pressed = True
            loop = asyncio.get_running_loop()
            urgent = self.budget.used * 4 > self.budget.bound * 3
            loop.call_later(0.0 if urgent else max(0.0, self._press_again - loop.time()), self._store_oldest)

    def _store_oldest(self) -> None:
        self._pressed = False
        stored = store_oldest([lane for run in self.running() for lane in run.in_memory()])
        self._press_again = asyncio.get_running_loop().time() + min(stored * _PER_STORED, TICK)

    def _store_failed(self, reason: str) -> None:
        self.log.error(N_("the store failed; stopping: start again once the disk is well"), reason=reason)
        self.failed.set()

    def _need_one(self) -> None:
        if self.flows and not self.running():
            raise StartError(_("no flow could be started"))

    def running(self) -> list[FlowRun]:
        """The flows that could be started."""
        return [run for run in self.flows if not run.failed_to_start]

    def _used(self, run: FlowRun) -> list[ConnectionDef]:
        """The flow's own connections, and those of the folder that its nodes name."""
        shared = [d for name, d in self.project.shared.items() if name in run.flow.uses]
        return [*shared, *run.flow.connections.values()]

    async def _connect(self, definition: ConnectionDef, broken: dict[Connection, str]) -> None:
        connection = definition.connection
        if connection in broken:
            raise StartError(broken[connection])
        if connection in self._connections:
            return
        self._connections.append(connection)
        try:
            await self._open(connection)
        except FAULTS as error:
            if cancelled():
                raise
            broken[connection] = f"{connection.context.identity}: {reason_of(error)}"
            if isinstance(error, StartError):
                raise StartError(broken[connection]) from None
            raise

    async def _open(self, part: Part) -> None:
        self._opened.append(part)
        await part.open()

    def _cannot_start(self, run: FlowRun, error: BaseException) -> None:
        if cancelled():
            raise error
        run.failed_to_start = reason_of(error)
        fault = {} if isinstance(error, StartError) else {"exc_info": error}
        run.log.error(N_("the flow cannot start; the others go on"), reason=run.failed_to_start, **fault)

    async def until_ready(self) -> list[str]:
        """Wait until every connection is ready; what each listens on or is subscribed to."""
        while True:
            said = [c.ready() for c in self._connections if self._users(c)]
            if all(s is not None for s in said):
                return [s for s in said if s]
            await asyncio.sleep(_LOOK)

    def not_ready(self) -> list[str]:
        """The connections that are waited for."""
        return [c.context.identity for c in self._connections if self._users(c) and c.ready() is None]

    def _users(self, connection: Connection) -> list[FlowRun]:
        """The flows that run and use it."""
        return [run for run in self.running() if any(d.connection is connection for d in self._used(run))]

    def books(self) -> Books:
        """The books of all flows together."""
        total = Books()
        for run in self.flows:
            total.add(run.books)
        total.add(self.unowned)
        return total

    def pending(self) -> int:
        """How many messages lie somewhere, counted where they lie."""
        return sum(run.pending() for run in self.flows) + sum(found.rows for found in self.ownerless)

    async def stop(self) -> None:
        """Take nothing new, let what is under way settle for at most 5 s, acknowledge it, close everything."""
        if self.desk is not None and self.control is not None:
            await self.control.close()
            await self.desk.close()
        for connection in self._connections:
            await self._quietly(connection, connection.stop)
        await asyncio.gather(*(run.stop_sources() for run in self.flows))
        await self.watch.stop()
        for run in self.flows:
            run.close_door()
        latest = time.monotonic() + DRAIN
        while any(run.busy() for run in self.flows) and not self.hurry.is_set() and time.monotonic() < latest:
            await asyncio.sleep(_LOOK)
        await asyncio.gather(*(run.halt() for run in self.flows))
        if self.outbox is not None and self.store is not None and self.desk is not None:
            await self.desk.flush()
            self.outbox.flush()
            await self.store.close()  # what was written is settled now, before the connections close
        for part in reversed(self._opened):
            await self._quietly(part, part.close)
        if self.folder is not None:
            self.folder.release()

    async def _quietly(self, part: Part, do: Callable[[], Awaitable[None]]) -> None:
        """One part that fails to close, or hangs, does not keep the others from it."""
        try:
            async with asyncio.timeout(_CLOSE_WITHIN):
                await do()
        except FAULTS as error:
            if cancelled():
                raise
            part.log.error(N_("failed while stopping"), reason=reason_of(error), exc_info=error)

    def log_books(self) -> None:
        """Write the books to the log: of all flows, and of each where there are several."""
        if len(self.flows) > 1:
            for run in self.flows:
                run.log.info(N_("books of the flow"), **run.books.lines(run.pending()))
        books = self.books()
        puts = self.outbox.puts if self.outbox is not None else 0
        self.log.info(N_("books"), **books.lines(self.pending()), stored=puts, reasons=dict(books.reasons))
