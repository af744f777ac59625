"""Faults of the machine: a full disk, a disk that fails, a damaged file, a clock that is set, two engines in one folder."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from flowengine_simulate.books import EngineBooks
from tests.faults.backend import answers, healthy
from tests.faults.rig import Rig, RigEngine, assert_nothing_lost, flow, full, rounds
from tests.faults.small_disk import SmallDisk
from tests.support.engine import Engine, until

FULL_STORE = "the store is full: what comes in is not acknowledged until there is room"
SET_ASIDE = "the store was damaged: it was set aside, and what could be read of it was rescued"
EX_IOERR = 74
PAGE = 4096
MB = 1 << 20


# The disk


@pytest.mark.parametrize("leave", [16 * MB, 0], ids=["but-for-a-reserve", "to-the-last-byte"])
async def test_a_full_disk_costs_no_record_and_all_goes_on_when_there_is_room(leave: int, tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "state", megabytes=48) as disk:
        async with Rig(tmp_path, size=1500) as rig:
            async with rig.load():
                for time in range(rounds(1, 10)):
                    rig.backend.behave = answers(503)
                    await until(lambda: rig.stored > 50, "rows in the outbox")
                    disk.fill(leave)
                    await rig.engine.until(FULL_STORE, time + 1)
                    await asyncio.sleep(full(1.0, 10.0))
                    disk.free()
                    await rig.engine.until("the store has room again", time + 1)
                    rig.backend.behave = healthy
                    await until(lambda: not rig.stored, "an empty outbox", 60)
            await assert_nothing_lost(rig)


async def test_nothing_is_acknowledged_that_a_full_disk_does_not_have(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "state", megabytes=48) as disk:
        async with Rig(tmp_path, size=1500) as rig:
            async with rig.load():
                for _ in range(rounds(1, 10)):
                    rig.backend.behave = answers(503)
                    await until(lambda: rig.stored > 50, "rows in the outbox")
                    disk.fill()
                    await rig.engine.until(FULL_STORE)
                    await asyncio.sleep(full(1.0, 10.0))
                    await rig.engine.kill()  # what was acknowledged and is not on the disk would be lost now
                    disk.free()
                    rig.backend.behave = healthy
                    await rig.engine.start()
                    await until(lambda: not rig.stored, "an empty outbox", 60)
            await assert_nothing_lost(rig)


async def test_a_start_and_a_stop_on_a_full_disk_say_so_and_cost_no_record(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "state", megabytes=48) as disk:
        async with Rig(tmp_path, size=1500) as rig:
            rig.backend.behave = answers(503)
            await rig.publisher.burst(20)
            await until(lambda: rig.stored > 50, "rows in the outbox")
            disk.fill()
            await rig.publisher.burst(20)
            await rig.engine.until(FULL_STORE)
            assert await rig.engine.stop() == 0
            assert not unforeseen(rig.engine)
            await rig.engine.launch()
            await until(lambda: not rig.engine.running or bool(rig.engine.named("ready")), "an end or a start")
            assert not unforeseen(rig.engine)
            if rig.engine.running:
                await rig.engine.kill()
            else:
                assert rig.engine.named("cannot start")
            disk.free()
            rig.backend.behave = healthy
            await rig.engine.start()
            await assert_nothing_lost(rig)


def unforeseen(engine: RigEngine) -> bool:
    """Whether the log holds a traceback."""
    return "Traceback" in engine.log or any("exception" in event for event in engine.events)


async def test_a_sync_that_fails_ends_the_engine_loudly_and_costs_no_record(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("no failing sync: there is no `strace`")
    async with Rig(tmp_path) as rig:
        async with rig.load():
            for _ in range(rounds(1, 10)):
                rig.backend.behave = answers(503)
                await until(lambda: rig.stored > 50, "rows in the outbox")
                tracer = await failing_syncs(rig.engine.pid)
                assert await rig.engine.ended() == EX_IOERR
                await tracer.wait()
                [failed] = rig.engine.named("the store failed: nothing more is acknowledged")
                assert failed["level"] == "error"
                assert rig.engine.named("the store failed; stopping: start again once the disk is well")
                rig.backend.behave = healthy
                await rig.engine.start()
        await assert_nothing_lost(rig)


async def failing_syncs(pid: int) -> asyncio.subprocess.Process:
    """From now on each sync of a process fails with EIO."""
    tracer = await asyncio.create_subprocess_exec(
        *("strace", "-f", "-p", str(pid), "-o", "/dev/null"),
        *("-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"),
        stderr=asyncio.subprocess.PIPE,
    )
    assert tracer.stderr is not None
    said = (await tracer.stderr.readline()).decode().strip()
    if "attached" not in said:
        await tracer.wait()
        pytest.skip(f"no failing sync: strace may not trace here: {said}")
    return tracer


# The file


async def filled(rig: Rig) -> Path:
    """The database of a rig's engine, stopped while 300 records wait in it."""
    rig.backend.behave = answers(503)
    await rig.publisher.burst(50)
    await until(lambda: rig.stored == 50 * len(rig.devices), "all rows in the outbox")
    assert await rig.engine.stop() == 0
    rig.backend.behave = healthy
    return rig.state / "flowengine.db"


