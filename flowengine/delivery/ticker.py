"""One tick for all that look after messages in memory: there may be hundreds of actions, and a timer costs more than the look."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import structlog

from flowengine.errors import FAULTS
from flowengine.i18n import N_

TICK = 0.02
"""Seconds."""
_SAY_EVERY = 10.0
Look = Callable[[float], bool]
"""Given for how many seconds the loop was held up: while it was, answers may have come that it has not read. Whether it wants the
next tick, too."""
log: Any = structlog.get_logger("flowengine.ticker")


class Ticker:
    """Calls, every 20 ms, whoever wants it. Without anybody there is no timer."""

    def __init__(self) -> None:
        self._looks: list[Look] = []
        self._timer: asyncio.TimerHandle | None = None
        self._late = 0.0
        self._said = -math.inf

    def add(self, look: Look) -> None:
        """Call this at the next tick. It must not be waiting for it already."""
        self._looks.append(look)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)

    def _tick(self) -> None:
        assert self._timer is not None
        late = max(0.0, asyncio.get_running_loop().time() - self._timer.when())
        held_up, self._late = late + self._late, late
        self._timer = None
        looks, self._looks = self._looks, []
        for look in looks:
            try:
                again = look(held_up)
            except FAULTS as error:
                again = True
                self._say(error)
            if again:
                self.add(look)

    def _say(self, error: BaseException) -> None:
        if time.monotonic() - self._said > _SAY_EVERY:
            self._said = time.monotonic()
            log.error(N_("what looks after messages in memory failed, it goes on"), exc_info=error)
