import asyncio
from collections.abc import Callable
from typing import Any, cast

from flowengine_http.deadlines import Deadlines
from flowengine_http.wire import Wire


class Clock:
    """The loop's clock and timers, moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: dict[Timer, Callable[[], None]] = {}

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> "Timer":
        timer = Timer(self, when)
        self.timers[timer] = callback
        return timer

    def advance(self, now: float) -> None:
        self.now = now
        while due := [timer for timer in self.timers if timer.when <= now]:
            self.timers.pop(due[0])()


class Timer:
    def __init__(self, clock: Clock, when: float) -> None:
        self.clock = clock
        self.when = when

    def cancel(self) -> None:
        self.clock.timers.pop(self, None)


class Connected:
    """A connection that is only ever aborted."""

    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


def deadlines() -> tuple[Clock, Deadlines]:
    clock = Clock()
    return clock, Deadlines(cast(asyncio.AbstractEventLoop, clock))


def begin(table: Deadlines, due: float) -> Any:
    connection = Connected()
    table.begin(cast(Wire, connection), due)
    return connection


def test_each_is_cut_off_at_its_own_time_whichever_came_first() -> None:
    clock, table = deadlines()
    late, soon, between = begin(table, 5), begin(table, 3), begin(table, 4)
    seen = []
    for now in (2.9, 3, 4, 5):
        clock.advance(now)
        seen.append((soon.aborted, between.aborted, late.aborted))
    assert seen == [(False, False, False), (True, False, False), (True, True, False), (True, True, True)]


def test_whoever_ends_in_time_is_not_cut_off() -> None:
    clock, table = deadlines()
    early, late = begin(table, 3), begin(table, 3)
    assert table.end(early)
    clock.advance(3)
    assert not early.aborted
    assert late.aborted and not table.end(late)


def test_a_thousand_exchanges_have_one_timer_and_none_is_left_when_all_are_done() -> None:
    clock, table = deadlines()
    rings = 0
    for number in range(1000):
        rings += any(timer.when <= number / 100 for timer in clock.timers)
        clock.advance(number / 100)
        connection = begin(table, number / 100 + 1)
        assert len(clock.timers) == 1
        table.end(connection)
    assert rings <= 10  # ten seconds, a timeout of one
    clock.advance(100)
    assert not clock.timers
