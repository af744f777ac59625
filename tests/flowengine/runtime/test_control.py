"""The control socket, and what is done through it: nothing it is told harms the engine, and the books balance."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import stat
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from flowengine import Action, Message, Reject, Retry
from flowengine.runtime import leaving, replay
from flowengine.runtime.control import NAME
from flowengine.testing import RunningFlow, running

FLOW = """
flow: f
chains:
  main:
    - test-in
    - far-end
  other:
    - test-in
    - far-end: {}
      name: second
"""
FROM, TO = "f/main/far-end", "f/other/second"


class FarEnd(Action):
    """Refuses, is busy, or takes what comes, as a test says."""

    type = "far-end"
    says: ClassVar[dict[str, BaseException | None]] = {}
    """By the node's name."""
    waits: ClassVar[dict[Any, asyncio.Future[None]]] = {}
    """By the payload: what an attempt waits for."""
    took: ClassVar[list[tuple[str, Message]]] = []

    async def deliver(self, msg: Message) -> None:
        if msg.payload in self.waits:
            await self.waits[msg.payload]
        said = self.says.get(self.context.name)
        if said is not None:
            raise said
        self.took.append((self.context.name, msg))


@pytest.fixture(autouse=True)
def fresh() -> None:
    FarEnd.says, FarEnd.waits, FarEnd.took = {}, {}, []


def payloads(name: str) -> list[Any]:
    return [msg.payload for at, msg in FarEnd.took if at == name]


async def ask(state: Path, request: Any) -> list[dict[str, Any]]:
    """The answer's lines, the last one, which says the end, among them."""
    reader, writer = await asyncio.open_unix_connection(state / NAME, limit=1 << 20)
    writer.write((request if isinstance(request, bytes) else json.dumps(request).encode()) + b"\n")
    said = []
    while line := await reader.readline():
        said.append(json.loads(line))
        if "end" in said[-1]:
            break
    writer.close()
    await writer.wait_closed()
    return said


async def asked(state: Path, **request: Any) -> list[dict[str, Any]]:
    """The answer's lines, once it is known that all went well."""
    *pieces, last = await ask(state, request)
    assert last == {"end": True}, last
    return pieces


async def until_rows(flow: RunningFlow, state: Path, count: int, action: str = FROM) -> None:
    def there() -> bool:
        with sqlite3.connect(f"file:{state}/flowengine.db?mode=ro", uri=True) as database:
            found = database.execute("SELECT COUNT(*) FROM outbox WHERE action = ?", (action,)).fetchone()[0]
        database.close()
        return bool(found == count)

    await flow.until(there)


async def stored(flow: RunningFlow, state: Path, count: int, device: str = "7") -> None:
    """Have messages 0, 1, ... wait in the outbox, since the far end is busy."""
    FarEnd.says["far-end"] = Retry("busy", after=60)
    outcomes = [flow.send(number, into="main", device=device) for number in range(count)]
    assert [(await outcome).state for outcome in outcomes] == ["stored"] * count
    await until_rows(flow, state, count)


async def dies(flow: RunningFlow, payload: Any, device: str = "7") -> None:
    FarEnd.says["far-end"] = Reject("no", status=422)
    assert (await flow.send(payload, into="main", device=device)).state == "dead"


# The socket


@pytest.mark.parametrize(
    "request_line",
    [
        b"",
        b"\xff\xfe",
        b"nonsense",
        b"[1, 2]",
        b'{"do": "engine.stop"}',
        b'{"do": "dead.list", "limit": "many"}',
        b'{"do": "dead.drop"}',
        b'{"do": "dead.drop", "chosen": {"sql": "1=1"}}',
        b'{"do": "dead.list", "chosen": {"upto": 99999999999999999999999}}',
        b'{"do": "dead.drop", "chosen": {"numbers": [99999999999999999999999]}}',
        b'{"do": "outbox.move", "meant": {"action": "f/main/far-end"}, "to": "nobody/is/there"}',
        b'{"do": "outbox.move", "meant": {"action": "f/main/far-end"}, "to": "f/main/far-end"}',
        b"[" * 100_000,
    ],
    ids=range(13),
)
async def test_a_bad_request_hears_why_and_the_engine_goes_on(tmp_path: Path, request_line: bytes) -> None:
    async with running(FLOW, plugins=[FarEnd], state=tmp_path) as flow:
        [last] = await ask(tmp_path, request_line)
        assert last["end"] is True and last["error"]
        assert (await flow.send(1, into="main")).state == "delivered"
        assert await asked(tmp_path, do="outbox.list") == []
        assert not flow.engine.failed.is_set()


