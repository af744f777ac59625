"""Faults of the backend: refusing, silent, slow, breaking off, gone, wrong about one device, one flow or one record."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from pathlib import Path

from aiohttp import web

from tests.faults.backend import (
    Behaviour,
    Call,
    Record,
    answers,
    applies_then_drops,
    breaks_off,
    drops,
    hangs,
    healthy,
    only,
    slow,
)
from tests.faults.rig import Rig, assert_nothing_lost, flow, full, rounds
from tests.support.engine import until

OPEN = "the action fails for everybody: one probe at a time from now on"


async def sick_for_a_while(rig: Rig, behaviour: Behaviour, *, stored: int = 40) -> None:
    """Under load the backend behaves so until so many records wait on the disk; then it is healthy."""
    async with rig.load():
        rig.backend.behave = behaviour
        await until(lambda: rig.stored >= full(stored, 20 * stored), f"{stored} rows in the outbox", 60)
        rig.backend.behave = healthy


async def test_503_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        await sick_for_a_while(rig, answers(503))
        await assert_nothing_lost(rig, repeats=False)


async def test_429_with_retry_after_is_heeded_and_loses_nothing(tmp_path: Path) -> None:
    refused: defaultdict[Record, list[float]] = defaultdict(list)

    async def busy(call: Call) -> web.StreamResponse:
        refused[call.record].append(time.monotonic())
        return call.answer(429, Retry_After="1")

    async with Rig(tmp_path) as rig:
        async with rig.load():
            rig.backend.behave = busy
            await until(lambda: sum(map(len, refused.values())) >= full(10, 40), "refusals", 60)
            rig.backend.behave = healthy
        waits = [b - a for times in refused.values() for a, b in itertools.pairwise(times)]
        assert waits
        assert min(waits) >= 0.99, "a record came again before the Retry-After was over"
        await assert_nothing_lost(rig, repeats=False)


async def test_a_backend_that_hangs_loses_nothing(tmp_path: Path) -> None:
    async with Rig(tmp_path, flows={"rig": flow(post="timeout: 1s")}) as rig:
        await sick_for_a_while(rig, hangs, stored=200)
        await assert_nothing_lost(rig, repeats=False)


async def test_a_slow_backend_gets_everything_once_and_in_order(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        async with rig.load():
            rig.backend.behave = slow(full(1.0, 5.0))
            before = rig.backend.requests
            await until(lambda: rig.backend.requests >= before + full(13, 30), "slow answers", 60)
            rig.backend.behave = healthy
        await assert_nothing_lost(rig, repeats=False)


async def test_a_backend_that_resets_connections_loses_nothing(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        await sick_for_a_while(rig, drops)
        await assert_nothing_lost(rig, repeats=False)


async def test_an_answer_that_breaks_off_is_no_yes_and_what_comes_again_has_its_key(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        await sick_for_a_while(rig, breaks_off)
        assert rig.repeats or rig.stored
        await assert_nothing_lost(rig)
        assert rig.repeats > 0


async def test_what_was_taken_before_the_connection_dropped_comes_again_with_its_key(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        await sick_for_a_while(rig, applies_then_drops)
        await assert_nothing_lost(rig)
        assert rig.repeats > 0


async def test_a_backend_that_is_gone_loses_nothing(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        async with rig.load():
            await rig.backend.stop()
            await until(lambda: rig.stored >= full(100, 3000), "rows in the outbox", 60)
            await rig.backend.start()
        await assert_nothing_lost(rig)


async def test_a_backend_sick_for_one_device_holds_no_other(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        sick = rig.devices[0]

        def all_but_the_sick_have_arrived() -> bool:
            return all(record.device == sick for record in rig.missing())

        async with rig.load():
            arrived = len(rig.backend.arrived[sick])
            rig.backend.behave = only(lambda call: call.record.device == sick, answers(503))
            before = len(rig.publisher.acknowledged)
            await until(lambda: len(rig.publisher.acknowledged) >= before + full(200, 5000), "records", 60)
        await until(all_but_the_sick_have_arrived, "all records of the other devices")
        assert len(rig.backend.arrived[sick]) <= arrived + 1
        assert rig.missing()
        assert not rig.engine.named(OPEN), "one sick device has stopped all"
        rig.backend.behave = healthy
        await assert_nothing_lost(rig, repeats=False)


async def test_a_backend_sick_for_one_flow_holds_no_other(tmp_path: Path) -> None:
    first, second = ["a1", "a2", "a3"], ["b1", "b2", "b3"]
    flows = {
        "first": flow("first", devices=first, path="first"),
        "second": flow("second", devices=second, path="second"),
    }
    async with Rig(tmp_path, flows=flows, devices=[*first, *second]) as rig:
        async with rig.load():
            rig.backend.behave = only(lambda call: call.request.path == "/second", answers(503))
            await rig.engine.until(OPEN)
            before = len(rig.publisher.acknowledged)
            await until(lambda: len(rig.publisher.acknowledged) >= before + full(200, 5000), "records", 60)
        await until(lambda: all(record.device in second for record in rig.missing()), "all records of the first flow")
        assert rig.missing()
        assert [entry["node"] for entry in rig.engine.named(OPEN)] == ["second/records/http-post"]
        rig.backend.behave = healthy
        await assert_nothing_lost(rig, repeats=False)


async def test_a_record_that_always_fails_is_given_up_and_its_device_goes_on(tmp_path: Path) -> None:
    async with Rig(tmp_path, flows={"rig": flow(delivery="give_up_after: 2s")}) as rig:
        bad = Record(rig.devices[0], 20)
        rig.backend.behave = only(lambda call: call.record == bad, answers(500, {"why": "this one"}))
        async with rig.load(after=200):
            pass
        await assert_nothing_lost(rig, repeats=False, dead=1)
        (letter,) = rig.dead()
        assert letter.record == bad
        assert letter.node == "rig/records/http-post"
        assert "500" in letter.reason
        assert letter.attempts > 1
        assert max(rig.backend.arrived[bad.device]) > bad.number


async def test_a_200_whose_body_says_no_is_tried_again_or_dead_as_the_flow_says(tmp_path: Path) -> None:
    judging = "success_when: result.body.code == 0, reject_when: result.body.code == 400"
    bad = Record("d0000", 20)

    async def well(call: Call) -> web.StreamResponse:
        call.apply()
        return call.answer(200, {"code": 0})

    taking = only(lambda call: call.record == bad, answers(200, {"code": 400, "why": "no such person"}), well)
    async with Rig(tmp_path, flows={"rig": flow(post=judging)}) as rig:
        rig.backend.behave = taking
        async with rig.load(after=100):
            rig.backend.behave = answers(200, {"code": 500})
            await until(lambda: rig.stored >= 40, "rows in the outbox")
            rig.backend.behave = taking
        await assert_nothing_lost(rig, repeats=False, dead=1)
        (letter,) = rig.dead()
        assert letter.record == bad
        assert "no such person" in letter.reason


async def test_a_host_that_cannot_be_resolved_is_waited_for(tmp_path: Path) -> None:
    async with Rig(tmp_path, flows={"rig": flow(url="http://backend.invalid:6688")}) as rig:
        await rig.publisher.burst(full(20, 200))
        await until(lambda: rig.stored == len(rig.publisher.sent), "all records in the outbox")
        said = rig.engine.named("delivery failed, it is tried again")
        assert "cannot connect to http://backend.invalid:6688" in said[0]["reason"]
        assert await rig.engine.stop() == 0
        rig.write("rig", flow())  # the name resolves again
        await rig.engine.start()
        await assert_nothing_lost(rig, repeats=False)


async def test_after_an_outage_every_lane_wakes_and_all_arrives_in_order(tmp_path: Path) -> None:
    async with Rig(tmp_path, devices=full(1_000, 10_000)) as rig:
        rig.backend.behave = answers(503)
        await rig.publisher.burst(3)
        await until(lambda: rig.stored == len(rig.publisher.sent), "all records in the outbox", 120)
        lasts = time.monotonic() + full(0, 120)
        await until(lambda: time.monotonic() >= lasts, "a longer outage", 200)
        assert not rig.backend.times
        rig.backend.behave = healthy
        await assert_nothing_lost(rig, repeats=False)


async def test_batches_lose_nothing_over_503_and_kill_9_and_keep_the_order_of_each_device(tmp_path: Path) -> None:
    batches = flow(post="batch: {max: 5, wait: 10ms}")
    async with Rig(tmp_path, flows={"rig": batches}) as rig:
        for _round in range(rounds(1)):
            async with rig.load():
                rig.backend.behave = answers(503)
                await until(lambda: rig.stored >= full(40, 400), "rows in the outbox", 60)
                await rig.engine.kill()
                await rig.engine.start()
                rig.backend.behave = healthy
                left = rig.stored
                await until(lambda left=left: rig.stored < left, "rows that have left", 60)  # type: ignore[misc]
                await rig.engine.kill()
                await rig.engine.start()
        assert rig.backend.requests < sum(rig.backend.attempts.values()), "no batch held several records"
        await assert_nothing_lost(rig, dead=None if rounds(1) > 1 else 0)