async def begun_again(rig: Rig) -> None:
    """The engine, once it is ready; it may have to end for the damage first, which it says."""
    for _ in range(2):
        await Engine.launch(rig.engine)  # the rig's own counts the rows, which may not be readable
        rig.engine.carries = None
        await until(lambda: bool(rig.engine.named("ready")) or not rig.engine.running, "a start or an end")
        if rig.engine.running:
            return
        assert await rig.engine.ended() != 0
        assert rig.engine.named("cannot start")
        assert not unforeseen(rig.engine)
    raise AssertionError(f"it does not start:\n{rig.engine.log}")


async def assert_rescued(rig: Rig, at_most: int) -> None:
    """The damaged file was set aside, no more than so many records were in the damage, and all goes on."""
    [said] = rig.engine.named(SET_ASIDE)
    assert said["level"] == "error"
    assert Path(said["set_aside_as"]).exists()
    rescued = said["rescued"]["outbox"]
    sent = len(rig.publisher.acknowledged)
    assert sent - at_most <= rescued <= sent
    await until(lambda: len(rig.missing()) <= sent - rescued, "all that was rescued")
    gone = rig.missing()
    rig.publisher.acknowledged = [record for record in rig.publisher.acknowledged if record not in gone]
    async with rig.load():
        pass
    await assert_nothing_lost(rig)


