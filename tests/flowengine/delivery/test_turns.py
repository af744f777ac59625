"""Turns: how many lanes are under way at once, and which."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flowengine import Action, Message
from flowengine.delivery import width
from flowengine.runtime import engine as runtime_engine
from flowengine.testing import RunningFlow, running

FLOW = "flow: f\nchains:\n  main: [test-in, {far-end: {}}]\n"
STORED_BY_REQUEST = FLOW.replace("{far-end: {}}", "{far-end: {}, delivery: {store_after: 1h}}")


class FarEnd(Action):
    """Answers when it is told to, or at once, and knows how many were under way with it."""

    type = "far-end"

    def setup(self) -> None:
        self.holds = True
        self.waiting: list[tuple[Any, asyncio.Future[None]]] = []
        self.under_way = self.most = 0
        self.order: list[Any] = []

    async def deliver(self, msg: Message) -> None:
        self.order.append(msg.payload)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        if self.holds:
            answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.waiting.append((msg.payload, answer))
            await answer
        else:
            await asyncio.sleep(0)
        self.under_way -= 1

    def answer(self) -> None:
        """Answer all that wait."""
        waiting, self.waiting = self.waiting, []
        for _payload, answer in waiting:
            answer.set_result(None)


@asynccontextmanager
async def flow_of(text: str, state: Path | None = None) -> AsyncIterator[tuple[RunningFlow, FarEnd]]:
    async with running(text, plugins=[FarEnd], state=state) as flow:
        far_end = flow.engine.flows[0].lanes[0].action
        assert isinstance(far_end, FarEnd)
        yield flow, far_end
        far_end.holds = False
        far_end.answer()


async def test_a_far_end_that_answers_at_once_has_few_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(width, "_LONG", 60.0)
    async with flow_of(FLOW) as (flow, far_end):
        far_end.holds = False
        outcomes = [flow.send(number, device=str(number)) for number in range(200)]
        await asyncio.gather(*(wait(outcome) for outcome in outcomes))
        assert far_end.most == width.NARROW


async def test_more_are_under_way_at_a_far_end_that_takes_long_and_fewer_again_when_it_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(width, "_CALM_TURNS", 3)
    async with flow_of(FLOW) as (flow, far_end):
        outcomes = [flow.send(number, device=str(number)) for number in range(40)]
        await flow.until(lambda: far_end.under_way == 40)
        far_end.holds = False
        far_end.answer()
        await asyncio.gather(*(wait(outcome) for outcome in outcomes))
        monkeypatch.setattr(width, "_LONG", 60.0)
        for number in range(8):
            await flow.send(number, device="one at a time")
        far_end.most = 0
        outcomes = [flow.send(number, device=str(number)) for number in range(100)]
        await asyncio.gather(*(wait(outcome) for outcome in outcomes))
        assert far_end.most == width.NARROW


async def test_more_are_under_way_again_also_while_workers_of_before_are_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(width, "_CALM_TURNS", 3)
    async with flow_of(FLOW) as (flow, far_end):
        turns = flow.engine.flows[0].lanes[0].turns
        for devices in (40, 20):
            far_end.holds = True
            outcomes = [flow.send(number, device=str(number)) for number in range(devices)]
            await flow.until(partial(under_way, far_end, devices))
            far_end.holds = False
            far_end.answer()
            await asyncio.gather(*(wait(outcome) for outcome in outcomes))
            for number in range(8):
                await flow.send(number, device="one at a time")
            await flow.until(lambda: turns.width._timer is None)
            assert turns.width.now == width.NARROW < len(turns._idle)


async def test_a_lane_that_has_fallen_behind_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """PUBACKs go out in the order of arrival: what is oldest holds up those of all others."""
    monkeypatch.setattr(width, "NARROW", 2)
    monkeypatch.setattr(width, "_LONG", 60.0)
    async with flow_of(FLOW) as (flow, far_end):
        outcomes = [flow.send(f"behind {number}", device="behind") for number in range(4)]
        outcomes += [flow.send(f"other {number}", device=str(number)) for number in range(4)]
        await flow.until(lambda: len(far_end.waiting) == 2)
        far_end.holds = False
        far_end.answer()
        await asyncio.gather(*(wait(outcome) for outcome in outcomes))
        assert far_end.order.index("behind 2") < far_end.order.index("other 3")


async def test_the_oldest_are_stored_when_room_is_wanted_and_no_more(tmp_path: Path) -> None:
    async with flow_of(STORED_BY_REQUEST, tmp_path) as (flow, far_end):
        outcomes = [flow.send(number, device=str(number)) for number in range(8)]
        await flow.until(lambda: far_end.under_way == 8)
        flow.engine._press()
        await flow.until(lambda: [outcome.state for outcome in outcomes[:2]] == ["stored", "stored"])
        assert {outcome.state for outcome in outcomes[2:]} == {"pending"}
        assert flow.engine.outbox is not None
        assert flow.engine.outbox.puts == 2


async def test_whoever_wants_room_all_the_time_has_it_soon_only_where_memory_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else everything would go by the disk where more comes than a healthy far end takes."""
    monkeypatch.setattr(runtime_engine, "_PER_STORED", 60.0)
    monkeypatch.setattr(runtime_engine, "TICK", 60.0)
    for folder, bound in (("roomy", None), ("short", 700)):  # of which 600 will be used
        async with flow_of(STORED_BY_REQUEST, tmp_path / folder) as (flow, far_end):
            engine = flow.engine
            outcomes = [flow.send(b"a" * 100, device=str(number)) for number in range(8)]
            await flow.until(lambda far_end=far_end: far_end.under_way == 8)  # type: ignore[misc]
            engine._press()
            await flow.until(lambda outcomes=outcomes: outcomes[1].state == "stored")  # type: ignore[misc]
            engine.budget.bound = bound or engine.budget.bound
            engine._press()
            await asyncio.sleep(0.05)
            assert engine.outbox is not None
            assert engine.outbox.puts == (4 if bound else 2)


def under_way(far_end: FarEnd, count: int) -> bool:
    return far_end.under_way == count


async def wait(outcome: Any) -> None:
    """For `gather`, which takes no plain awaitable twice."""
    await outcome
