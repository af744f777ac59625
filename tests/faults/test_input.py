"""Faults of what comes in: broken, strange, huge, too much, too many at once, all the same."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.faults.backend import Record, answers, healthy
from tests.faults.rig import Rig, assert_in_order, assert_nothing_lost, flow, full
from tests.support.engine import until
from tests.support.recorder import Recorder
from tests.support.wiretap import Wiretap

MB = 1 << 20
BEATS = """\
  beats:
    - mqtt-in: {connection: broker, topic: "rig/{device}/beat", qos: 0}
    - mqtt-out: {connection: broker, topic: "rig/{device}/back"}
"""
FLOOD = """\
  flood:
    - mqtt-in: {connection: broker, topic: "flood/{device}", qos: 0}
    - http-post: {url: "${env:FLOOD_URL}"}
      delivery: {store_after: never}
"""


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b'{"device": "d0000", "number": "\xff\xfe"}', "not UTF-8"),
        (b'{"device": "d0000", "number": NaN}', "not JSON"),
        (b'{"device": "d0000", "number": ' + b"[" * 100_000, "nested too deeply"),
        (b"", "empty"),
    ],
    ids=["malformed-utf-8", "nan", "nested-too-deeply", "empty"],
)
async def test_what_cannot_be_read_is_dead_with_its_reason_and_holds_nobody_up(
    payload: bytes, reason: str, tmp_path: Path
) -> None:
    async with Rig(tmp_path) as rig, Wiretap(rig.broker.host, rig.broker.port, []) as sender:
        async with rig.load():
            await sender.publish("rig/d0000/up", payload)
        await assert_nothing_lost(rig, dead=1)
        [letter] = rig.dead()
        assert reason in letter.reason


@pytest.mark.parametrize("stored", [False, True], ids=["healthy", "over-the-outbox"])
async def test_strange_and_large_records_arrive_as_they_came(stored: bool, tmp_path: Path) -> None:
    nested: list[object] = []
    for _ in range(200):
        nested = [nested]
    strange: list[dict[str, object]] = [
        {"pad": "x" * 300_000},
        {"deep": nested},
        {"text": "\x00 ' \" \\ 王伟 \U0001f600 \u2028"},
        {"number_of_many_digits": 10**40},
        {"pad": "x" * (50 * MB)},
    ]
    async with Rig(tmp_path) as rig:
        if stored:
            rig.backend.behave = answers(503)
        for fields in strange:
            rig.publisher.publish("d0000", **fields)
        async with rig.load(warm=0):
            if stored:
                await until(lambda: rig.stored >= len(strange), "rows in the outbox")
            rig.backend.behave = healthy
        await assert_nothing_lost(rig)


async def test_a_flood_of_qos_0_takes_bounded_memory_is_counted_and_costs_no_record(tmp_path: Path) -> None:
    messages, size = full(8_000, 60_000), 10_000
    async with Recorder() as recorder:
        recorder.hold()
        async with Rig(tmp_path, flows={"rig": flow(extra=FLOOD)}, env={"FLOOD_URL": recorder.url}) as rig:
            before = memory(rig)
            async with Wiretap(rig.broker.host, rig.broker.port, []) as sender, rig.load():
                for number in range(messages):
                    await sender.publish(f"flood/{number % 50}", b"x" * size, qos=0)
                    if not number % 100:
                        await asyncio.sleep(0)
                await until_dropped(rig)
                assert memory(rig) - before < 120 * MB  # 32 MB of messages, twice, and what an allocator does
                recorder.release()
                await rig.engine.until_books(lambda books: books.pending < 100, "the rest of the flood delivered")
            await assert_nothing_lost(rig)
            books = rig.engine.named("books")[-1]
            # A record whose PUBACK was under way when the connection was closed for want of room comes again: a duplicate.
            assert books["dropped"] == books["reasons"]["no room in memory"] + books["reasons"].get("duplicate", 0)


def memory(rig: Rig) -> int:
    """Bytes of the engine's memory that are resident."""
    status = Path(f"/proc/{rig.engine.pid}/status").read_text(encoding="utf-8")
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


