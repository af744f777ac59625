"""The engine: starts all flows in order, keeps their books, stops them so that nothing is lost."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog

from flowengine.delivery.deadletters import DeadLetters
from flowengine.errors import FAULTS, StartError, cancelled, reason_of
from flowengine.flowfile.model import ConnectionDef, Project
from flowengine.i18n import N_, _
from flowengine.node import Connection, Part
from flowengine.runtime.books import Books
from flowengine.runtime.flow import FlowRun
from flowengine.runtime.state import StateFolder

DRAIN = 5.0
"""Seconds for attempts under way when the engine is stopped; all of a stop stays below Docker's 10."""
_CLOSE_WITHIN = 3.0
_LOOK = 0.02


class Engine:
    """Runs the flows of a checked project.

    `start` returns when everything is started; `until_ready` when all that shall listen or be subscribed is. `stop` ends with
    the books closed. state: the folder for what outlives a restart, or None where nothing need be kept (tests).
    """

    def __init__(self, project: Project, state: Path | None = None) -> None:
        self.project = project
        self.log: Any = structlog.get_logger("flowengine")
        self.folder = StateFolder(state) if state is not None else None
        self.dead_letters = DeadLetters(state) if state is not None else None
        self.flows = [FlowRun(flow, self.dead_letters) for flow in project.flows]
        self.hurry = asyncio.Event()
        self._opened: list[Part] = []
        self._connections: list[Connection] = []

    async def start(self) -> None:
        """Open connections, then nodes, run the sources, let messages in. A flow that cannot start is said and left out; raises
        StartError if none can."""
        if self.dead_letters is not None:
            try:
                self.dead_letters.open()
            except (OSError, sqlite3.Error) as error:
                text = _("the dead letters in {file} cannot be opened: {reason}")
                raise StartError(text.format(file=self.dead_letters.path, reason=error)) from None
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
        for run in self.running():
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
        return total

    def pending(self) -> int:
        """How many messages lie somewhere, counted where they lie."""
        return sum(run.pending() for run in self.flows)

    async def stop(self) -> None:
        """Take nothing new, let what is under way settle for at most 5 s, acknowledge it, close everything."""
        for connection in self._connections:
            await self._quietly(connection, connection.stop)
        await asyncio.gather(*(run.stop_sources() for run in self.flows))
        latest = time.monotonic() + DRAIN
        while any(run.busy() for run in self.flows) and not self.hurry.is_set() and time.monotonic() < latest:
            await asyncio.sleep(_LOOK)
        await asyncio.gather(*(run.halt() for run in self.flows))
        if self.dead_letters is not None:
            await self.dead_letters.close()
            await asyncio.sleep(0)  # what was written is settled now, before the connections close
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
        self.log.info(N_("books"), **books.lines(self.pending()), reasons=dict(books.reasons))
