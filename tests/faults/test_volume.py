"""Much, and for long: memory, the file and the start stay small. What takes minutes is for the full form."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.faults.backend import answers, healthy
from tests.faults.rig import FULL, Rig, assert_nothing_lost, flow
from tests.support.engine import until

volume = pytest.mark.skipif(not FULL, reason="for the full form: make faults")
MB = 1 << 20
RECORD = 1500
"""Bytes of padding of a record."""


async def test_a_backend_that_answers_in_time_causes_no_row_in_the_outbox(tmp_path: Path) -> None:
    async with Rig(tmp_path, flows={"rig": flow(delivery="store_after: 2s")}) as rig:
        async with rig.load(after=300):
            pass
        await assert_nothing_lost(rig, repeats=False)
        assert rig.engine.named("books")[-1]["stored"] == 0


@volume
async def test_100000_stored_records_need_little_memory_start_fast_drain_in_order_and_give_the_disk_back(
    tmp_path: Path,
) -> None:
    count, devices = 100_000, 50
    async with Rig(tmp_path, devices=devices, size=RECORD) as rig:
        rig.backend.behave = answers(503)
        for _ in range(10):  # MQTT has packet ids for 65,535 at once
            await rig.publisher.burst(count // devices // 10)
        await until(lambda: rig.stored == count, "all rows in the outbox", 300)
        assert await rig.engine.stop() == 0
        largest = size_of_files(rig)
        began = time.monotonic()
        await rig.engine.start()
        started = time.monotonic() - began
        loaded = memory(rig)
        rig.backend.behave = healthy
        most = loaded
        began = time.monotonic()
        while rig.stored:
            most = max(most, memory(rig))
            assert time.monotonic() - began < 600, f"{rig.stored} rows still wait"
            await asyncio.sleep(0.5)
        drained = count / (time.monotonic() - began)
        await until(lambda: size_of_files(rig) < largest // 5, "a file that shrinks", 60)
        healthy_rate = await rate_of_live_records(rig, count // 5)
        print(f"drained at {drained / healthy_rate:.2f} of the rate of live records, {healthy_rate:.0f} a second")
        print(f"started in {started:.1f} s, {loaded // MB} MB, at most {most // MB} MB, {drained:.0f} records/s")
        assert most < 150 * MB
        assert started < 3
        await assert_nothing_lost(rig)


@volume
async def test_500_records_a_second_into_a_dead_backend_for_ten_minutes_leave_memory_flat(tmp_path: Path) -> None:
    async with Rig(tmp_path, devices=50, size=RECORD) as rig:
        samples: list[int] = []
        async with rig.load(500):
            rig.backend.behave = answers(503)
            await asyncio.sleep(60)
            for _minute in range(9):
                await asyncio.sleep(60)
                samples.append(memory(rig) // MB)
            assert rig.stored > 500 * 60 * 9
            rig.backend.behave = healthy
        print(f"MB at the end of each minute: {samples}")
        assert max(samples) - samples[0] < 15
        await assert_nothing_lost(rig, within=1200)


async def rate_of_live_records(rig: Rig, count: int) -> float:
    """Records a second from so many that come in as fast as they are taken."""
    began = time.monotonic()
    await rig.publisher.burst(count // len(rig.devices))
    await until(lambda: len(rig.backend.times) >= len(rig.publisher.sent), "all live records", 300)
    return count / (time.monotonic() - began)


def memory(rig: Rig) -> int:
    """Bytes of the engine's memory that are resident."""
    status = Path(f"/proc/{rig.engine.pid}/status").read_text(encoding="utf-8")
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


def size_of_files(rig: Rig) -> int:
    """Bytes of the store's files."""
    return sum(file.stat().st_size for file in rig.state.glob("flowengine.db*"))
