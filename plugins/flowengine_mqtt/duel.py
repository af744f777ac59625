"""Noticing that another program uses our client id: each throws the other off (MQTT 5 section 3.1.4)."""

from __future__ import annotations

from collections import deque

from flowengine_mqtt.outcome import Closed, End

SESSION_TAKEN_OVER = 0x8E

_MANY = 3
_WITHIN = 60.0
_SHORT = 5.0
_PEACE = 120.0


class DuelWatch:
    """Counts connections that ended as a take-over ends them.

    The broker says so (reason code 0x8E), or, as with MQTT 3.1.1 and Mosquitto 2.0 with either version, it
    just closes a connection that it accepted less than 5 s ago. Three within a minute are a duel; it is over
    once a connection has held for two minutes.
    """

    def __init__(self) -> None:
        self._ends: deque[float] = deque(maxlen=_MANY)
        self.on = False

    def ended(self, closed: Closed, now: float) -> bool:
        """Note the end of a connection at `now` (seconds, monotonic). True if a duel begins with it."""
        if closed.held is not None and closed.held > _PEACE:
            self.on = False
            self._ends.clear()
        taken = closed.code == SESSION_TAKEN_OVER or (
            closed.end is End.CLOSED and closed.held is not None and closed.held < _SHORT
        )
        if not taken:
            return False
        self._ends.append(now)
        begins = not self.on and len(self._ends) == _MANY and now - self._ends[0] < _WITHIN
        self.on = self.on or begins
        return begins
