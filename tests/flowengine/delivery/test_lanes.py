"""Lanes: what is promised of the messages of one device, and of many, on their way to one action."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest
from structlog.testing import capture_logs

from flowengine import Action, Drop, Message, Reject, Result, Retry
from flowengine.delivery import breaker, retry
from flowengine.delivery.lanes import Lanes
from flowengine.testing import RunningFlow, message, running
from tests.flowengine.runtime.nodes import SCRIPTED, Scripted, Told, answered


class InThread(Action):
    """Delivers in a thread, where the test tells it to."""

    type = "in-thread"
    do: Callable[[Message], Any]

    def deliver(self, msg: Message) -> Any:
        return self.do(msg)


class Either(Told):
    """Gives back a coroutine from a plain `deliver`, which is neither `async def` nor inline."""

    type = "either"

    def deliver(self, msg: Message) -> Any:
        return answered(self._next(msg))


class Eager(Scripted):
    """Wants more at once than others."""

    type = "eager"

    @property
    def at_once(self) -> int:
        return 40


@asynccontextmanager
async def action(type_: str = "scripted", delivery: str = "") -> AsyncIterator[tuple[RunningFlow, Any, Lanes]]:
    """A flow that is a source and one action; the flow, the action and its lanes."""
    extra = f"\n      delivery: {delivery}" if delivery else ""
    text = f"flow: f\nchains:\n  main:\n    - test-in: {{metadata: [door]}}\n    - {type_}: {{}}{extra}\n"
    async with running(text, plugins=[*SCRIPTED, InThread, Either, Eager]) as flow:
        [run] = flow.engine.flows
        [lanes] = run.lanes
        yield flow, lanes.action, lanes


def future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


def payloads(node: Told) -> list[Any]:
    return [msg.payload for msg in node.attempts]


BOTH = pytest.mark.parametrize("type_", ["scripted", "inline", "either"])


@BOTH
async def test_the_messages_of_a_device_are_delivered_in_order_one_at_a_time(type_: str) -> None:
    async with action(type_) as (flow, node, lanes):
        gate = future()
        node.answers = [gate]
        outcomes = [flow.send(n, device="7") for n in range(5)]
        await flow.until(lambda: node.attempts)
        await asyncio.sleep(0)
        assert payloads(node) == [0] and lanes.waiting() == 5
        gate.set_result(None)
        for outcome in outcomes:
            await outcome
        assert payloads(node) == [0, 1, 2, 3, 4]


@BOTH
async def test_devices_do_not_wait_for_one_another(type_: str) -> None:
    async with action(type_) as (flow, node, _lanes):
        gate = future()
        node.answers = [gate]
        slow = flow.send("slow", device="1")
        await flow.until(lambda: node.attempts)
        assert (await flow.send("quick", device="2")).state == "delivered"
        assert slow.state == "pending"
        gate.set_result(None)
        assert (await slow).state == "delivered"


@BOTH
async def test_a_head_that_waits_for_its_next_attempt_holds_its_own_lane_only(
    type_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "SHORTEST_AFTER", 0.2)
    async with action(type_) as (flow, node, _lanes):
        node.answers = [Retry("busy", after=0)]
        first = flow.send("a1", device="a")
        second = flow.send("a2", device="a")
        await flow.until(lambda: node.attempts)
        await flow.send("b1", device="b")
        assert (first.state, second.state) == ("pending", "pending")
        await second
        assert first.state == "delivered"
        assert payloads(node) == ["a1", "b1", "a1", "a2"]


async def test_without_a_device_the_topic_makes_the_lane_and_without_either_there_is_no_order() -> None:
    async with action() as (flow, node, lanes):
        node.answers = [gates := future(), gates, gates]
        for _ in range(2):
            flow.send("t", topic="x")
        for _ in range(2):
            flow.send("n")
        await flow.until(lambda: len(node.attempts) == 3)
        assert len(lanes.lanes) == 3 and lanes.waiting() == 4
        gates.set_result(None)
        await flow.until(lambda: not lanes.lanes)


async def test_a_device_that_is_no_text_has_a_lane_too() -> None:
    async with action() as (flow, node, lanes):
        node.answers = [gate := future(), gate, gate, gate]
        for device in (12, [1, 2], [1, 2], {"a": 1}, 1.5):
            flow.send(1, device=device)
        await flow.until(lambda: len(node.attempts) == 4)
        assert len(lanes.lanes) == 4
        gate.set_result(None)
        await flow.until(lambda: not lanes.lanes)


async def test_order_by_makes_the_lanes() -> None:
    async with action(delivery='{order_by: "{door}"}') as (flow, node, lanes):
        node.answers = [gate := future(), gate]
        for door in "aab":
            flow.send(door, door=door, device="same")
        await flow.until(lambda: len(node.attempts) == 2)
        assert set(lanes.lanes) == {"a", "b"}
        gate.set_result(None)
        await flow.until(lambda: not lanes.lanes)
        assert "'door'" in (await flow.send(1)).reason


async def test_order_by_none_gives_order_up() -> None:
    async with action(delivery="{order_by: none}") as (flow, node, _lanes):
        node.answers = [gate := future(), gate, gate]
        outcomes = [flow.send(n, device="7") for n in range(3)]
        await flow.until(lambda: len(node.attempts) == 3)
        gate.set_result(None)
        for outcome in outcomes:
            await outcome


@BOTH
async def test_no_more_are_in_flight_than_concurrency_says(type_: str) -> None:
    async with action(type_, "{concurrency: 3}") as (flow, node, _lanes):
        gates = [future() for _ in range(10)]
        node.answers = [*gates]
        outcomes = [flow.send(n, device=str(n)) for n in range(10)]
        await flow.until(lambda: len(node.attempts) == 3)
        for number, gate in enumerate(gates):
            started = min(number + 3, 10)
            while len(node.attempts) < started:
                await asyncio.sleep(0.001)
            assert len(node.attempts) == started
            gate.set_result(None)
        for outcome in outcomes:
            await outcome
        assert payloads(node) == list(range(10))


@pytest.mark.parametrize(
    ("type_", "delivery", "most"), [("scripted", "", 128), ("eager", "", 40), ("eager", "{concurrency: 2}", 2)]
)
async def test_an_action_says_how_many_it_wants_at_once_unless_the_flow_does(
    type_: str, delivery: str, most: int
) -> None:
    async with action(type_, delivery) as (flow, node, lanes):
        gates = [future() for _ in range(150)]
        node.answers = [*gates]
        outcomes = [flow.send(n, device=str(n)) for n in range(150)]
        await flow.until(lambda: len(lanes.turns.flying) == most)
        assert len(node.attempts) == most
        for gate in gates:
            gate.set_result(None)
        for outcome in outcomes:
            await outcome


async def test_an_action_is_told_when_a_message_goes_alone_as_a_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST", 0.01)
    monkeypatch.setattr(breaker, "LONGEST", 0.05)
    async with action("in-thread") as (flow, node, _lanes):
        told: list[bool] = []

        def fail_at_first(msg: Message) -> None:
            told.append(node.alone())
            if len(told) <= breaker.FAILURES:
                raise Retry("busy")

        node.do = fail_at_first
        assert not node.alone()
        assert (await flow.send(1, device="7")).state == "delivered"
        assert told == [False] * breaker.FAILURES + [True]
        assert not node.alone()


async def test_lanes_that_became_ready_first_go_first() -> None:
    async with action("inline", "{concurrency: 1}") as (flow, node, _lanes):
        node.answers = [gate := future()]
        last = [flow.send(n, device=str(n)) for n in range(5)][-1]
        gate.set_result(None)
        await last
        assert payloads(node) == [0, 1, 2, 3, 4]


@BOTH
async def test_network_errors_are_retried_and_other_exceptions_are_not(type_: str) -> None:
    async with action(type_) as (flow, node, _lanes):
        node.answers = [Retry("not now", after=0), Retry("nor now", after=0)]
        assert (await flow.send(1, device="7")).state == "delivered"
        assert len(node.attempts) == 3
        for refusal, reason in (
            (Reject("no"), "no"),
            (ValueError("x"), "ValueError: x"),
            (SystemExit(2), "SystemExit: 2"),
        ):
            node.answers = [refusal]
            outcome = await flow.send(2, device="7")
            assert (outcome.state, outcome.reason) == ("dead", reason)
        assert (await flow.send(3, device="7")).state == "delivered"


@BOTH
@pytest.mark.parametrize(
    "error", [ConnectionResetError(), TimeoutError(), OSError(28, "full"), asyncio.CancelledError()]
)
async def test_an_attempt_that_the_network_or_its_own_cancellation_ended_is_made_again(
    type_: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FIRST", 0.0)
    async with action(type_) as (flow, node, _lanes):
        node.answers = [error]
        assert (await flow.send(1, device="7")).state == "delivered"
        assert len(node.attempts) == 2


async def test_a_future_that_somebody_cancelled_is_no_end_of_the_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST", 0.0)
    async with action("inline") as (flow, node, _lanes):
        node.answers = [gate := future()]
        outcome = flow.send(1, device="7")
        gate.cancel()
        assert (await outcome).state == "delivered"


async def test_a_message_is_given_up_when_its_time_is_over_and_the_next_has_its_own() -> None:
    async with action(delivery="{give_up_after: 0s}") as (flow, node, _lanes):
        node.answers = [Retry("busy", after=0, status=503)]
        first, second = flow.send(1, device="7"), flow.send(2, device="7")
        assert (await first).state == "dead"
        assert "busy" in first.reason and "1 attempts" in first.reason
        assert (await second).state == "delivered"


async def test_on_error_hears_how_often_it_was_tried_and_the_last_status() -> None:
    text = """