async def test_an_endless_line_is_cut_off_and_the_next_client_is_served(tmp_path: Path) -> None:
    async with running(FLOW, plugins=[FarEnd], state=tmp_path):
        _reader, writer = await asyncio.open_unix_connection(tmp_path / NAME)
        with pytest.raises(ConnectionError):
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        writer.transport.abort()
        assert await asked(tmp_path, do="outbox.list") == []


async def test_a_client_that_does_not_read_holds_up_neither_the_flow_nor_another_client(tmp_path: Path) -> None:
    async with running(FLOW, plugins=[FarEnd], state=tmp_path) as flow:
        for number in range(20):
            await dies(flow, f"{number}" + "x" * 200_000)
        _reader, lazy = await asyncio.open_unix_connection(tmp_path / NAME, limit=1024)
        lazy.write(b'{"do": "dead.export"}\n' * 3)
        FarEnd.says.clear()
        assert (await flow.send(1, into="main")).state == "delivered"
        assert len(await asked(tmp_path, do="dead.export")) == 20
        lazy.transport.abort()


async def test_several_requests_on_one_connection_are_answered_in_turn(tmp_path: Path) -> None:
    async with running(FLOW, plugins=[FarEnd], state=tmp_path):
        reader, writer = await asyncio.open_unix_connection(tmp_path / NAME)
        writer.write(b'{"do": "outbox.list"}\n{"do": "nothing"}\n{"do": "dead.list"}\n')
        ends = [json.loads(await reader.readline()) for _number in range(3)]
        assert ["error" in end for end in ends] == [False, True, False]
        writer.close()
        await writer.wait_closed()


async def test_a_socket_that_a_killed_engine_left_is_replaced_and_a_stopped_one_leaves_none(tmp_path: Path) -> None:
    (tmp_path / NAME).touch()
    async with running(FLOW, plugins=[FarEnd], state=tmp_path):
        assert await asked(tmp_path, do="dead.list") == []
    assert not (tmp_path / NAME).exists()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the short name needs /proc")
async def test_a_path_too_long_for_a_socket_is_served_all_the_same(tmp_path: Path) -> None:
    state = tmp_path / ("long" * 30) / "state"
    async with running(FLOW, plugins=[FarEnd], state=state):
        folder = os.open(state, os.O_RDONLY)
        try:
            assert await asked(Path(f"/proc/self/fd/{folder}"), do="dead.list") == []
        finally:
            os.close(folder)


async def test_everything_in_the_state_folder_is_its_owners_alone(tmp_path: Path) -> None:
    state = tmp_path / "state"
    before = os.umask(0)
    try:
        async with running(FLOW, plugins=[FarEnd], state=state) as flow:
            await dies(flow, 1)
            await stored(flow, state, 1)
            found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in state.rglob("*")}
            assert stat.S_IMODE(state.stat().st_mode) == 0o700
    finally:
        os.umask(before)
    assert {"lock", NAME, "flowengine.db", "flowengine.db-wal", "flowengine.db-shm"} <= found.keys()
    assert set(found.values()) == {0o600}, found


# Replaying


async def test_a_replayed_letter_is_the_same_message_at_the_node_that_failed_and_goes_when_it_is_delivered(
    tmp_path: Path,
) -> None:
    async with running(FLOW, plugins=[FarEnd], state=tmp_path) as flow:
        await dies(flow, "one")
        [before] = await asked(tmp_path, do="dead.list")
        FarEnd.says.clear()
        assert await asked(tmp_path, do="dead.replay", chosen={}) == [{"delivered": 1}]
        [(_name, msg)] = FarEnd.took
        assert (msg.id, msg.part, msg.meta["device"], msg.time) == (before["id"], "", "7", before["arrived"])
        await flow.until(lambda: not letters(tmp_path))
        books = flow.engine.books()
        assert (books.received, books.replayed, books.delivered, books.dead) == (1, 1, 1, 1) and flow.balanced()


