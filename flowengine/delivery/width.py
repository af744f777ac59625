"""How many messages of one action are under way at once: few where the far end is fast, more where lanes wait for their turn."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable

from flowengine.delivery.lane import Lane

NARROW = 16
"""How many are under way at once as long as no lane waits `_LONG` for its turn: more would only wait at the far end, and one lane
that has fallen behind could not catch up. With a far end that takes long, the width grows to what the action may have."""
_LONG = 0.02
_SHORT = 0.005
_CALM_TURNS = 500


class Width:
    """`now` is how many may be under way. It grows while lanes in `ready` wait long for their turn, which `grown` hears, and
    shrinks to `least` once turns have come soon for a while.

    most: what it may grow to. together: how many the action sends in one piece.
    """

    def __init__(self, ready: deque[Lane], most: int, together: int, grown: Callable[[], None]) -> None:
        self._ready = ready
        self._most = most
        self._grown = grown
        self.least = min(max(NARROW, 2 * together), most)  # one piece is filled while another is under way
        self.now = self.least
        self._calm = 0
        self._timer: asyncio.TimerHandle | None = None

    def look_soon(self) -> None:
        """More are ready than may be under way: see later whether they wait long."""
        if self._timer is None and self.now < self._most:
            self._timer = asyncio.get_running_loop().call_later(_LONG, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._ready or self.now >= self._most:
            return
        since = min(lane.ready_at for lane in itertools.islice(self._ready, self.now))
        if time.monotonic() - since > _LONG:
            self._calm = 0
            self.now = min(2 * self.now, self._most)
            self._grown()
        self.look_soon()

    def turn_came(self, lane: Lane) -> None:
        """A lane's turn has come, while more than the least may be under way."""
        self._calm = self._calm + 1 if time.monotonic() - lane.ready_at < _SHORT else 0
        if self._calm > _CALM_TURNS:
            self._calm = 0
            self.now = max(self.least, self.now // 2)

    def stop(self) -> None:
        """Grow no more."""
        self._most = self.now
        if self._timer is not None:
            self._timer.cancel()
