"""Lanes with stored and pending messages, against a model: whatever fails, waits, or ends in whatever order, nothing is lost.

The machine sends messages, answers attempts, holds the disk up, has it be full, lets time go by, stops the engine and kills
it; a killed one is started again from a copy of what was on the disk at that moment, and what no sender heard a yes for is sent
again, in order.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from flowengine import Action, Message, Outcome, Reject, Retry
from flowengine.delivery import clearing, keeping, lanes, poison, retry, store
from flowengine.runtime import flow as runtime_flow
from flowengine.testing import RunningFlow, running

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "1"))
DEVICES = ("a", "b", "c")
ANSWERS: dict[str, Callable[[], BaseException | None]] = {
    "yes": lambda: None,
    "later": lambda: Retry("busy", after=0),
    "never": lambda: Reject("no"),
    "fault": lambda: ValueError("fault"),
}
FLOW = """
flow: f
chains:
  main:
    - test-in
    - split: ""
    - far-end: {{}}
      delivery:
        order_by: "{{payload.device}}"
        id_from: "{{payload.number}}"
        store_after: {store_after}
        concurrency: {concurrency}
"""
AND_ON = """\
    - name: beyond
      far-end: {{}}
      delivery:
        order_by: "{{payload.device}}"
        id_from: "{{payload.number}}"
        store_after: {store_after}