def letters(state: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(f"file:{state}/flowengine.db?mode=ro", uri=True) as database:
        found = database.execute("SELECT number, payload, replay FROM dead ORDER BY number").fetchall()
    database.close()
    return found


async def test_a_replay_that_fails_is_a_new_letter_and_is_not_replayed_again_by_the_same_request(
    tmp_path: Path,
) -> None:
    async with running(FLOW, plugins=[FarEnd], state=tmp_path) as flow:
        for number in range(3):
            await dies(flow, number)
        assert await asked(tmp_path, do="dead.replay", chosen={}) == [{"dead": 3}]
        await flow.until(lambda: [number for number, *_rest in letters(tmp_path)] == [4, 5, 6])
        assert flow.balanced()


async def test_a_replay_into_a_busy_far_end_waits_in_the_outbox_and_the_letter_goes(tmp_path: Path) -> None:
    async with running(FLOW, plugins=[FarEnd], state=tmp_path) as flow:
        await dies(flow, 1)
        FarEnd.says["far-end"] = Retry("busy", after=60)
        assert await asked(tmp_path, do="dead.replay", chosen={"numbers": [1]}) == [{"stored": 1}]
        await flow.until(lambda: not letters(tmp_path))
        [lane] = await asked(tmp_path, do="outbox.list")
        assert (lane["action"], lane["lane"], lane["rows"], lane["owner"]) == (FROM, "7", 1, True)
        assert 0 < lane["next_try"] <= 60 and lane["error"] == "busy"


async def test_a_letter_that_is_under_way_is_not_begun_twice(tmp_path: Path) -> None:
    async with running(FLOW, plugins=[FarEnd], state=tmp_path) as flow:
        await dies(flow, "slow")
        FarEnd.says.clear()
        waits = FarEnd.waits["slow"] = asyncio.get_running_loop().create_future()
        first = asyncio.create_task(asked(tmp_path, do="dead.replay", chosen={}))
        await flow.until(lambda: flow.engine.books().replayed == 1)
        assert await asked(tmp_path, do="dead.replay", chosen={}) in ([{"under_way": 1}], [])
        waits.set_result(None)
        await first
        assert payloads("far-end") == ["slow"] and flow.engine.books().replayed == 1


async def test_what_neither_ends_nor_is_stored_ends_the_replay_and_not_the_letters_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "_PATIENCE", 0.1)
    monkeypatch.setattr(replay, "_TOGETHER", 2)
    text = FLOW.replace("    - far-end\n  other", "    - far-end: {}\n      delivery: {store_after: never}\n  other")
    async with running(text, plugins=[FarEnd], state=tmp_path) as flow:
        for number in range(3):
            await dies(flow, number)
        FarEnd.says["far-end"] = Retry("busy", after=60)
        *pieces, last = await ask(tmp_path, {"do": "dead.replay", "chosen": {}})
        assert pieces == [{"under_way": 2}] and "stay" in last["error"]
        assert [number for number, *_rest in letters(tmp_path)] == [1, 2, 3] and flow.balanced()


async def test_letters_whose_node_is_no_more_stay_and_are_named(tmp_path: Path) -> None:
    async with running(FLOW, plugins=[FarEnd], state=tmp_path) as flow:
        await dies(flow, 1)
    async with running(FLOW.replace("main", "renamed"), plugins=[FarEnd], state=tmp_path):
        assert await asked(tmp_path, do="dead.replay", chosen={}) == [{"no_node": [[1, FROM]]}]
        assert len(letters(tmp_path)) == 1


async def test_letters_that_are_not_what_came_stay_and_are_never_sent(tmp_path: Path) -> None:
    async with running(FLOW, plugins=[FarEnd], state=tmp_path) as flow:
        await dies(flow, {"n": object()})
        assert await asked(tmp_path, do="dead.replay", chosen={}) == [{"unfit": [1]}]
        with sqlite3.connect(tmp_path / "flowengine.db") as database:
            database.execute("UPDATE dead SET replay = 1")
        database.close()
    before = payloads("far-end")
    async with running(FLOW, plugins=[FarEnd], state=tmp_path) as flow:
        await flow.until(lambda: letters(tmp_path)[0][2] == 0)
        assert payloads("far-end") == before


