"""What is stored comes back as it was, or stands in the dead letters; it is never sent as something else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flowengine import Message, Result, Retry
from flowengine.delivery import clearing, ticker
from flowengine.testing import RunningFlow, running
from tests.flowengine.runtime.nodes import SCRIPTED, Told

HALF = "half a pair: \ud800"
STORED_FIRST = """
flow: f
chains:
  main:
    - test-in
    - do
    - scripted:
      delivery: {store_after: 0}
"""


ON_REQUEST = "flow: f\nchains:\n  main: [test-in, {{scripted: {{}}, delivery: {{store_after: {store_after}}}}}]\n"


class Odd:
    def __repr__(self) -> str:
        raise ValueError("no")


@asynccontextmanager
async def flow_of(text: str, state: Path, *nodes: type[Any]) -> AsyncIterator[tuple[RunningFlow, Told]]:
    """A flow with a state folder, and its last action."""
    async with running(text, plugins=[*SCRIPTED, *nodes], state=state) as flow:
        node = flow.engine.flows[0].lanes[-1].action
        assert isinstance(node, Told)
        yield flow, node


async def test_a_stored_message_comes_back_as_it_was(tmp_path: Path) -> None:
    payload = {"number": 1.5, "text": "门\0", "list": [None, True, 10**15]}
    async with flow_of(STORED_FIRST, tmp_path) as (flow, node):
        for sent in (payload, b"\xff\x00", "a text", None):
            assert (await flow.send(sent, device="7", topic="t/门", qos=1)).state == "stored"
        await flow.until(lambda: len(node.attempts) == 4)
        assert [msg.payload for msg in node.attempts] == [payload, b"\xff\x00", "a text", None]
        assert all(dict(msg.meta) == {"device": "7", "topic": "t/门", "qos": 1} for msg in node.attempts)
        await flow.until(lambda: not flow.engine.pending())


async def test_metadata_that_json_cannot_hold_comes_back_as_text_and_the_rest_as_it_was(tmp_path: Path) -> None:
    async with flow_of(STORED_FIRST, tmp_path) as (flow, node):
        outcome = await flow.send(1, device="7", said=HALF, odd=Odd(), fine=[1, {"a": None}])
        assert outcome.state == "stored"
        await flow.until(lambda: node.attempts)
        assert dict(node.attempts[0].meta) == {
            "device": "7",
            "said": "half a pair: \\ud800",
            "odd": "<Odd>",
            "fine": [1, {"a": None}],
        }
        assert (await flow.send(2, device="7")).state == "stored"
        await flow.until(lambda: len(node.attempts) == 2)


async def test_a_result_that_json_cannot_hold_does_not_keep_its_message(tmp_path: Path) -> None:
    text = f"{STORED_FIRST}      on_error: drop\n".replace("- do", "- inline")
    async with flow_of(text, tmp_path) as (flow, node):
        inline = flow.engine.flows[0].lanes[0].action
        assert isinstance(inline, Told)
        inline.answers = [Result(200, {"h": HALF}, Odd()), Result(201, {"h": "v"}, {"id": 5})]
        for number in range(2):
            assert (await flow.send(number, device="7")).state == "stored"
        await flow.until(lambda: len(node.attempts) == 2)
        assert [msg.result for msg in node.attempts] == [
            Result(200, {"h": "half a pair: \\ud800"}, "<Odd>"),
            Result(201, {"h": "v"}, {"id": 5}),
        ]


@pytest.mark.parametrize("payload", [HALF, {"n": Odd()}], ids=["half", "object"])
async def test_a_payload_that_cannot_be_stored_is_dead_and_never_sent_as_something_else(
    tmp_path: Path, payload: Any
) -> None:
    async with flow_of(STORED_FIRST, tmp_path) as (flow, node):
        flow.send(payload, device="7")
        assert (await flow.send(2, device="7")).state == "stored"
        await flow.until(lambda: node.attempts and not flow.engine.pending())
        assert [msg.payload for msg in node.attempts] == [2]
        books = flow.engine.books()
        assert (books.dead, books.delivered) == (1, 1)


@pytest.mark.timeout(20)
async def test_a_row_is_not_taken_before_its_commit_was_heard_of(tmp_path: Path) -> None:
    """Else the lane would seem to hold less than nothing, and its worker would turn round and round."""
    async with flow_of(STORED_FIRST, tmp_path) as (flow, node):
        first = asyncio.get_running_loop().create_future()
        node.answers = [first]
        flow.send(1, device="7")
        await flow.until(lambda: node.attempts)
        await flow.send(2, device="7")
        assert flow.engine.outbox is not None
        heard = flow.engine.outbox.stored
        held: list[Any] = []
        flow.engine.outbox.stored = lambda parcels, new: held.append((parcels, new))
        flow.send(3, device="7")
        await flow.until(lambda: held)
        first.set_result(None)
        await flow.until(lambda: len(node.attempts) == 2)
        heard(*held[0])
        await flow.until(lambda: len(node.attempts) == 3 and not flow.engine.pending())


@asynccontextmanager
async def under_way_and_stored(
    state: Path, count: int, store_after: str
) -> AsyncIterator[tuple[RunningFlow, Told, asyncio.Future[None]]]:
    """So many messages of one device, stored for want of room and in memory too; the first waits for the future."""
    async with flow_of(ON_REQUEST.format(store_after=store_after), state) as (flow, node):
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        node.answers = [first]
        outcomes = [flow.send(number, device="7") for number in range(1, count + 1)]
        await flow.until(lambda: node.attempts)
        flow.engine._press()
        assert [(await outcome).state for outcome in outcomes] == ["stored"] * count
        yield flow, node, first


async def test_what_comes_behind_rows_that_go_out_well_is_delivered_from_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ticker, "TICK", 60.0)
    async with under_way_and_stored(tmp_path, 1, store_after="1h") as (flow, _node, first):
        behind = flow.send(2, device="7")
        assert behind.state == "pending"
        first.set_result(None)
        assert (await behind).state == "delivered"
        assert flow.engine.outbox is not None
        assert flow.engine.outbox.puts == 1


async def test_what_waits_behind_rows_is_stored_before_the_next_tick_is_over(tmp_path: Path) -> None:
    async with under_way_and_stored(tmp_path, 1, store_after="1h") as (flow, node, first):
        assert [(await flow.send(number, device="7")).state for number in (2, 3)] == ["stored", "stored"]
        first.set_result(None)
        await flow.until(lambda: len(node.attempts) == 3 and not flow.engine.pending())
        assert [msg.payload for msg in node.attempts] == [1, 2, 3]


async def test_what_comes_when_the_head_is_overdue_is_stored_behind_what_still_waits_for_the_tick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would have the lower number, and be passed over when the other one is delivered."""
    monkeypatch.setattr(ticker, "TICK", 60.0)
    async with under_way_and_stored(tmp_path, 1, store_after="300ms") as (flow, node, first):
        waits = flow.send(2, device="7")
        [lane] = flow.engine.flows[0].lanes[0].lanes.values()
        await flow.until(lambda: time.monotonic() - lane.first > 0.3)
        assert (await flow.send(3, device="7")).state == "stored"
        assert waits.state == "stored"
        first.set_result(None)
        await flow.until(lambda: len(node.attempts) == 3 and not flow.engine.pending())
        assert [msg.payload for msg in node.attempts] == [1, 2, 3]


