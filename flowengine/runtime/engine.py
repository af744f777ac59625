"""The engine: starts all flows in order, keeps their books, stops them so that nothing is lost."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import structlog

from flowengine.delivery.deadletters import DeadLetters
from flowengine.errors import StartError
from flowengine.flowfile.model import ConnectionDef, Project
from flowengine.i18n import N_, _
from flowengine.node import Connection, Part
from flowengine.runtime.books import Books
from flowengine.runtime.flow import FlowRun
from flowengine.runtime.state import StateFolder

DRAIN = 5.0
"""Seconds for attempts under way when the engine is stopped; all of a stop stays below Docker's 10."""
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
            except Exception as error:
                run.failed_to_start = str(error)
                self._cannot_start(run, error)
        running = self.running()
        if self.flows and not running:
            raise StartError(_("no flow could be started"))
        for run in running:
            run.start_sources()
        await asyncio.sleep(0)
        for connection in self._connections:
            if connection not in broken:
                await connection.start()

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
        except Exception as error:
            broken[connection] = f"{connection.context.identity}: {error}"
            raise StartError(broken[connection]) from error

    async def _open(self, part: Part) -> None:
        self._opened.append(part)
        await part.open()

    def _cannot_start(self, run: FlowRun, error: Exception) -> None:
        if isinstance(error, StartError):
            run.log.error(N_("the flow cannot start; the others go on"), reason=str(error))
        else:
            run.log.error(N_("the flow cannot start; the others go on"), reason=str(error), exc_info=error)

    async def until_ready(self) -> list[str]:
        """Wait until every connection is ready; what each listens on or is subscribed to."""
        while True:
            said = [c.ready() for c in self._connections if self._needed(c)]
            if all(s is not None for s in said):
                return [s for s in said if s]
            await asyncio.sleep(_LOOK)

    def not_ready(self) -> list[str]:
        """The connections that are waited for."""
        return [c.context.identity for c in self._connections if self._needed(c) and c.ready() is None]

    def _needed(self, connection: Connection) -> bool:
        return any(connection is d.connection for run in self.running() for d in self._used(run))

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
            await self._quietly(connection, connection.stop())
        await asyncio.gather(*(run.stop_sources() for run in self.flows))
        drained = asyncio.gather(*(run.drain(DRAIN) for run in self.flows))
        hurried = asyncio.create_task(self.hurry.wait())
        await asyncio.wait([drained, hurried], return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not drained.done():
            drained.cancel()
            await asyncio.gather(*(run.drain(0) for run in self.flows))
        if self.dead_letters is not None:
            await self.dead_letters.close()
            await asyncio.sleep(0)
        for part in reversed(self._opened):
            await self._quietly(part, part.close())
        if self.folder is not None:
            self.folder.release()

    async def _quietly(self, part: Part, doing: Any) -> None:
        """One part that fails to close does not keep the others from it."""
        try:
            await doing
        except Exception:
            part.log.exception(N_("failed while stopping"))

    def log_books(self) -> None:
        """Write the books to the log: of all flows, and of each where there are several."""
        if len(self.flows) > 1:
            for run in self.flows:
                run.log.info("books of the flow", **run.books.lines(run.pending()))
        books = self.books()
        self.log.info("books", **books.lines(self.pending()), reasons=dict(books.reasons))