"""


class Attempt:
    """A message on its way to the far end."""

    def __init__(self, msg: Message) -> None:
        self.number: int = msg.payload["number"]
        self.device: str = msg.payload["device"]
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class FarEnd(Action):
    """Waits for the machine to say what becomes of an attempt."""

    type = "far-end"
    confirming: ClassVar[bool] = True

    def setup(self) -> None:
        self.attempts: list[Attempt] = []
        self.healthy = False
        self.arrived: list[tuple[str, int]] = []
        """What it has answered for good, be it with a no."""
        self.refused: set[int] = set()

    async def deliver(self, msg: Message) -> None:
        attempt = Attempt(msg)
        assert attempt.device not in {other.device for other in self.attempts}, "two in flight in one lane"
        if not self.healthy:
            self.attempts.append(attempt)
            try:
                await attempt.answer
            except (Reject, ValueError):
                self.arrived.append((attempt.device, attempt.number))
                self.refused.add(attempt.number)
                raise
            finally:
                self.attempts.remove(attempt)
        self.arrived.append((attempt.device, attempt.number))


class Disk:
    """Holds the writing thread of a store up, in the middle of a transaction."""

    def __init__(self, of: store.Store) -> None:
        self._store = of
        self._gate: threading.Event | None = None

    @property
    def held(self) -> bool:
        return self._gate is not None

    def hold(self) -> None:
        if self._gate is None:
            gate = self._gate = threading.Event()
            reached = threading.Event()

            def wait(_database: sqlite3.Connection) -> None:
                reached.set()
                assert gate.wait(30)

            self._store.change(wait)
            assert reached.wait(30)

    def release(self) -> None:
        if self._gate is not None:
            self._gate.set()
            self._gate = None

    async def written(self) -> None:
        """Return when all that was to be written is."""
        written = asyncio.get_running_loop().create_future()
        self._store.change(lambda _database: None, written.set_result)
        await written

    def full_once(self) -> None:
        """The next transaction fails as on a full disk, and is done again."""
        failures = [sqlite3.OperationalError("database or disk is full")]
        failures[0].sqlite_errorname = "SQLITE_FULL"

        def fail(_database: sqlite3.Connection) -> None:
            if failures:
                raise failures.pop()

        self._store.change(fail)


class LanesOnDisk(RuleBasedStateMachine):
    """One action behind a split, or one after the other, their messages in a store."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="lanes-"))
        self.runs = 0
        self.number = 0
        self.sent: list[list[dict[str, Any]]] = []
        self.outcomes: list[Outcome] = []
        self.acknowledged: set[int] = set()
        """Places in `sent` for which the sender heard a yes."""
        self.arrived: list[list[tuple[str, int]]] = [[], []]
        """At each far end: devices and numbers."""
        self.refused: set[int] = set()
        """Given up once, at whatever action: if its sender never heard of that and sends it again, it may go through, late."""
        self.patches = [
            patch.object(retry, "SHORTEST_AFTER", 0.002),
            patch.object(lanes, "_JITTER", 0.01),
            patch.object(store, "_AGAIN", 0.01),
            patch.object(poison, "_REST_WITHIN", 0.02),
            patch.object(runtime_flow, "_ALONE_WITHIN", 0.02),
        ]
        for each in self.patches:
            each.start()

    @initialize(
        store_after=st.sampled_from(["0", "20ms", "1h"]),
        beyond=st.sampled_from([None, "0", "20ms", "1h"]),
        concurrency=st.sampled_from([1, 2, 32]),
        kept=st.sampled_from([keeping.KEPT_BYTES, 1000, 0]),
    )
    def begin(self, store_after: str, beyond: str | None, concurrency: int, kept: int) -> None:
        self.patches.append(patch.object(keeping, "KEPT_BYTES", kept))
        self.patches[-1].start()
        self.text = FLOW.format(store_after=store_after, concurrency=concurrency)
        if beyond is not None:
            self.text += AND_ON.format(store_after=beyond)
        self.start()

    def start(self) -> None:
        self.runs += 1
        self.context: AbstractAsyncContextManager[RunningFlow] = running(self.text, plugins=[FarEnd], state=self.state)
        self.flow = self.run(self.context.__aenter__())
        self.lanes = self.flow.engine.flows[0].lanes
        self.far_ends = [each.action for each in self.lanes if isinstance(each.action, FarEnd)]
        assert self.flow.engine.store is not None
        self.disk = Disk(self.flow.engine.store)
        again = [place for place in range(len(self.sent)) if place not in self.acknowledged]
        for place in again:
            self.outcomes[place] = self.in_loop(self.flow.send, self.sent[place])

    def end(self) -> None:
        self.disk.release()
        self.flow.engine.hurry.set()
        self.run(self.context.__aexit__(None, None, None))

    @property
    def state(self) -> Path:
        return self.folder / str(self.runs)

    def run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    def in_loop(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call something where a loop runs, and let the loop go round once."""

        async def called() -> Any:
            made = call(*arguments)
            await asyncio.sleep(0)
            return made

        return self.run(called())

    def note(self) -> None:
        """See what the far end has, and for what the sender has heard a yes."""
        for arrived, far_end in zip(self.arrived, self.far_ends, strict=False):
            arrived += far_end.arrived
            far_end.arrived.clear()
            self.refused |= far_end.refused
        for place, outcome in enumerate(self.outcomes):
            if outcome.state in ("stored", "delivered", "dropped", "dead"):
                self.acknowledged.add(place)

    # What may happen

    @rule(devices=st.lists(st.sampled_from(DEVICES), min_size=1, max_size=3))
    def a_message_of_some_parts_comes(self, devices: list[str]) -> None:
        parts = []
        for device in devices:
            self.number += 1
            parts.append({"device": device, "number": self.number})
        self.sent.append(parts)
        self.outcomes.append(self.in_loop(self.flow.send, parts))

    @rule(which=st.integers(0, 5), answer=st.sampled_from(["yes", "yes", "later", "later", "later", "never", "fault"]))
    def the_far_end_answers(self, which: int, answer: str) -> None:
        open_ones = [each for far_end in self.far_ends for each in far_end.attempts if not each.answer.done()]
        if not open_ones:
            return
        attempt = open_ones[which % len(open_ones)]
        error = ANSWERS[answer]()
        if error is None:
            self.in_loop(attempt.answer.set_result, None)
        else:
            self.in_loop(attempt.answer.set_exception, error)

    @rule(seconds=st.sampled_from([0.0, 0.0, 0.003, 0.05]))
    def time_goes_by(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @rule()
    def the_disk_holds_up(self) -> None:
        self.disk.hold()

    @rule()
    def the_disk_goes_on(self) -> None:
        self.disk.release()

    @rule()
    def the_disk_is_full_for_a_moment(self) -> None:
        self.disk.full_once()

    @rule()
    def somebody_needs_room(self) -> None:
        self.in_loop(self.flow.engine._press)

    @rule()
    def a_person_wants_to_know_what_may_leave(self) -> None:
        async def looks() -> None:
            for of_action in self.lanes:
                async with of_action.turns.pause():
                    clearing.at_rest(of_action)

        self.run(looks())

    @rule()
    def the_engine_is_stopped_and_started(self) -> None:
        self.end()
        self.note()
        kept = self.state
        self.runs += 1
        kept.rename(self.state)
        self.runs -= 1
        self.start()

    @rule()
    def the_engine_is_killed_and_started(self) -> None:
        self.disk.hold()  # whatever was told to a sender is on the disk, and nothing is written while it is copied
        self.note()
        killed, self.runs = self.state, self.runs + 1
        shutil.copytree(killed, self.state, ignore=shutil.ignore_patterns("control*"))
        self.runs -= 1
        self.end()
        shutil.rmtree(killed)
        self.start()

    # What holds

    @invariant()
    def the_books_balance(self) -> None:
        assert self.flow.balanced(), self.flow.engine.books().lines(self.flow.engine.pending())

    @invariant()
    def what_is_stored_of_a_lane_stands_in_order_and_before_what_is_not(self) -> None:
        """Rows come back in the order of their numbers: a later message with a number before an older one's would overtake it."""
        for of_action in self.lanes:
            for lane in of_action.lanes.values():
                numbers = [parcel.seq for parcel in lane.parcels]
                stored = [number for number in numbers if number]
                assert stored == sorted(stored), numbers
                assert numbers == stored + [0] * (len(numbers) - len(stored)), numbers
                if lane.coming or lane.rows:
                    assert len(stored) == len(numbers), "on the disk before what stands before it"

    @invariant()
    def first_arrivals_of_a_device_are_in_order(self) -> None:
        self.note()
        for arrived, late in zip(self.arrived, (set(), self.refused), strict=True):
            for device in DEVICES:
                numbers = [number for where, number in arrived if where == device and number not in late]
                first = list(dict.fromkeys(numbers))
                assert first == sorted(first), (device, numbers)

    def teardown(self) -> None:
        try:
            if self.runs:
                self.all_is_well()
        finally:
            for each in self.patches:
                each.stop()
            self.loop.close()
            shutil.rmtree(self.folder)

    def all_is_well(self) -> None:
        """Once everything works again, everything arrives or is dead, and no row is left."""
        self.disk.release()
        for far_end in self.far_ends:
            far_end.healthy = True
            for attempt in list(far_end.attempts):
                if not attempt.answer.done():
                    self.in_loop(attempt.answer.set_result, None)
        try:
            # What is held behind a suspect is not received yet: neither pending nor settled.
            self.run(
                self.flow.until(lambda: not (self.flow.engine.pending() or any(o.open for o in self.outcomes)), 20)
            )
            self.first_arrivals_of_a_device_are_in_order()
            assert len(self.acknowledged) == len(self.sent)
            assert self.flow.engine.outbox is not None
            assert not any(each.lanes or each._by_id for each in self.lanes)
            self.flow.engine.outbox.flush()
            self.run(self.disk.written())
        finally:
            self.end()
        database = sqlite3.connect(self.state / "flowengine.db")
        [(rows,)] = database.execute("SELECT COUNT(*) FROM outbox")
        dead = {int(number) for (number,) in database.execute("SELECT id FROM dead")}
        database.close()
        assert rows == 0
        numbers = {part["number"] for parts in self.sent for part in parts}
        assert numbers == dead | {number for _device, number in self.arrived[len(self.far_ends) - 1]}


TestLanesOnDisk = pytest.mark.timeout(60 + 30 * ROUNDS)(LanesOnDisk.TestCase)
TestLanesOnDisk.settings = settings(
    max_examples=12 * ROUNDS, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
