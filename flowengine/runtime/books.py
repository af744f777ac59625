"""The books of a run: `carried + received + replayed = delivered + dropped + dead + pending`, at every moment."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

_REASONS = 100
_OTHER = "…"


@dataclass(eq=False)
class Books:
    """What came in and what became of it, counted in messages. Only `pending` is not counted here: it is what lies somewhere."""

    carried: int = 0
    received: int = 0
    replayed: int = 0
    delivered: int = 0
    dropped: int = 0
    dead: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """Why messages were dropped or are dead; reasons beyond the first 100 are counted together, as `…`."""

    def because(self, reason: str) -> None:
        """Count a reason. A node may make it from the message, so that there are as many reasons as messages."""
        known = reason in self.reasons or len(self.reasons) < _REASONS
        self.reasons[reason if known else _OTHER] += 1

    def settled(self) -> int:
        """How many have ended."""
        return self.delivered + self.dropped + self.dead

    def came_in(self) -> int:
        """How many there were."""
        return self.carried + self.received + self.replayed

    def balance(self, pending: int) -> bool:
        """Whether everything that came in has ended or is among the `pending`, counted where they lie."""
        return self.came_in() == self.settled() + pending

    def add(self, other: Books) -> None:
        """Add another flow's books to these."""
        for name in ("carried", "received", "replayed", "delivered", "dropped", "dead"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reasons.update(other.reasons)

    def lines(self, pending: int) -> dict[str, int]:
        """The books as names and numbers, in the order of the equation."""
        return {
            "carried": self.carried,
            "received": self.received,
            "replayed": self.replayed,
            "delivered": self.delivered,
            "dropped": self.dropped,
            "dead": self.dead,
            "pending": pending,
        }
