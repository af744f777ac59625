"""Nothing is lost that a terminal was told was taken: kill -9, signals and a broker's restart under load.

Records come at QoS 1, some 150 a second, also while the engine is away.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals

import pytest

from flowengine_simulate import Faults, Terminals
from flowengine_simulate.terminals import device_ids
from tests.support.broker import MosquittoBroker, free_port
from tests.support.engine import Engine, until
from tests.support.facegate import FaceGate

DEVICES = device_ids(6)
RATE = 25.0
QUEUE = "max_queued_messages 100000"
"""Mosquitto keeps 1000 messages for a session that is away, and drops what goes beyond: on a slow machine the starts of the
engine take long enough for that. The embedded one is told the same."""


async def under_load(gate: FaceGate, broker: str, trouble: Callable[[], Awaitable[None]]) -> None:
    """Let terminals report all along, have some trouble meanwhile, and wait until everything has arrived."""
    gate.backend.faults = Faults(delay="20ms")  # so that the trouble finds records under way
    async with Terminals(broker, DEVICES, rate=RATE, mix={"record": 1}, on_report=gate.on_report) as terminals:
        await until(lambda: sum(map(len, gate.arrived.values())) > 30, "the first records")
        await trouble()
        gate.backend.faults = Faults()
        before = terminals.counts.sent
        await until(lambda: terminals.counts.sent > before + 30, "reports after the trouble")
    assert terminals.counts.acknowledged == terminals.counts.sent
    await until(gate.all_arrived, "all records at the backend")


def assert_nothing_lost(gate: FaceGate) -> None:
    """Each record is at the backend, first arrivals in order, repeats with the key of the first."""
    assert gate.arrived == gate.sent
    assert all(len(set(keys)) == 1 and keys[0] for keys in gate.keys.values())
    assert len({keys[0] for keys in gate.keys.values()}) == len(gate.keys)


VERSION_3 = '{mqtt: {url: "${mqtt}", version: "3.1.1"}}'


@pytest.mark.parametrize(
    ("url", "connection"),
    [("mqtt://127.0.0.1:{}", ""), ("mqtt://127.0.0.1:{}", VERSION_3), ("embedded:{}", "")],
    ids=["MQTT 5", "MQTT 3.1.1", "embedded"],
)
async def test_kill_9_at_any_moment_loses_no_record(url: str, connection: str, tmp_path: Path) -> None:
    port = free_port()
    gate = FaceGate(tmp_path, url.format(port), connection=connection)
    with nullcontext() if url.startswith("embedded") else MosquittoBroker(QUEUE, port=port):
        async with gate.backend, gate.engine() as engine:
            await killed_again_and_again(gate, engine, port)


async def killed_again_and_again(gate: FaceGate, engine: Engine, port: int) -> None:
    """Kill the engine under load: at random moments, at once after `ready`, before it, and stop it in the end."""
    chance = random.Random(seed := random.randrange(10**6))
    print(f"random moments of seed {seed}")

    async def trouble() -> None:
        for before_ready, at_once in ((True, 0.0), (False, 0.0), (True, chance.uniform(0, 0.6)), (False, 0.0)):
            await engine.kill()
            if before_ready:  # two ends in a row: what was in flight at three would be taken for poison
                await engine.launch()
                await asyncio.sleep(at_once)
                await engine.kill()
            await engine.start()
            arrived = sum(map(len, gate.arrived.values()))
            await until(lambda: sum(map(len, gate.arrived.values())) > arrived + 30, "records after a kill")  # noqa: B023
            await asyncio.sleep(chance.uniform(0, 0.1))
        await engine.kill()
        await engine.start()

    await under_load(gate, f"mqtt://127.0.0.1:{port}", trouble)
    assert_nothing_lost(gate)
    await engine.until_books(lambda books: not books.pending, "nothing pending")
    assert await engine.stop() == 0
    assert engine.books.balanced
    assert engine.books.dead == 0


@pytest.mark.parametrize("number", [SIGTERM, SIGINT])
async def test_a_stop_under_load_loses_nothing_repeats_nothing_and_ends_with_balanced_books(
    number: Signals, tmp_path: Path
) -> None:
    with MosquittoBroker(QUEUE) as broker:
        gate = FaceGate(tmp_path, broker.url)
        async with gate.backend, gate.engine() as engine:

            async def trouble() -> None:
                for _ in range(2):
                    assert await engine.stop(number) == 0
                    assert engine.books.balanced
                    assert engine.books.dead == 0
                    await engine.start()

            await under_load(gate, broker.url, trouble)
            assert_nothing_lost(gate)
            assert gate.repeats == 0
            assert await engine.stop(number) == 0
            assert engine.books.balanced
            assert engine.books.pending == 0


async def test_a_restart_of_the_broker_under_load_loses_no_record(tmp_path: Path) -> None:
    with MosquittoBroker(QUEUE) as broker:
        gate = FaceGate(tmp_path, broker.url)
        async with gate.backend, gate.engine() as engine:

            async def trouble() -> None:
                await asyncio.to_thread(broker.restart)
                await engine.until("connected to the broker", 2)

            await under_load(gate, broker.url, trouble)
            assert_nothing_lost(gate)
            assert engine.named("connected to the broker")[1]["session"] == "resumed"
            assert await engine.stop() == 0
            assert engine.books.balanced


async def test_a_second_signal_hurries_and_what_was_under_way_is_not_lost(tmp_path: Path) -> None:
    with MosquittoBroker(QUEUE) as broker:
        gate = FaceGate(tmp_path, broker.url)
        async with gate.backend, gate.engine() as engine:
            gate.backend.faults = Faults(hang=True)
            terminals = Terminals(broker.url, DEVICES, rate=RATE, count=30, mix={"record": 1}, on_report=gate.on_report)
            async with terminals:
                await terminals.finished()
            await until(lambda: gate.backend.counts.requests == len(DEVICES), "a request for each device")
            engine.signal(SIGTERM)
            await engine.until("stopping")
            engine.signal(SIGTERM)
            await engine.until("stopping at once")
            assert await engine.ended() == 0
            assert engine.books.balanced
            assert engine.books.pending > 0
            gate.backend.faults = Faults()
            await engine.start()
            await until(gate.all_arrived, "all records at the backend")
            assert_nothing_lost(gate)