async def test_what_was_under_way_at_a_stop_is_replayed_at_the_next_start_and_after_a_crash_it_is_not(
    tmp_path: Path,
) -> None:
    async with running(FLOW, plugins=[FarEnd], state=tmp_path) as flow:
        await dies(flow, 1)
        await dies(flow, 2)
    for running_before, replayed in (("yes", []), ("no", [1, 2])):
        with sqlite3.connect(tmp_path / "flowengine.db") as database:
            database.execute("UPDATE dead SET replay = 2")
            database.execute("UPDATE facts SET value = ? WHERE name = 'running'", (running_before,))
        database.close()
        FarEnd.says.clear()
        async with running(FLOW, plugins=[FarEnd], state=tmp_path) as flow:
            marks = [0] * (2 - len(replayed))
            await flow.until(lambda marks=marks: [row[2] for row in letters(tmp_path)] == marks)  # type: ignore[misc]
            assert sorted(payloads("far-end")) == replayed


# The outbox


async def test_rows_of_a_busy_action_are_dropped_and_counted_and_the_lane_works_on(tmp_path: Path) -> None:
    async with running(FLOW, plugins=[FarEnd], state=tmp_path) as flow:
        await stored(flow, tmp_path, 5)
        pieces = await asked(tmp_path, do="outbox.drop", meant={"action": FROM})
        assert sum(piece["done"] for piece in pieces) == 5
        assert flow.engine.pending() == 0 and flow.balanced()
        assert flow.engine.books().reasons[leaving.DROPPED] == 5
        FarEnd.says.clear()
        flow.send("next", into="main", device="7")
        flow.engine.flows[0].lanes[0].turns.wake_all()
        await flow.until(lambda: payloads("far-end") == ["next"])
        assert flow.engine.pending() == 0


async def test_what_is_in_flight_is_neither_dropped_nor_counted_twice(tmp_path: Path) -> None:
    async with running(FLOW, plugins=[FarEnd], state=tmp_path) as flow:
        waits = FarEnd.waits[0] = asyncio.get_running_loop().create_future()
        outcomes = [flow.send(number, into="main", device="7") for number in range(4)]
        assert [(await outcome).state for outcome in outcomes] == ["stored"] * 4
        pieces = await asked(tmp_path, do="outbox.drop", meant={"action": FROM})
        assert sum(piece["done"] for piece in pieces) == 3
        assert flow.engine.pending() == 1 and flow.balanced()
        waits.set_result(None)
        await flow.until(lambda: flow.engine.pending() == 0)
        assert payloads("far-end") == [0] and flow.balanced()
        await until_rows(flow, tmp_path, 0)


async def test_only_the_lane_that_is_meant_is_dropped(tmp_path: Path) -> None:
    async with running(FLOW, plugins=[FarEnd], state=tmp_path) as flow:
        await stored(flow, tmp_path, 2, device="7")
        for number in range(2, 4):
            await flow.send(number, into="main", device="8")
        assert await asked(tmp_path, do="outbox.drop", meant={"action": FROM, "lane": "8"}) == [{"done": 2}]
        assert [(lane["lane"], lane["rows"]) for lane in await asked(tmp_path, do="outbox.list")] == [("7", 2)]
        assert flow.balanced()


async def test_moved_rows_go_out_by_the_other_action_in_order_and_newcomers_behind_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(FLOW, plugins=[FarEnd], state=tmp_path) as flow:
        FarEnd.says["second"] = Retry("busy", after=0.5)
        assert (await flow.send("before", into="other", device="7")).state == "stored"
        await stored(flow, tmp_path, 30)
        pieces = await asked(tmp_path, do="outbox.move", meant={"action": FROM}, to=TO)
        assert sum(piece["done"] for piece in pieces) == 30 and flow.balanced()
        assert (await flow.send("behind", into="other", device="7")).state == "stored"
        del FarEnd.says["second"]
        await flow.until(lambda: flow.engine.pending() == 0)
        assert payloads("second") == ["before", *range(30), "behind"]
        assert payloads("far-end") == [] and flow.balanced()


