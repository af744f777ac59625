"""Deadlines of many exchanges with one timer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Deadlines(Generic[T]):
    """What is under way, and until when; `cut_off` is called with what is past its deadline, once.

    None arms a timer of its own (`asyncio.timeout` costs a POST some 8 %). The one timer is set to the earliest deadline; when
    it rings, that exchange is mostly long done, and it is set to what is the earliest by then: about once per timeout.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, cut_off: Callable[[T], object]) -> None:
        self._loop = loop
        self._cut_off = cut_off
        self._due: dict[T, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf

    def begin(self, exchange: T, due: float) -> None:
        """It is under way, until `due` in the loop's time at the latest."""
        self._due[exchange] = due
        if due < self._rings_at:
            self._set(due)

    def end(self, exchange: T) -> bool:
        """It is over; whether it was still in time."""
        return self._due.pop(exchange, None) is not None

    def cut_off_all(self) -> list[T]:
        """Cut off all that is under way; what that was."""
        self._set(math.inf)
        return self._cut(list(self._due))

    def _set(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = at
        self._timer = None if at == math.inf else self._loop.call_at(at, self._ring)

    def _ring(self) -> None:
        now = self._loop.time()
        self._cut([exchange for exchange, due in self._due.items() if due <= now])
        self._set(min(self._due.values(), default=math.inf))

    def _cut(self, exchanges: list[T]) -> list[T]:
        for exchange in exchanges:
            del self._due[exchange]
            self._cut_off(exchange)
        return exchanges