flow: f
chains:
  main:
    - test-in
    - scripted:
      delivery: {give_up_after: 0.01s}
      on_error: [test-out]
"""
    async with running(text, plugins=SCRIPTED) as flow:
        node = flow.engine.flows[0].lanes[0].action
        assert isinstance(node, Told)
        node.answers = [Retry("busy", after=0, status=503) for _ in range(2)]
        assert (await flow.send(1, device="7")).state == "delivered"
        error = flow.sent[0].error
        assert error is not None and (error.status, error.attempts, error.node) == (503, 2, "f/main/scripted")


@BOTH
async def test_what_is_too_old_when_its_turn_comes_is_dropped_as_expired(type_: str) -> None:
    async with action(type_, "{expire_after: 0s}") as (flow, node, _lanes):
        assert (await flow.send(1, device="7")).state == "dropped"
        assert node.attempts == []
        assert flow.engine.books().reasons == {"expired": 1}
    async with action(type_, "{expire_after: 1h}") as (flow, node, _lanes):
        assert (await flow.send(1, device="7")).state == "delivered"


async def test_an_action_is_told_how_long_a_message_is_worth_delivering() -> None:
    async with action(delivery="{expire_after: 1h}") as (_flow, node, _lanes):
        left = node.time_left(message())
        assert left is not None and 3590.0 < left <= 3600.0
    async with action() as (_flow, node, _lanes):
        assert node.time_left(message()) is None


async def test_a_clock_that_is_set_while_a_message_waits_does_not_make_it_old(monkeypatch: pytest.MonkeyPatch) -> None:
    async with action(delivery="{expire_after: 1h}") as (flow, node, _lanes):
        node.answers = [gate := future()]
        flow.send(1, device="7")
        second = flow.send(2, device="7")
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 10 * 365 * 86400)
        gate.set_result(None)
        assert (await second).state == "delivered"


@BOTH
async def test_what_is_withdrawn_before_its_turn_is_dropped_and_what_is_in_flight_is_not(type_: str) -> None:
    async with action(type_) as (flow, node, _lanes):
        node.answers = [gate := future()]
        first, second = flow.send(1, device="7"), flow.send(2, device="7")
        await flow.until(lambda: node.attempts)
        first.withdraw()
        second.withdraw()
        gate.set_result(None)
        assert ((await first).state, (await second).state) == ("delivered", "dropped")
        assert payloads(node) == [1]


async def test_what_is_withdrawn_on_its_way_is_not_delivered_on_the_spot_either() -> None:
    text = "{flow: f, chains: {main: [test-in, scripted: {}, inline: {}]}}"
    async with running(text, plugins=SCRIPTED) as flow:
        slow, quick = (lanes.action for lanes in flow.engine.flows[0].lanes)
        assert isinstance(slow, Told) and isinstance(quick, Told)
        slow.answers = [gate := future()]
        outcome = flow.send(1, device="7")
        await flow.until(lambda: slow.attempts)
        outcome.withdraw()
        gate.set_result(None)
        assert (await outcome).state == "dropped"
        assert quick.attempts == []


async def test_id_from_is_the_id_of_every_attempt() -> None:
    async with action(delivery='{id_from: "{device}/{payload.n}"}') as (flow, node, _lanes):
        node.answers = [Retry("busy", after=0)]
        await flow.send({"n": 5}, device="7")
        assert [msg.id for msg in node.attempts] == ["7/5", "7/5"]


async def test_a_message_without_what_id_from_asks_for_is_dead_and_leaves_no_lane() -> None:
    async with action(delivery='{id_from: "{payload.n}"}') as (flow, node, lanes):
        outcome = await flow.send({}, device="7")
        assert outcome.state == "dead" and outcome.reason.startswith("'n' is missing")
        assert not lanes.lanes and node.attempts == []


@BOTH
@pytest.mark.parametrize("garbage", [True, False, "ok", {}, 200])
async def test_what_is_no_answer_does_not_count_as_delivered(type_: str, garbage: Any) -> None:
    async with action(type_) as (flow, node, _lanes):
        node.answers = [garbage]
        outcome = await flow.send(1, device="7")
        assert outcome.state == "dead" and type(garbage).__name__ in outcome.reason


@BOTH
async def test_a_drop_and_a_result_are_answers(type_: str) -> None:
    async with action(type_) as (flow, node, _lanes):
        node.answers = [Drop("offline"), Result(status=201)]
        assert (await flow.send(1, device="7")).state == "dropped"
        assert (await flow.send(1, device="7")).state == "delivered"
        assert flow.engine.books().reasons == {"offline": 1}


async def test_a_plain_deliver_runs_in_a_thread_beside_the_loop() -> None:
    async with action("in-thread") as (flow, node, _lanes):
        threads: list[threading.Thread] = []
        go = threading.Event()

        def do(msg: Message) -> Result:
            threads.append(threading.current_thread())
            assert go.wait(10)
            return Result(status=msg.payload)

        node.do = do
        outcomes = [flow.send(n, device=str(n)) for n in range(3)]
        await flow.until(lambda: len(threads) == 3)
        go.set()
        for outcome in outcomes:
            assert (await outcome).state == "delivered"
        assert threading.main_thread() not in threads


@pytest.mark.parametrize("error", [StopIteration(1), SystemExit(1), ValueError(1)])
async def test_what_a_thread_raises_is_the_messages_own(error: BaseException) -> None:
    async with action("in-thread") as (flow, node, _lanes):

        def do(_msg: Message) -> None:
            raise error

        node.do = do
        outcome = await flow.send(1, device="7")
        assert outcome.state == "dead" and type(error).__name__ in outcome.reason
        node.do = lambda _msg: None
        assert (await flow.send(1, device="7")).state == "delivered"


async def test_threads_end_with_the_engine_and_one_that_hangs_does_not_hold_it() -> None:
    go = threading.Event()

    def hang(_msg: Message) -> None:
        go.wait(20)

    try:
        async with action("in-thread") as (flow, node, _lanes):
            node.do = hang
            flow.send(1, device="7")
            flow.engine.hurry.set()
        mine = [t for t in threading.enumerate() if t.name == "f/main/in-thread"]
        assert all(thread.daemon for thread in mine)
        assert flow.engine.pending() == 1
    finally:
        go.set()
    for thread in mine:
        thread.join(10)
        assert not thread.is_alive()


async def test_what_is_answered_on_the_spot_makes_no_task_and_no_lane() -> None:
    async with action("inline") as (flow, node, lanes):
        before = asyncio.all_tasks()
        for number in range(100):
            outcome = flow.send(number, device=str(number))
            assert outcome.state == "delivered" and not lanes.lanes
        assert asyncio.all_tasks() == before
        assert len(node.attempts) == 100


async def test_ten_thousand_devices_leave_nothing_behind() -> None:
    async with action(delivery="{concurrency: 32}") as (flow, node, lanes):
        tasks = len(asyncio.all_tasks())
        outcomes = [flow.send("one of many", device=str(n)) for n in range(10_000)]
        for outcome in outcomes:
            await outcome
        assert not lanes.lanes and not lanes.turns.busy() and not lanes.turns.anyone_waits()
        assert len(asyncio.all_tasks()) - tasks <= 32
        node.attempts.clear()
        del outcomes, outcome
        gc.collect()
        assert not [found for found in gc.get_objects() if type(found) is Message and found.payload == "one of many"]


async def test_attempts_are_counted_for_each_message_by_itself() -> None:
    text = "{flow: f, chains: {main: [test-in, {scripted: {}, on_error: [test-out]}]}}"
    async with running(text, plugins=SCRIPTED) as flow:
        node = flow.engine.flows[0].lanes[0].action
        assert isinstance(node, Told)
        node.answers = [Retry("busy", after=0), Reject("no"), Reject("no")]
        for outcome in [flow.send(n, device="7") for n in range(2)]:
            await outcome
        assert [msg.error.attempts for msg in flow.sent if msg.error] == [2, 1]


async def test_a_lane_that_is_due_sooner_does_not_wait_for_one_that_sleeps_longer() -> None:
    async with action() as (flow, node, _lanes):
        node.answers = [Retry("busy", after=3600), Retry("busy", after=0)]
        late, soon = flow.send(1, device="1"), flow.send(2, device="2")
        assert (await soon).state == "delivered"
        assert late.state == "pending"


async def test_ten_thousand_sleeping_lanes_have_one_timer_and_all_rise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "SHORTEST_AFTER", 0.3)
    monkeypatch.setattr(breaker, "FAILURES", 10_001)  # else only a probe would be tried again, see test_breaker
    async with action() as (flow, node, lanes):
        node.answers = [Retry("down", after=0) for _ in range(10_000)]
        with capture_logs() as logs:
            outcomes = [flow.send(None, device=str(n)) for n in range(10_000)]
            for outcome in outcomes:
                await outcome
        assert len(node.attempts) == 20_000 and not lanes.turns.anyone_waits()
        assert len([line for line in logs if line["event"].startswith("delivery failed")]) < 100


@pytest.mark.parametrize("after", ["5", float("nan"), float("inf"), -1, 10**400, True])
async def test_a_time_that_makes_no_sense_does_not_lose_the_lane(after: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST", 0.0)
    monkeypatch.setattr(retry, "LONGEST_AFTER", 0.01)
    async with action() as (flow, node, _lanes):
        node.answers = [Retry("busy", after=after)]
        assert (await flow.send(1, device="7")).state == "delivered"


async def test_a_retry_of_an_author_who_forgot_its_reason_is_a_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare(Retry):
        def __init__(self) -> None:
            pass

    monkeypatch.setattr(retry, "FIRST", 0.0)
    async with action() as (flow, node, _lanes):
        node.answers = [Bare()]
        assert (await flow.send(1, device="7")).state == "delivered"


async def test_after_an_action_the_chain_goes_on_in_the_order_of_the_lane() -> None:
    text = "{flow: f, chains: {main: [test-in, scripted: {}, test-out: {}]}}"
    async with running(text, plugins=SCRIPTED) as flow:
        outcomes = [flow.send(n, device="7") for n in range(100)]
        for outcome in outcomes:
            await outcome
        assert [msg.payload for msg in flow.sent] == list(range(100))
        assert all(msg.result == Result() for msg in flow.sent)


class Stubborn(Action):
    """Does not let itself be cancelled, once."""

    type = "stubborn"
    inline: ClassVar[bool] = False

    async def deliver(self, msg: Message) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)


async def test_a_stop_ends_also_an_attempt_that_swallows_its_cancellation() -> None:
    async with running("{flow: f, chains: {main: [test-in, stubborn]}}", plugins=[Stubborn]) as flow:
        flow.send(1, device="7")
        await flow.until(lambda: flow.engine.flows[0].lanes[0].turns.flying)
        flow.engine.hurry.set()
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
