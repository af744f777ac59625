import asyncio
from collections.abc import Callable
from typing import cast

from flowengine_http.deadlines import Deadlines


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


class Exchange:
    """What is only ever cut off."""

    def __init__(self) -> None:
        self.cut = 0

    def cut_off(self) -> None:
        self.cut += 1


def deadlines() -> tuple[Clock, Deadlines[Exchange]]:
    clock = Clock()
    return clock, Deadlines(cast(asyncio.AbstractEventLoop, clock), Exchange.cut_off)


def begin(table: Deadlines[Exchange], due: float) -> Exchange:
    exchange = Exchange()
    table.begin(exchange, due)
    return exchange


def test_each_is_cut_off_at_its_own_time_whichever_came_first() -> None:
    clock, table = deadlines()
    late, soon, between = begin(table, 5), begin(table, 3), begin(table, 4)
    seen = []
    for now in (2.9, 3, 4, 5):
        clock.advance(now)
        seen.append((soon.cut, between.cut, late.cut))
    assert seen == [(0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1)]


def test_whoever_ends_in_time_is_not_cut_off() -> None:
    clock, table = deadlines()
    early, late = begin(table, 3), begin(table, 3)
    assert table.end(early)
    clock.advance(3)
    assert not early.cut
    assert late.cut and not table.end(late)


def test_a_thousand_exchanges_have_one_timer_and_none_is_left_when_all_are_done() -> None:
    clock, table = deadlines()
    rings = 0
    for number in range(1000):
        rings += any(timer.when <= number / 100 for timer in clock.timers)
        clock.advance(number / 100)
        exchange = begin(table, number / 100 + 1)
        assert len(clock.timers) == 1
        table.end(exchange)
    assert rings <= 10  # ten seconds, a timeout of one
    clock.advance(100)
    assert not clock.timers


def test_all_that_is_under_way_can_be_cut_off_at_once() -> None:
    clock, table = deadlines()
    early, one, other = begin(table, 1), begin(table, 3), begin(table, 4)
    table.end(early)
    assert table.cut_off_all() == [one, other]
    assert (early.cut, one.cut, other.cut) == (0, 1, 1)
    assert not clock.timers and not table.end(one)
