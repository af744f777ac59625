"""Dead letters: on the disk before anybody is told."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from flowengine import Reject
from flowengine.delivery import deadletters, store
from flowengine.delivery.deadletters import DeadLetters
from flowengine.delivery.outbox import BYTES, JSON
from flowengine.testing import RunningFlow, running

FLOW = "{flow: f, chains: {main: [test-in, test-out]}}"
FAILED = "the store failed: nothing more is acknowledged"


def rows(state: Path) -> list[dict[str, Any]]:
    """The dead letters of a state folder."""
    database = sqlite3.connect(state / "flowengine.db")
    try:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute("SELECT * FROM dead ORDER BY number")]
    finally:
        database.close()


@contextmanager
def another(state: Path) -> Iterator[sqlite3.Connection]:
    """The store as another program has it open."""
    database = sqlite3.connect(state / "flowengine.db", isolation_level=None)
    try:
        yield database
    finally:
        database.close()


async def dies(flow: RunningFlow, payload: Any, error: BaseException | None = None, **meta: Any) -> None:
    flow.fail_next(error or Reject("no", status=422))
    outcome = await flow.send(payload, **meta)
    assert outcome.state == "dead"


def letters_of(flow: RunningFlow) -> DeadLetters:
    assert flow.engine.dead_letters is not None
    return flow.engine.dead_letters


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
    assert (msgspec.json.decode(row["payload"]), row["kind"], row["meta"]) == ({"n": 1}, JSON, b'{"device":"7"}')
    assert row["device"] == "7"
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
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "state").glob("*.db*")}
            assert {"flowengine.db", "flowengine.db-wal"} <= set(modes) and set(modes.values()) == {0o600}
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
            assert (row["payload"], row["kind"]) == (payload, BYTES)


async def test_any_metadata_and_reason_can_die_and_what_json_can_hold_of_them_is_kept(tmp_path: Path) -> None:
    async with running(FLOW, state=tmp_path) as flow:
        await dies(flow, 1, Reject("half a pair: \ud800\0", status="\ud800"), device="\ud800", topic=Odd(), n={"a": 1})
        await dies(flow, 1)
        odd, plain = rows(tmp_path)
    assert (odd["reason"], plain["reason"]) == ("half a pair: \\ud800\0", "no")
    assert msgspec.json.decode(odd["meta"]) == {"device": "\\ud800", "topic": "<Odd>", "n": {"a": 1}}


async def test_thousands_at_once_need_few_commits(tmp_path: Path) -> None:
    async with running(FLOW, state=tmp_path) as flow:
        flow.fail_next(*(Reject("no") for _ in range(5000)))
        outcomes = [flow.send(n, device=str(n)) for n in range(5000)]
        for outcome in outcomes:
            assert (await outcome).state == "dead"
        assert len(rows(tmp_path)) == 5000
        assert letters_of(flow).store.commits < 500


async def test_while_they_cannot_be_written_nobody_is_told_and_then_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_AGAIN", 0.01)
    async with running(FLOW, state=tmp_path) as flow:
        await dies(flow, 0)
        with capture_logs() as logs:
            letters_of(flow).store.bound = 0
            flow.fail_next(Reject("no"), Reject("no"))
            outcomes = [flow.send(n) for n in (1, 2)]
            await flow.until(lambda: [line for line in logs if line["log_level"] == "error"])
            assert [outcome.state for outcome in outcomes] == ["pending", "pending"]
            assert flow.engine.pending() == 2 and flow.balanced()
            letters_of(flow).store.bound = store.DEFAULT_BOUND
            for outcome in outcomes:
                assert (await outcome).state == "dead"
            assert [line["event"] for line in logs if line["log_level"] == "info"] == ["the store has room again"]
    assert len(rows(tmp_path)) == 3


async def test_a_store_that_another_program_holds_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_AGAIN", 0.01)
    async with running(FLOW, state=tmp_path) as flow:
        with capture_logs() as logs, another(tmp_path) as other:
            await dies(flow, 0)
            other.execute("BEGIN IMMEDIATE")
            flow.fail_next(Reject("no"))
            outcome = flow.send(1)
            await flow.until(lambda: [line for line in logs if "locked" in line["event"]], within=30.0)
            assert outcome.state == "pending"
            other.execute("COMMIT")
            assert (await outcome).state == "dead"


async def test_what_cannot_be_written_until_the_end_stays_pending(tmp_path: Path) -> None:
    async with running(FLOW, state=tmp_path) as flow:
        await dies(flow, 0)
        letters_of(flow).store.bound = 0
        flow.fail_next(Reject("no"))
        outcome = flow.send(1)
        await flow.until(lambda: flow.engine.pending())
    assert outcome.state == "pending" and flow.balanced()
    assert len(rows(tmp_path)) == 1


async def test_when_the_store_fails_nobody_is_told_and_the_engine_asks_to_be_stopped(tmp_path: Path) -> None:
    async with running(FLOW, state=tmp_path) as flow:
        with capture_logs() as logs, another(tmp_path) as other:
            await dies(flow, 0)
            other.execute("DROP TABLE dead")
            flow.fail_next(Reject("no"))
            outcome = flow.send(1)
            await flow.until(flow.engine.failed.is_set)
            assert FAILED in [line["event"] for line in logs]
    assert outcome.state == "pending" and flow.balanced()


def _over_quota(letters: DeadLetters) -> None:
    letters.quota = 25


def _too_old(letters: DeadLetters) -> None:
    letters.retention = 0.0


@pytest.mark.parametrize(("limit", "kept"), [(_over_quota, [b"2" * 10, b"3" * 10]), (_too_old, [])])
async def test_what_leaves_by_quota_or_age_is_the_oldest_and_is_counted_and_said(
    tmp_path: Path, limit: Callable[[DeadLetters], None], kept: list[bytes]
) -> None:
    async with running(FLOW, state=tmp_path) as flow:
        for number in range(4):
            await dies(flow, str(number).encode() * 10)
        limit(letters_of(flow))
        with capture_logs() as logs:
            letters_of(flow).look()
            await flow.until(lambda: letters_of(flow).left)
    assert [row["payload"] for row in rows(tmp_path)] == kept
    assert letters_of(flow).left == 4 - len(kept)
    assert [(line["log_level"], line["letters"]) for line in logs] == [("error", 4 - len(kept))]


async def test_letters_within_quota_and_age_stay(tmp_path: Path) -> None:
    async with running(FLOW, state=tmp_path) as flow:
        await dies(flow, 1)
        letters_of(flow).look()
        await dies(flow, 2)
    async with running(FLOW, state=tmp_path) as flow:
        pass
    assert len(rows(tmp_path)) == 2 and letters_of(flow).left == 0
    assert deadletters.RETENTION > 86400 and deadletters.QUOTA > 1 << 20
