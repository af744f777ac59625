import asyncio
import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from flowengine.delivery.ticker import TICK, Ticker


async def test_all_have_one_timer_and_none_is_left_when_nobody_wants_a_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    timers: list[float] = []
    call_later = loop.call_later

    def counted(delay: float, *more: Any) -> asyncio.TimerHandle:
        timers.append(delay)
        return call_later(delay, *more)

    monkeypatch.setattr(loop, "call_later", counted)
    ticker = Ticker()
    left = dict.fromkeys(range(200), 3)
    over = asyncio.Event()

    def looks(number: int) -> bool:
        left[number] -= 1
        if not any(left.values()):
            over.set()
        return left[number] > 0

    for number in left:
        ticker.add(lambda _held_up, number=number: looks(number))  # type: ignore[misc]
    await asyncio.wait_for(over.wait(), 10)
    await asyncio.sleep(3 * TICK)
    assert set(left.values()) == {0}
    assert timers.count(TICK) == 3


async def test_one_that_fails_takes_no_other_down_is_called_again_and_said_once() -> None:
    ticker = Ticker()
    calls = []
    enough = asyncio.Event()

    def fails(_held_up: float) -> bool:
        calls.append("fails")
        raise ValueError("why")

    def looks(_held_up: float) -> bool:
        calls.append("looks")
        if calls.count("looks") == 3:
            enough.set()
        return True

    with capture_logs() as said:
        ticker.add(fails)
        ticker.add(looks)
        await asyncio.wait_for(enough.wait(), 10)
    assert calls[:6] == ["fails", "looks"] * 3
    assert len(said) == 1
    assert str(said[0]["exc_info"]) == "why"


async def test_it_says_for_how_long_the_loop_was_held_up_and_once_more_after_that() -> None:
    ticker = Ticker()
    told: list[float] = []
    enough = asyncio.Event()

    def looks(held_up: float) -> bool:
        told.append(held_up)
        if len(told) == 3:
            enough.set()
        return True

    ticker.add(looks)
    time.sleep(TICK + 0.2)
    await asyncio.wait_for(enough.wait(), 10)
    assert told[0] >= 0.2
    assert told[1] >= 0.2  # the answers of that time are read after the first tick
