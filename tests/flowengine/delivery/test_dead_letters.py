"""Dead letters: on the disk before anybody is told."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from flowengine import Reject
from flowengine.delivery import deadletters
from flowengine.testing import RunningFlow, running

FLOW = "{flow: f, chains: {main: [test-in, test-out]}}"


def rows(state: Path) -> list[dict[str, Any]]:
    """The dead letters of a state folder."""
    database = sqlite3.connect(state / "dead-letters.db")
    try:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute("SELECT * FROM dead ORDER BY number")]
    finally:
        database.close()


async def dies(flow: RunningFlow, payload: Any, error: BaseException | None = None, **meta: Any) -> None:
    flow.fail_next(error or Reject("no", status=422))
    outcome = await flow.send(payload, **meta)
    assert outcome.state == "dead"


async def test_a_letter_says_what_died_where_and_why(tmp_path: Path) -> None:
    async with running(FLOW, state=tmp_path) as flow:
        await dies(flow, {"n": 1}, device="7")
        [row] = rows(tmp_path)
    assert (row["flow"], row["node"], row["reason"], row["status"], row["attempts"]) == (
        "f",
        "f/main/test-out",
        "no",
        "422",
        1,
    )
    assert (msgspec.json.decode(row["payload"]), row["json"], row["meta"]) == ({"n": 1}, 1, '{"device":"7"}')
    assert 0 < row["arrived"] <= row["died"]


async def test_a_letter_is_on_the_disk_when_its_sender_is_told(tmp_path: Path) -> None:
    async with running(FLOW, state=tmp_path) as flow:
        flow.fail_next(Reject("no"))
        seen: list[int] = []
        source = next(iter(flow._ins.values()))
        assert source.emit is not None
        await source.emit(1, {}, lambda _outcome: seen.append(len(rows(tmp_path))))
        assert seen == [1]


CHILD = """
import asyncio, sys
from pathlib import Path
from flowengine import Reject, logs
from flowengine.testing import running

logs.configure("error")

async def main():
    async with running("{flow: f, chains: {main: [test-in, test-out]}}", state=Path(sys.argv[1])) as flow:
        flow.fail_next(*(Reject("no") for _ in range(100_000)))
        for number in range(100_000):
            await flow.send(number)
            print(number, flush=True)

asyncio.run(main())
"""


def test_what_a_sender_was_told_is_there_after_kill_9(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout is not None
        for told in child.stdout:
            if int(told) == 20:
                os.kill(child.pid, signal.SIGKILL)
                break
        told_to_senders = 21 + len([line for line in child.stdout.read().split("\n") if line])
    kept = [msgspec.json.decode(row["payload"]) for row in rows(tmp_path)]
    assert kept[:told_to_senders] == list(range(told_to_senders))


async def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with running(FLOW, state=tmp_path / "state") as flow:
            await dies(flow, 1)
            modes = {
                file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "state").glob("dead-letters.db*")
            }
            assert "dead-letters.db" in modes and set(modes.values()) == {0o600}
    finally:
        os.umask(before)


class Odd:
    def __repr__(self) -> str:
        raise ValueError("no")


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff\xfe\x00",
        "half a pair: \ud800",
        {"\ud800": 1},
        {1, 2},
        object(),
        Odd(),
        CYCLE,
        {"t": (1, b"x")},
        10**400,
        None,
    ],
    ids=lambda payload: type(payload).__name__,
)
async def test_any_payload_can_die(tmp_path: Path, payload: Any) -> None:
    async with running(FLOW, state=tmp_path) as flow:
        await dies(flow, payload)
        [row] = rows(tmp_path)
        if isinstance(payload, bytes):
            assert (row["payload"], row["json"]) == (payload, 0)


async def test_any_metadata_and_reason_can_die(tmp_path: Path) -> None:
    async with running(FLOW, state=tmp_path) as flow:
        await dies(flow, 1, Reject("half a pair: \ud800\0", status="\ud800"), device="\ud800", topic=Odd())
        await dies(flow, 1)
        assert [row["reason"] for row in rows(tmp_path)] == ["half a pair: \\ud800\0", "no"]


async def test_thousands_at_once_need_few_commits(tmp_path: Path) -> None:
    async with running(FLOW, state=tmp_path) as flow:
        assert flow.engine.dead_letters is not None
        flow.fail_next(*(Reject("no") for _ in range(5000)))
        outcomes = [flow.send(n, device=str(n)) for n in range(5000)]
        for outcome in outcomes:
            assert (await outcome).state == "dead"
        assert len(rows(tmp_path)) == 5000
        assert flow.engine.dead_letters.commits < 500


async def test_while_they_cannot_be_written_nobody_is_told_and_then_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadletters, "_AGAIN", 0.01)
    async with running(FLOW, state=tmp_path) as flow:
        with capture_logs() as logs:
            await dies(flow, 0)
            other = sqlite3.connect(tmp_path / "dead-letters.db", isolation_level=None)
            other.execute("CREATE TRIGGER full BEFORE INSERT ON dead BEGIN SELECT RAISE(ABORT, 'disk full'); END")
            flow.fail_next(Reject("no"), Reject("no"))
            outcomes = [flow.send(n) for n in (1, 2)]
            await flow.until(lambda: [line for line in logs if line["log_level"] == "error"])
            assert [outcome.state for outcome in outcomes] == ["pending", "pending"]
            assert flow.engine.pending() == 2 and flow.balanced()
            other.execute("DROP TRIGGER full")
            other.close()
            for outcome in outcomes:
                assert (await outcome).state == "dead"
            assert logs[-1]["event"] == "dead letters are written again"
    assert len(rows(tmp_path)) == 3


async def test_a_file_that_was_taken_away_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadletters, "_AGAIN", 0.01)
    async with running(FLOW, state=tmp_path) as flow:
        assert flow.engine.dead_letters is not None
        real = flow.engine.dead_letters._connect
        broken = True

        def connect() -> sqlite3.Connection:
            if broken:
                raise OSError(24, "too many open files")
            return real()

        monkeypatch.setattr(flow.engine.dead_letters, "_connect", connect)
        flow.fail_next(Reject("no"))
        outcome = flow.send(1)
        await asyncio.sleep(0.05)
        assert outcome.state == "pending"
        broken = False
        assert (await outcome).state == "dead"


async def test_what_cannot_be_written_until_the_end_stays_pending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadletters, "_AGAIN", 60.0)
    async with running(FLOW, state=tmp_path) as flow:
        await dies(flow, 0)
        other = sqlite3.connect(tmp_path / "dead-letters.db", isolation_level=None)
        other.execute("DROP TABLE dead")
        other.execute("CREATE TABLE dead (other)")
        other.close()
        flow.fail_next(Reject("no"))
        outcome = flow.send(1)
        await flow.until(lambda: flow.engine.pending())
    assert outcome.state == "pending" and flow.balanced()