async def test_the_memory_of_a_lane_is_not_let_go_before_what_stands_behind_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what is in memory only would overtake the rows."""
    monkeypatch.setattr(ticker, "TICK", 60.0)
    async with under_way_and_stored(tmp_path, 2, store_after="1h") as (flow, node, first):
        assert flow.send(3, device="7").state == "pending"
        [lanes] = flow.engine.flows[0].lanes
        async with lanes.turns.pause():
            assert clearing.at_rest(lanes) == {"7": 2}
        first.set_result(None)
        await flow.until(lambda: len(node.attempts) == 3 and not flow.engine.pending())
        assert [msg.payload for msg in node.attempts] == [1, 2, 3]


class Prepared(Told):
    """Sends what it prepared."""

    type = "prepared"

    def prepare(self, msg: Message) -> bytes:
        return b"prepared"

    async def deliver(self, msg: Message) -> None:
        self._next(msg)


async def test_what_was_prepared_is_sent_whatever_the_payload_was(tmp_path: Path) -> None:
    async with flow_of(STORED_FIRST.replace("scripted", "prepared"), tmp_path, Prepared) as (flow, node):
        assert (await flow.send({"n": Odd()}, device="7")).state == "stored"
        await flow.until(lambda: node.attempts and not flow.engine.pending())
        assert [msg.body for msg in node.attempts] == [b"prepared"]


async def test_the_attempts_of_a_head_that_could_not_be_stored_are_not_the_next_ones(tmp_path: Path) -> None:
    text = "{flow: f, chains: {main: [test-in, {scripted: {}, delivery: {store_after: 1h}}]}}"
    async with flow_of(text, tmp_path) as (flow, node):
        node.answers = [Retry("busy", after=0)]
        flow.send(HALF, device="7")
        flow.send(2, device="7")
        [lanes] = flow.engine.flows[0].lanes
        seen = []

        async def deliver(_msg: Message) -> None:
            seen.append([lane.attempts for lane in lanes.lanes.values()])

        await flow.until(lambda: node.attempts)
        lanes._deliver = deliver
        await flow.until(lambda: seen and not flow.engine.pending())
        assert seen == [[1]]
