"""The books of all sides of a demo, and whether they agree."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import msgspec

from flowengine import _
from flowengine_simulate.display import table
from flowengine_simulate.terminals import TerminalCounts

RecordId = tuple[str, str]
"""A record's `user_id` and `bot_time`"""


class EngineBooks(msgspec.Struct, frozen=True):
    """What the engine prints when it ends."""

    carried: int
    received: int
    replayed: int
    delivered: int
    dropped: int
    dead: int
    pending: int

    @property
    def balanced(self) -> bool:
        """Whether every message taken in is accounted for."""
        taken_in = self.carried + self.received + self.replayed
        return taken_in == self.delivered + self.dropped + self.dead + self.pending


@dataclass(slots=True)
class Books:
    """What each side saw. The demo fills it as it goes."""

    terminals: TerminalCounts
    sent: set[RecordId] = field(default_factory=set)
    """records in messages that terminals sent"""
    arrived: Counter[RecordId] = field(default_factory=Counter)
    """records at the backend, and how often each"""
    commands_posted: int = 0
    """commands that the engine answered with 2xx"""
    commands_refused: int = 0
    """commands that it answered with anything else, or not"""
    engine: EngineBooks | None = None
    engine_exit: int | None = None

    @property
    def repeated(self) -> int:
        """Arrivals beyond the first of a record."""
        return self.arrived.total() - len(self.arrived)

    def table(self) -> str:
        """All sides, side by side."""
        sides = self.terminals
        rows: list[tuple[object, ...]] = [
            ("", _("sent"), _("arrived"), ""),
            (_("verified records"), len(self.sent), self.arrived.total(), _("at the backend")),
            (_("heartbeat replies"), sides.heartbeats, sides.replies, _("at the terminals")),
            (_("commands"), self.commands_posted, sides.commands, _("at the terminals")),
            (_("strangers"), sides.strangers, "", _("go nowhere")),
            (_("messages at QoS 1"), sides.sent, sides.acknowledged, _("acknowledged by the broker")),
        ]
        return f"{table(rows)}\n\n{self._engine_text()}"

    def _engine_text(self) -> str:
        if self.engine is None:
            return _("The engine printed no books.")
        text = _(
            "The engine: {carried} carried + {received} received + {replayed} replayed"
            " = {delivered} delivered + {dropped} dropped + {dead} dead + {pending} pending"
        )
        return text.format(**msgspec.structs.asdict(self.engine))

    def disagreements(self) -> list[str]:
        """What does not agree, as sentences; empty if all does."""
        sides, engine = self.terminals, self.engine
        missing = len(self.sent - self.arrived.keys())
        unknown = len(self.arrived.keys() - self.sent)
        found = [
            (not sides.sent, _("nothing was sent")),
            (missing, _("records that were sent and did not arrive: {n}").format(n=missing)),
            (self.repeated, _("records that arrived again: {n}").format(n=self.repeated)),
            (unknown, _("records that arrived and were never sent: {n}").format(n=unknown)),
            (
                sides.heartbeats != sides.replies,
                _("heartbeats without a reply in time: {n}").format(n=sides.heartbeats - sides.replies),
            ),
            (sides.replies_unasked, _("replies too late or unasked: {n}").format(n=sides.replies_unasked)),
            (sides.replies_malformed, _("replies malformed: {n}").format(n=sides.replies_malformed)),
            (self.commands_refused, _("commands that were not taken: {n}").format(n=self.commands_refused)),
            (
                self.commands_posted != sides.commands,
                _("commands taken: {posted}, but received by terminals: {received}").format(
                    posted=self.commands_posted, received=sides.commands
                ),
            ),
            (
                sides.sent != sides.acknowledged,
                _("messages that were not acknowledged: {n}").format(n=sides.sent - sides.acknowledged),
            ),
            (engine is None, _("the engine printed no books")),
            (engine and not engine.balanced, _("the engine's books do not balance")),
            (engine and engine.dead, _("the engine has dead letters")),
            (engine and engine.pending, _("the engine ended with messages pending")),
            (self.engine_exit, _("the engine ended with status {status}").format(status=self.engine_exit)),
        ]
        return [sentence for wrong, sentence in found if wrong]
