"""The breaker: when an action fails for everybody, one probe goes out at a time; when that goes through, all lanes wake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from flowengine import Message, Reject, Result, Retry
from flowengine.delivery import breaker
from flowengine.delivery.breaker import Breaker
from flowengine.delivery.lanes import Lanes
from flowengine.testing import RunningFlow, running
from tests.flowengine.runtime.nodes import Told, answered


class FarEnd(Told):
    """Delivers while it is well; keeps how many were under way at once while it was not."""

    type = "far-end"

    def setup(self) -> None:
        super().setup()
        self.well = False
        self.under_way = self.most = 0

    async def deliver(self, msg: Message) -> Result | None:
        self._next(msg)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        if not self.well:
            raise Retry("down")
        return None


class OnTheSpot(Told):
    """Answers at once."""

    type = "on-the-spot"
    inline = True

    def deliver(self, msg: Message) -> None:
        answer = self._next(msg)
        if isinstance(answer, BaseException):
            raise answer


class Waits(Told):
    """Waits for what the test says."""

    type = "waits"

    async def deliver(self, msg: Message) -> None:
        await answered(self._next(msg))


@asynccontextmanager
async def action(type_: str, delivery: str = "") -> AsyncIterator[tuple[RunningFlow, Told, Lanes]]:
    text = f"flow: f\nchains:\n  main:\n    - test-in\n    - {type_}: {{}}\n"
    text += f"      delivery: {delivery}\n" if delivery else ""
    async with running(text, plugins=[FarEnd, OnTheSpot, Waits]) as flow:
        [run] = flow.engine.flows
        [lanes] = run.lanes
        node = lanes.action
        assert isinstance(node, Told)
        yield flow, node, lanes


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes go out one after the other."""
    monkeypatch.setattr(Breaker, "wait", lambda _self, _error: 0.001)


async def test_thousands_of_lanes_whose_action_is_down_send_one_probe_at_a_time_and_all_wake(soon: None) -> None:
    async with action("far-end") as (flow, node, lanes):
        assert isinstance(node, FarEnd)
        with capture_logs() as logs:
            outcomes = [flow.send(n, device=str(n)) for n in range(10_000)]
            await flow.until(lambda: lanes.breaker.open and not lanes.flying)
            node.attempts.clear()
            node.most = 0
            await flow.until(lambda: len(node.attempts) >= 50)
            assert node.most == 1
            assert len({msg.payload for msg in node.attempts[:50]}) == 50, "each probe is another device's"
            node.well = True
            for outcome in outcomes:
                assert (await outcome).state == "delivered"
        assert not lanes.breaker.open and not lanes.lanes and not lanes.held
        assert len([line for line in logs if line["log_level"] == "error"]) == 1, "it is said once"
        assert len([line for line in logs if line["event"] == "delivering again"]) == 1


async def test_while_it_is_open_newcomers_wait_too_and_order_stays(soon: None) -> None:
    async with action("far-end") as (flow, node, lanes):
        assert isinstance(node, FarEnd)
        first = [flow.send(n, device=str(n % 7)) for n in range(70)]
        await flow.until(lambda: lanes.breaker.open)
        late = [flow.send(n, device=str(n % 7)) for n in range(70, 140)]
        node.well = True
        for outcome in (*first, *late):
            assert (await outcome).state == "delivered"
        done = list(dict.fromkeys(reversed([msg.payload for msg in node.attempts])))[::-1]
        assert all([n for n in done if n % 7 == lane] == list(range(lane, 140, 7)) for lane in range(7))


async def test_one_sick_device_among_healthy_ones_does_not_open_it() -> None:
    async with action("waits") as (flow, node, lanes):
        for _ in range(3 * breaker.FAILURES):
            node.answers = [Retry("sick", after=3600)]
            flow.send("sick", device=str(len(node.attempts)))
            await flow.until(lambda: lanes._sleeping and not lanes.flying)
            assert (await flow.send("well", device="well")).state == "delivered"
        assert not lanes.breaker.open


async def test_what_goes_through_on_the_spot_counts_too() -> None:
    async with action("on-the-spot") as (flow, node, lanes):
        for number in range(3 * breaker.FAILURES):
            node.answers = [Retry("sick", after=3600)]
            flow.send("sick", device=str(number))
            assert flow.send("well", device="well").state == "delivered"
        assert not lanes.breaker.open


@pytest.mark.parametrize("last", [ValueError("a fault of the node"), Reject("no")])
async def test_a_probe_that_is_given_up_leaves_the_others_their_turn(soon: None, last: BaseException) -> None:
    async with action("waits") as (flow, node, lanes):
        node.answers = [*(Retry("down") for _ in range(breaker.FAILURES)), last]
        outcomes = [flow.send(n, device=str(n)) for n in range(breaker.FAILURES)]
        states = sorted([(await outcome).state for outcome in outcomes])
        assert states == ["dead", *["delivered"] * (breaker.FAILURES - 1)]
        assert not lanes.breaker.open


def _withdraw(outcomes: list[Message]) -> None:
    for msg in outcomes:
        msg.outcome.withdraw()


def _grow_old(messages: list[Message]) -> None:
    for msg in messages:
        msg.outcome.arrived -= 7200


@pytest.mark.parametrize(("worthless", "reason"), [(_withdraw, "withdrawn"), (_grow_old, "expired")])
async def test_what_became_worthless_while_the_action_was_down_is_dropped_and_never_sent(
    soon: None, worthless: Callable[[list[Message]], None], reason: str
) -> None:
    async with action("far-end", "{expire_after: 1h}") as (flow, node, lanes):
        assert isinstance(node, FarEnd)
        outcomes = [flow.send(n, device=str(n)) for n in range(20)]
        await flow.until(lambda: lanes.breaker.open and not lanes.flying)
        worthless([parcel.msg for lane in lanes.lanes.values() for parcel in lane.parcels])
        node.well = True
        before = len(node.attempts)
        assert {(await outcome).state for outcome in outcomes} == {"dropped"}
        assert flow.engine.books().reasons == {reason: 20}
        assert len(node.attempts) == before and not lanes.lanes


async def test_the_far_ends_own_word_says_when_the_next_probe_goes() -> None:
    one = Breaker()
    assert [one.failed() for _ in range(breaker.FAILURES + 1)] == [*[False] * (breaker.FAILURES - 1), True, False]
    assert one.wait(Retry("busy", after=30)) == 30
    assert all(0.2 <= one.wait(Retry("busy")) <= breaker.LONGEST for _ in range(100))
    assert one.worked() and not one.open and not one.worked()
