"""Dead letters: messages that were given up, kept with the reason, for a person to see, and to send again.

They lie in the store, in one transaction with the removal of the row they come from: a sender hears yes for a dead
message when the letter is on the disk. They have a quota and a retention; what leaves by these is counted and said.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Any

import structlog

from flowengine.delivery.outbox import packed, packed_names, text
from flowengine.delivery.store import Store
from flowengine.i18n import N_
from flowengine.message import Failure, Message

log: Any = structlog.get_logger("flowengine.dead")
_INSERT = """INSERT INTO dead (flow, node, device, id, part, reason, status, attempts, arrived, died, payload, kind, meta, more)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
QUOTA = 1 << 30
"""Bytes of payload; beyond, the oldest leave."""
RETENTION = 30 * 86400.0
"""Seconds; older ones leave."""
_LOOK_EVERY = 600.0


class DeadLetters:
    """The table of dead letters."""

    def __init__(self, store: Store, *, quota: int = QUOTA, retention: float = RETENTION) -> None:
        self.store = store
        self.quota = quota
        self.retention = retention
        self.left = 0
        """How many left by quota or age in this run."""
        self._looked = 0.0

    def put(self, flow: str, msg: Message, failure: Failure, kept: Callable[[], None]) -> None:
        """Keep one letter; `kept` is called in the event loop when it is on the disk. Never raises."""
        payload, kind = packed(msg.payload)
        status = None if failure.status is None else text(failure.status)
        device = text(msg.meta.get("device") or msg.meta.get("topic") or "")
        more = {"result": msg.result, "acted": msg.acted}  # what the chain goes on with if the letter is replayed
        extra = packed_names({k: v for k, v in more.items() if v}) if any(more.values()) else None
        values = (
            flow, failure.node, device, text(msg.id), msg.part, text(failure.reason), status, failure.attempts,
            msg.time, time.time(), payload, kind, packed_names(dict(msg.meta)), extra,
        )  # fmt: skip
        row = msg.outcome.row if msg.outcome.open == 1 else 0

        def work(database: sqlite3.Connection) -> None:
            database.execute(_INSERT, values)
            if row:
                database.execute("DELETE FROM outbox WHERE seq = ?", (row,))

        self.store.change(work, lambda _result: kept(), grows=True)
        if time.monotonic() - self._looked > _LOOK_EVERY:
            self._looked = time.monotonic()
            self.store.change(self._leave, self._say)

    def look(self) -> None:
        """Let go what is over the quota or too old."""
        self.store.change(self._leave, self._say)

    def _leave(self, database: sqlite3.Connection) -> int:
        gone = database.execute("DELETE FROM dead WHERE died < ?", (time.time() - self.retention,)).rowcount
        total = database.execute("SELECT COALESCE(SUM(LENGTH(payload)), 0) FROM dead").fetchone()[0]
        for number, size in database.execute("SELECT number, LENGTH(payload) FROM dead ORDER BY number").fetchall():
            if total <= self.quota:
                break
            database.execute("DELETE FROM dead WHERE number = ?", (number,))
            total -= size
            gone += 1
        return gone

    def _say(self, gone: int) -> None:
        if gone:
            self.left += gone
            log.error(N_("dead letters left by quota or age: they are lost"), letters=gone)
