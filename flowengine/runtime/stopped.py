"""The desk where no engine runs: the store's file itself, under the state folder's lock, so that none can start meanwhile."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from flowengine.delivery import clearing, desk, tables
from flowengine.delivery.clearing import LaneOnDisk, Meant
from flowengine.delivery.desk import Chosen
from flowengine.i18n import _
from flowengine.runtime.requests import LaneShown, Progress, Refused, Replayed
from flowengine.runtime.state import StateFolder

T = TypeVar("T")


class StoppedDesk:
    """See `runtime.requests.Desk`. Letters to be replayed are marked, for the next start of the engine."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a query."""
        return work(self._database)

    async def change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Make a change in one transaction."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            result = work(self._database)
            self._database.execute("COMMIT")
        finally:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
        return result

    def shown(self, lanes: list[LaneOnDisk]) -> list[LaneShown]:
        """Nobody knows whose they are, nor when they are tried."""
        return [LaneShown(*msgspec.structs.astuple(lane)) for lane in lanes]

    async def replay(self, chosen: Chosen) -> AsyncIterator[Replayed]:
        """Mark the letters."""
        marked = await self.change(lambda db: desk.mark_chosen(db, chosen))
        if marked:
            yield Replayed(marked=marked)

    async def move(self, meant: Meant, to: str) -> AsyncIterator[Progress]:
        """Give rows to another action, which must be in a flow when the engine starts again."""
        if to == meant.action:
            raise Refused(_("it is their action already"))
        last = await self.read(clearing.highest)
        meant = msgspec.structs.replace(meant, upto=last if meant.upto is None else min(meant.upto, last))
        while rows := (await self.read(lambda db: clearing.batch(db, meant, 0, None)))[0]:
            first = await self.read(clearing.highest) + 1
            new = await self.change(partial(clearing.move, rows=rows, to=to, first=first))
            yield Progress(len(rows), new.count(False))

    async def drop(self, meant: Meant) -> AsyncIterator[Progress]:
        """Delete rows."""
        while rows := (await self.read(lambda db: clearing.batch(db, meant, 0, None)))[0]:
            await self.change(partial(clearing.drop, rows=rows))
            yield Progress(len(rows))


@contextlib.contextmanager
def opened(state: Path) -> Iterator[StoppedDesk]:
    """The desk of a state folder. Raises StartError if an engine has the folder or made the file with a newer version, Refused
    where the file is damaged, sqlite3.Error."""
    folder = StateFolder(state)
    try:
        file = state / "flowengine.db"
        database = tables.connect(file)
        try:
            tables.prepare(database, file)
            yield StoppedDesk(database)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            text = _("{file} is damaged ({reason}): start the engine, which sets it aside and rescues what can be read")
            raise Refused(text.format(file=file, reason=error)) from None
        finally:
            database.close()
    finally:
        folder.release()