async def until_dropped(rig: Rig) -> None:
    """Return when the engine has counted messages that it had no room for."""
    await rig.engine.until_books(lambda books: books.dropped > 0, "dropped messages")
    assert rig.engine.named("books")[-1]["reasons"]["no room in memory"]


async def test_all_devices_at_once_after_an_outage_lose_no_record(tmp_path: Path) -> None:
    async with Rig(tmp_path, devices=full(1_000, 10_000)) as rig:
        rig.backend.behave = answers(503)
        await rig.publisher.burst(1)
        await until(lambda: rig.stored == len(rig.devices), "a row for each device", 120)
        await rig.engine.kill()
        await rig.publisher.burst(2)
        rig.backend.behave = healthy
        await rig.engine.start()
        await assert_nothing_lost(rig)


class Beats:
    """Heartbeats that devices send and wait for the answer of, while something else goes on."""

    def __init__(self) -> None:
        self.sent = 0
        self.answered = 0


@asynccontextmanager
async def beating(rig: Rig) -> AsyncIterator[Beats]:
    """Each device in turn sends a heartbeat, and the next when that is answered; one without an answer fails the test."""
    beats = Beats()
    async with Wiretap(rig.broker.host, rig.broker.port, ["rig/+/back"]) as tap:

        async def beat() -> None:
            while True:
                device = rig.devices[beats.sent % len(rig.devices)]
                await tap.publish(f"rig/{device}/beat", str(beats.sent).encode(), qos=0)
                beats.sent += 1
                await until(lambda: len(tap.heard) == beats.sent, f"the answer to heartbeat {beats.sent}")
                beats.answered += 1

        beating = asyncio.create_task(beat())
        try:
            yield beats
            if beating.done():
                beating.result()
        finally:
            beating.cancel()
            await asyncio.wait([beating])
        assert all(int(heard.payload) == number for number, heard in enumerate(tap.heard))


async def test_stored_records_drain_while_live_traffic_goes_on_and_heartbeats_are_answered(tmp_path: Path) -> None:
    count = full(3_000, 100_000)
    async with Rig(tmp_path, devices=50, flows={"rig": flow(extra=BEATS)}) as rig:
        rig.backend.behave = answers(503)
        for _ in range(10):  # MQTT has packet ids for 65,535 at once
            await rig.publisher.burst(count // 500)
        await until(lambda: rig.stored == count, "all rows in the outbox", 300)
        async with beating(rig) as beats, rig.load(warm=0):
            rig.backend.behave = healthy
            await until(lambda: len(rig.backend.times) > 0, "the first row at the backend")
            answered = beats.answered
            await until(lambda: len(rig.backend.times) > count // 2, "half of the rows at the backend", 300)
            assert beats.answered > answered
            await until(lambda: rig.stored == 0, "an empty outbox", 300)
        await assert_nothing_lost(rig)


@pytest.mark.parametrize("stored", [False, True], ids=["healthy", "over-the-outbox"])
async def test_two_equal_records_without_id_from_both_arrive_with_keys_of_their_own(
    stored: bool, tmp_path: Path
) -> None:
    text = flow().replace("      delivery: {id_from:", "      x-delivery: {id_from:")
    text = "\n".join(line for line in text.splitlines() if "x-delivery" not in line) + "\n"
    async with Rig(tmp_path, flows={"rig": text}) as rig, Wiretap(rig.broker.host, rig.broker.port, []) as sender:
        if stored:
            rig.backend.behave = answers(503)
        equal = json.dumps({"device": "d1", "number": 1}).encode()
        await sender.publish("rig/d1/up", equal)
        await sender.publish("rig/d1/up", equal)
        if stored:
            await until(lambda: rig.stored == 2, "two rows")
            rig.backend.behave = healthy
        await until(lambda: rig.backend.times == Counter({Record("d1", 1): 2}), "both records")
        assert len(rig.backend.keys[Record("d1", 1)]) == 2
        await rig.engine.until_books(lambda books: not books.pending, "nothing pending")
        assert await rig.engine.stop() == 0
        assert_in_order(rig)