async def test_a_damaged_row_is_never_sent_and_stands_in_the_dead_letters(tmp_path: Path) -> None:
    async with Rig(tmp_path, size=1500) as rig:
        file = await filled(rig)
        content = bytearray(file.read_bytes())
        places = [content.find(b"xxx", len(content) * part // 4) for part in (1, 2, 3)]
        for place in places:
            content[place] ^= 0x01
        file.write_bytes(content)
        await rig.engine.start()
        await assert_nothing_lost(rig, dead=len(places))
        assert all("damaged" in letter.reason for letter in rig.dead())
        assert not {letter.record for letter in rig.dead()} & set(rig.backend.times)


async def test_a_database_with_damaged_pages_is_set_aside_and_the_rest_is_rescued(tmp_path: Path) -> None:
    async with Rig(tmp_path, size=1500) as rig:
        file = await filled(rig)
        content = bytearray(file.read_bytes())
        for third in (1, 2):
            page = content.find(b"xxx", len(content) * third // 3) // PAGE * PAGE
            content[page : page + PAGE] = b"\xff" * PAGE
        file.write_bytes(content)
        await begun_again(rig)
        await assert_rescued(rig, at_most=8)


async def test_a_database_that_was_cut_off_is_set_aside_and_the_rest_is_rescued(tmp_path: Path) -> None:
    async with Rig(tmp_path, size=1500) as rig:
        file = await filled(rig)
        size = file.stat().st_size // PAGE
        with file.open("r+b") as whole:
            whole.truncate(size * 2 // 3 * PAGE)
        await begun_again(rig)
        await assert_rescued(rig, at_most=150)


async def test_a_file_that_is_no_database_is_set_aside_and_all_goes_on(tmp_path: Path) -> None:
    async with Rig(tmp_path, size=1500) as rig:
        file = await filled(rig)
        file.write_bytes(b"\0" * file.stat().st_size)
        await begun_again(rig)
        await assert_rescued(rig, at_most=300)


async def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        file = await filled(rig)
        with closing(sqlite3.connect(file)) as database:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            database.execute("PRAGMA user_version = 99")
        await rig.engine.launch()
        assert await rig.engine.ended() == 1
        [said] = rig.engine.named("cannot start")
        assert "newer flowengine" in said["reason"] and "99" in said["reason"]
        assert rig.stored == 300
        with closing(sqlite3.connect(file)) as database:
            assert database.execute("PRAGMA user_version").fetchone()[0] == 99
            database.execute(f"PRAGMA user_version = {version}")
        await rig.engine.start()
        await assert_nothing_lost(rig)


async def test_a_second_engine_in_a_state_folder_is_refused_and_told_whose_it_is(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        async with rig.load():
            second = RigEngine(tmp_path / "flows", state=rig.state, env=rig.engine.env)
            await second.launch()
            assert await second.ended() == 1
            [said] = second.named("cannot start")
            assert str(rig.engine.pid) in said["reason"] and str(rig.state) in said["reason"]
        await assert_nothing_lost(rig, repeats=False)


# The clock


class FalseClock:
    """A wall clock for one process that can be set while it runs; its monotonic clock stays true."""

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1"))
        if not found:
            pytest.skip("no false clock: there is no libfaketime")
        self._file = folder / "clock"
        self.set("+0")
        self.env = {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, shift: str) -> None:
        """Shift it: `+1d`, `-1d`."""
        new = self._file.with_suffix(".new")
        new.write_text(shift, encoding="utf-8")
        new.rename(self._file)


async def until_set(rig: Rig) -> None:
    """Return when the engine has said something by another day's clock."""
    first = datetime.fromisoformat(rig.engine.events[0]["timestamp"])

    def shifted(_books: EngineBooks) -> bool:
        return abs((datetime.fromisoformat(rig.engine.events[-1]["timestamp"]) - first).total_seconds()) > 80_000

    await rig.engine.until_books(shifted, "the false clock")


@pytest.mark.parametrize("shift", ["+1d", "-1d"])
async def test_a_clock_that_jumps_a_day_makes_no_record_expire_early(shift: str, tmp_path: Path) -> None:
    clock = FalseClock(tmp_path)
    flows = {"rig": flow(delivery="expire_after: 1h, give_up_after: 2h")}
    async with Rig(tmp_path, flows=flows, env=clock.env) as rig:
        rig.backend.behave = answers(503)
        await rig.publisher.burst(full(5, 100))
        await until(lambda: rig.stored == len(rig.publisher.sent), "all rows in the outbox")
        clock.set(shift)
        await until_set(rig)
        await rig.publisher.burst(full(5, 100))
        await until(lambda: rig.stored == len(rig.publisher.sent), "rows by the new clock")
        rig.backend.behave = healthy
        await assert_nothing_lost(rig)


@pytest.mark.parametrize("shift", ["+1d", "-1d"])
async def test_a_clock_that_jumps_a_day_makes_no_record_expire_late(shift: str, tmp_path: Path) -> None:
    clock = FalseClock(tmp_path)
    async with Rig(tmp_path, flows={"rig": flow(delivery="expire_after: 3s")}, env=clock.env) as rig:
        rig.backend.behave = answers(503)
        await rig.publisher.burst(5)
        await until(lambda: rig.stored == len(rig.publisher.sent), "all rows in the outbox")
        clock.set(shift)
        await until_set(rig)
        await rig.publisher.burst(5)
        await asyncio.sleep(4.0)  # longer than the time they are worth something
        rig.backend.behave = healthy
        books = await rig.engine.until_books(lambda books: not books.pending, "nothing pending")
        assert books.dropped == len(rig.publisher.sent)
        assert not rig.backend.times
