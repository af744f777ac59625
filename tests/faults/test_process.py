"""Faults of the engine's own process: killed, stopped, frozen, cut off from its disk, poisoned."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from signal import SIGCONT, SIGSTOP, SIGTERM

import pytest

from tests.faults.backend import answers, applies_then_drops, hangs, healthy
from tests.faults.powercut import PowerCut
from tests.faults.rig import POISON, Rig, assert_nothing_lost, flow, full, rounds
from tests.support.engine import until

BOMB = '''
import os

from flowengine import Message, Step, hookimpl


class Bomb(Step):
    """Does to the process what the payload says.

    Guarantees:
        None.

    Example:
        - bomb
    """

    type = "bomb"

    def process(self, msg: Message) -> Message:
        if msg.payload.get("bomb") == "ends":
            os._exit(9)
        if msg.payload.get("bomb") == "raises":
            raise ValueError("a bug of this node")
        return msg


@hookimpl
def flowengine_nodes():
    return [Bomb]
'''
"""A step that raises, or ends the process."""


@pytest.fixture
def chance() -> random.Random:
    """Random moments that can be had again: the seed is shown when a test fails."""
    seed = random.randrange(10**6)
    print(f"random moments of seed {seed}")
    return random.Random(seed)


async def test_kill_9_at_random_moments_loses_nothing(tmp_path: Path, chance: random.Random) -> None:
    async with Rig(tmp_path) as rig:
        async with rig.load():
            for _ in range(rounds(3)):
                rig.backend.behave = chance.choice((healthy, answers(503)))
                await asyncio.sleep(chance.uniform(0.0, 0.7))
                await rig.engine.kill()
                rig.backend.behave = healthy
                await rig.engine.start()
        await assert_nothing_lost(rig, dead=None)


async def test_kill_9_within_the_first_second_loses_nothing(tmp_path: Path, chance: random.Random) -> None:
    async with Rig(tmp_path) as rig:
        async with rig.load():
            for _ in range(rounds(3)):
                await rig.engine.kill()
                await rig.engine.launch()
                await asyncio.sleep(chance.uniform(0.0, 1.0))
            await rig.engine.kill()
            await rig.engine.start()
        await assert_nothing_lost(rig, dead=None)


async def test_kill_9_during_recovery_loses_nothing(tmp_path: Path, chance: random.Random) -> None:
    async with Rig(tmp_path) as rig:
        async with rig.load():
            rig.backend.behave = answers(503)
            await until(lambda: rig.stored >= 150 * rounds(2), "rows in the outbox", 120)
            await rig.engine.kill()
            rig.backend.behave = healthy
            for _ in range(rounds(2)):
                await rig.engine.launch()
                before = len(rig.backend.arrivals)
                goal = before + chance.randrange(1, 100)
                await until(lambda goal=goal: len(rig.backend.arrivals) >= goal, "rows at the backend")  # type: ignore[misc]
                await rig.engine.kill()
            await rig.engine.start()
        await assert_nothing_lost(rig, dead=None)


async def test_kill_9_in_a_flood_loses_nothing(tmp_path: Path, chance: random.Random) -> None:
    """More comes than fits into the window: some goes by the disk, some from memory, in the same lanes."""
    async with Rig(tmp_path) as rig:
        stored = 0
        for _ in range(rounds(3, 20)):
            before = len(rig.backend.arrivals)
            publishing = asyncio.create_task(rig.publisher.burst(500))
            goal = before + chance.randrange(1, 1500)
            await until(lambda goal=goal: len(rig.backend.arrivals) >= goal, "records at the backend")  # type: ignore[misc]
            await rig.engine.kill()
            stored += rig.stored
            await publishing
            await rig.engine.start()
            await rig.arrived()
        assert stored, "no kill found a row"
        await assert_nothing_lost(rig, dead=None)


async def test_kill_9_with_rows_and_unacknowledged_messages_of_one_lane_keeps_their_order(tmp_path: Path) -> None:
    async with Rig(tmp_path, devices=1) as rig:
        both = 0
        for _ in range(rounds(2)):
            rig.backend.behave = hangs
            publishing = asyncio.create_task(rig.publisher.burst(1200))
            await until(lambda: rig.stored > 0, "rows in the outbox")
            await rig.engine.kill()
            await publishing
            both += 0 < rig.stored < len(rig.missing())
            rig.backend.behave = healthy
            await rig.engine.start()
            await rig.arrived()
        assert both, "no kill found rows and unacknowledged messages together"
        await assert_nothing_lost(rig, dead=None)


async def test_sigterm_under_load_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        async with rig.load():
            for _ in range(rounds(2)):
                sent = len(rig.publisher.sent)
                await until(lambda sent=sent: len(rig.publisher.sent) > sent + 20, "load")  # type: ignore[misc]
                assert await rig.engine.stop() == 0
                await rig.engine.start()
        await assert_nothing_lost(rig, repeats=False)


async def test_sigterm_while_the_backend_fails_leaves_all_that_is_pending_on_the_disk(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        async with rig.load():
            for _ in range(rounds(2)):
                rig.backend.behave = answers(503)
                before = rig.stored
                await until(lambda before=before: rig.stored > before + 20, "rows")  # type: ignore[misc]
                assert await rig.engine.stop() == 0
                assert rig.stored == rig.engine.books.pending
                rig.backend.behave = healthy
                await rig.engine.start()
        await assert_nothing_lost(rig, repeats=False)


async def test_a_second_sigterm_ends_at_once_and_loses_nothing(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        async with rig.load():
            for _ in range(rounds(2)):
                rig.backend.behave = hangs
                before = rig.backend.requests
                await until(lambda before=before: rig.backend.requests >= before + 6, "attempts under way")  # type: ignore[misc]
                rig.engine.signal(SIGTERM)
                await rig.engine.until("stopping")
                assert await rig.engine.stop() == 0
                assert rig.engine.named("stopping at once")
                assert rig.stored == rig.engine.books.pending, "what was under way is not all on the disk"
                rig.backend.behave = healthy
                await rig.engine.start()
        await assert_nothing_lost(rig, repeats=False)


async def test_a_process_frozen_so_long_that_the_broker_drops_it_loses_nothing(tmp_path: Path) -> None:
    async with Rig(tmp_path, flows={"rig": flow(mqtt="keepalive: 2s")}) as rig:
        async with rig.load():
            rig.engine.signal(SIGSTOP)
            await asyncio.to_thread(rig.broker.wait_for_log, "has exceeded timeout, disconnecting", 20.0)
            await asyncio.sleep(full(0.0, 86.0))
            rig.engine.signal(SIGCONT)
            await rig.engine.until("connected to the broker", 2)
        await assert_nothing_lost(rig)


async def test_a_power_cut_loses_nothing_that_was_acknowledged(tmp_path: Path, chance: random.Random) -> None:
    cut = PowerCut(tmp_path, tmp_path / "state", chance)
    async with Rig(tmp_path, env=cut.env, flows={"rig": flow(delivery="store_after: 0")}) as rig:
        lost: list[str] = []
        async with rig.load():
            for _ in range(rounds(3)):
                rig.backend.behave = chance.choice((healthy, answers(503)))
                await asyncio.sleep(chance.uniform(0.2, 0.8))
                await rig.engine.kill()
                lost += cut.strike()
                rig.backend.behave = healthy
                await rig.engine.start()
        assert lost, "nothing was ever unsynced: the shim has recorded nothing"
        await assert_nothing_lost(rig, dead=None)


async def test_a_message_at_which_a_node_raises_is_dead_and_the_others_go_on(tmp_path: Path) -> None:
    async with Rig(tmp_path, flows={"rig": flow(steps=["bomb"])}, plugins={"bomb": BOMB}) as rig:
        async with rig.load():
            bad = {rig.publisher.publish(device, bomb="raises") for device in rig.devices}
        await assert_nothing_lost(rig, repeats=False, dead=len(bad))
        assert {letter.record for letter in rig.dead()} == bad
        assert {letter.reason for letter in rig.dead()} == {"ValueError: a bug of this node"}


async def until_dead(rig: Rig) -> int:
    """Start the engine again whenever it ends, until there is a dead letter; how often it ended."""
    ends = 0
    while not rig.dead():
        if not rig.engine.running:
            assert await rig.engine.ended() == 9
            ends += 1
            assert ends <= 6, "it goes on ending"
            await rig.engine.launch()
        await asyncio.sleep(0.02)
    await rig.engine.until("ready")
    return ends


async def test_a_message_that_ends_the_process_three_times_is_dead_and_all_others_arrive(tmp_path: Path) -> None:
    async with Rig(tmp_path, flows={"rig": flow(steps=["bomb"])}, plugins={"bomb": BOMB}) as rig:
        await rig.publisher.burst(5)
        bad = rig.publisher.publish(rig.devices[0], bomb="ends")
        await rig.publisher.burst(5)
        assert await until_dead(rig) == 3
        await assert_nothing_lost(rig, dead=1)
        (letter,) = rig.dead()
        assert (letter.record, letter.reason) == (bad, POISON)


async def test_a_stored_message_that_ends_the_process_three_times_is_dead_and_all_others_arrive(tmp_path: Path) -> None:
    behind = "    - bomb\n    - log: {text: taken}\n"
    async with Rig(tmp_path, flows={"rig": flow(extra=behind)}, plugins={"bomb": BOMB}) as rig:
        rig.backend.behave = applies_then_drops
        await rig.publisher.burst(5)
        bad = rig.publisher.publish(rig.devices[0], bomb="ends")
        await rig.publisher.burst(5)
        await until(lambda: rig.stored >= len(rig.publisher.sent) - 6, "rows in the outbox")
        rig.backend.behave = healthy
        assert await until_dead(rig) == 3
        await assert_nothing_lost(rig, dead=1)
        (letter,) = rig.dead()
        assert (letter.record, letter.reason) == (bad, POISON)
        assert rig.backend.times[bad] >= 3