async def test_a_lane_that_waits_with_attempts_does_not_hand_its_age_to_the_next_message(tmp_path: Path) -> None:
    async with running(FLOW, plugins=[FarEnd], state=tmp_path) as flow:
        await stored(flow, tmp_path, 2)
        [lane] = flow.engine.flows[0].lanes[0].lanes.values()
        assert lane.attempts and lane.first
        await asked(tmp_path, do="outbox.drop", meant={"action": FROM, "upto": 1})
        assert (lane.rows, lane.attempts, lane.first) == (1, 0, 0.0) and flow.balanced()


async def test_rows_and_newcomers_survive_moves_and_drops_while_traffic_goes_on(tmp_path: Path) -> None:
    async with running(FLOW, plugins=[FarEnd], state=tmp_path) as flow:
        FarEnd.says["far-end"] = Retry("busy", after=0)
        sent = 0
        for turn in range(30):
            for device in "abc":
                flow.send(sent, into="main", device=device)
                flow.send(sent + 1, into="other", device=device)
                sent += 2
            if turn % 3 == 0:
                await asked(tmp_path, do="outbox.move", meant={"action": FROM}, to=TO)
            assert flow.balanced()
        FarEnd.says.clear()
        await flow.until(lambda: flow.engine.pending() == 0)
        assert len(set(payloads("far-end")) | set(payloads("second"))) == sent
        assert len(FarEnd.took) == sent and flow.balanced()


async def test_rows_without_an_owner_are_shown_moved_and_dropped_and_the_books_know(tmp_path: Path) -> None:
    async with running(FLOW, plugins=[FarEnd], state=tmp_path) as flow:
        await stored(flow, tmp_path, 3)
        await flow.send(3, into="main", device="8")
    FarEnd.says.clear()
    async with running(FLOW.replace("main", "renamed"), plugins=[FarEnd], state=tmp_path) as flow:
        found = await asked(tmp_path, do="outbox.list")
        assert [(lane["owner"], lane["rows"]) for lane in found] == [(False, 3), (False, 1)]
        books = flow.engine.books()
        assert (books.carried, flow.engine.pending()) == (4, 4) and flow.balanced()
        assert await asked(tmp_path, do="outbox.drop", meant={"action": FROM, "lane": "8"}) == [{"done": 1}]
        assert flow.engine.books().dropped == 1 and flow.balanced()
        assert await asked(tmp_path, do="outbox.move", meant={"action": FROM}, to="f/renamed/far-end") == [{"done": 3}]
        await flow.until(lambda: flow.engine.pending() == 0)
        assert payloads("far-end") == [0, 1, 2]
        books = flow.engine.books()
        assert (books.carried, books.delivered, books.dropped) == (4, 3, 1) and flow.balanced()
        assert flow.engine.ownerless == []


async def test_what_waited_longer_than_the_retention_is_dead_at_the_start(tmp_path: Path) -> None:
    async with running(FLOW, plugins=[FarEnd], state=tmp_path) as flow:
        await stored(flow, tmp_path, 3)
    with sqlite3.connect(tmp_path / "flowengine.db") as database:
        database.execute("UPDATE outbox SET arrived = ? WHERE seq < 3", (time.time() - 31 * 86400,))
    database.close()
    async with running(FLOW, plugins=[FarEnd], state=tmp_path) as flow:
        assert [json.loads(payload) for _n, payload, _mark in letters(tmp_path)] == [0, 1]
        books = flow.engine.books()
        assert (books.carried, books.dead, flow.engine.pending()) == (3, 2, 1) and flow.balanced()


async def test_what_waited_longer_than_the_retention_is_dead_while_the_engine_runs(tmp_path: Path) -> None:
    async with running(FLOW, plugins=[FarEnd], state=tmp_path) as flow:
        await stored(flow, tmp_path, 3)
        assert flow.engine.desk is not None
        await flow.engine.desk._leaving.sweep(0.0)
        assert len(letters(tmp_path)) == 3 and flow.engine.pending() == 0 and flow.balanced()
        assert flow.engine.books().dead == 3
