"""Faults of the broker and of the way to it: gone, mute, slow, unwilling, forgetful, or at somebody else's service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.faults.backend import Backend, Behaviour, Call, Record, answers, hangs, healthy
from tests.faults.chaos_proxy import ChaosProxy
from tests.faults.rig import FULL, ROOMY, Rig, RigEngine, assert_nothing_lost, flow, full, rounds
from tests.support.broker import MosquittoBroker
from tests.support.engine import until
from tests.support.scripted_broker import DISCONNECT, PUBACK, Peer, ScriptedBroker

HOLDS = full(0.0, 5.1)
"""Seconds that a connection holds before the next fault: three that end within 5 s look like a duel over the client id."""
LOSSES = 6
"""How often a connection is lost in the full form: the wait before the next grows, up to a minute, as long as none lasts."""
BACK = 90.0
"""Seconds within which the engine is connected again after any of them."""
FILTER = "rig/+/up"
REFUSED = 0x87  # not authorized (MQTT 5 section 3.9.3)


def subscriptions(broker: MosquittoBroker) -> int:
    """How often Mosquitto was asked for the rig's filter."""
    return broker.log().count(f"\t{FILTER} (QoS 1)")


async def saved(broker: MosquittoBroker) -> None:
    """Return when Mosquitto has begun and ended to write down everything it knows now."""
    goal = broker.log().count("Saving in-memory database") + 2
    await until(lambda: broker.log().count("Saving in-memory database") >= goal, "two saves of Mosquitto")


async def test_a_broker_that_is_restarted_under_load_costs_no_record(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        async with rig.load():
            for restart in range(rounds(1, LOSSES)):
                rig.backend.behave = answers(503) if restart % 2 else healthy
                await asyncio.sleep(HOLDS)
                await asyncio.to_thread(rig.broker.restart)
                again = await rig.engine.until("connected to the broker", restart + 2)
                assert again["session"] == "resumed"
            rig.backend.behave = healthy
        await assert_nothing_lost(rig)


async def test_a_broker_that_is_killed_costs_at_most_what_it_had_not_saved(tmp_path: Path) -> None:
    """That part is not promised: the broker has said yes for it, and forgets it."""
    async with Rig(tmp_path) as rig:
        rig.engine.signal(SIGSTOP)  # so that the broker has something to lose
        await rig.publisher.burst(full(20, 200))
        await saved(rig.broker)
        rig.broker.kill()
        rig.broker.start()
        rig.engine.signal(SIGCONT)
        await rig.arrived()  # all that it had saved
        for _ in range(rounds(1, LOSSES)):
            async with rig.load():
                await asyncio.sleep(HOLDS)
                safe = set(rig.publisher.acknowledged)
                await saved(rig.broker)
                rig.broker.kill()
                unsaved = set(rig.publisher.acknowledged) - safe
                rig.broker.start()
            await until(lambda unsaved=unsaved: rig.missing() <= unsaved, "all that was saved, or came later", BACK)  # type: ignore[misc]
            await rig.engine.until_books(lambda books: not books.pending, "nothing pending")
            forgotten = rig.missing()
            rig.publisher.acknowledged = [record for record in rig.publisher.acknowledged if record not in forgotten]
        await assert_nothing_lost(rig)


async def test_a_network_that_is_slow_costs_no_record_and_no_connection(tmp_path: Path) -> None:
    with MosquittoBroker(ROOMY) as broker:
        async with ChaosProxy(broker.port) as network, Rig(tmp_path, broker=broker, mqtt_url=network.url) as rig:
            async with rig.load():
                network.delay = 0.4
                await asyncio.sleep(full(1.5, 60.0))
            assert network.connections == 1
            network.heal()
            await assert_nothing_lost(rig, repeats=False)


async def test_a_network_that_is_narrow_costs_no_record_and_no_connection(tmp_path: Path) -> None:
    with MosquittoBroker(ROOMY) as broker:
        async with (
            ChaosProxy(broker.port) as network,
            Rig(tmp_path, broker=broker, mqtt_url=network.url, size=1500) as rig,
        ):
            async with rig.load():
                network.throttle = 40_000  # of the 230,000 bytes a second that there are
                await asyncio.sleep(full(2.0, 60.0))
            assert network.connections == 1
            network.heal()
            await assert_nothing_lost(rig, repeats=False)


async def test_a_network_that_swallows_everything_is_noticed_and_costs_no_record(tmp_path: Path) -> None:
    with MosquittoBroker(ROOMY) as broker:
        async with (
            ChaosProxy(broker.port) as network,
            Rig(tmp_path, broker=broker, mqtt_url=network.url, flows={"rig": flow(mqtt="keepalive: 1s")}) as rig,
        ):
            async with rig.load():
                for time in range(rounds(1, LOSSES)):
                    network.blackhole()
                    lost = await rig.engine.until("connection to the broker lost", time + 1)
                    assert lost["reason"] == "the broker did not answer a ping"
                    network.heal()
                    await rig.engine.until("connected to the broker", time + 2)
            await assert_nothing_lost(rig)


async def test_connections_that_are_reset_under_load_cost_no_record(tmp_path: Path) -> None:
    with MosquittoBroker(ROOMY) as broker:
        async with ChaosProxy(broker.port) as network, Rig(tmp_path, broker=broker, mqtt_url=network.url) as rig:
            async with rig.load():
                for time in range(rounds(2, LOSSES)):
                    network.reset()
                    await rig.engine.until("connected to the broker", time + 2)
                    await asyncio.sleep(HOLDS)
            await assert_nothing_lost(rig)


async def test_a_refused_subscription_is_said_is_not_ready_and_is_asked_for_again(tmp_path: Path) -> None:
    mended = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.accept(version=5)
        if peer.number == 1:
            await peer.grant(REFUSED, version=5)
            await mended.wait()
            if not FULL:
                return  # it asks again by itself after a minute, and on a new connection at once
        await peer.grant(1, version=5)
        peer.publish("rig/d1/up", json.dumps({"device": "d1", "number": 1}).encode(), mid=1, version=5)
        await peer.until_closed()

    async with (
        ScriptedBroker(script) as broker,
        Backend() as backend,
        # The script answers no pings while it waits: the engine asks again after a minute.
        scripted_engine(tmp_path, broker, backend, flow(mqtt="keepalive: 120s")) as engine,
    ):
        refused = await engine.until("the broker refused a subscription; nothing will come in on it")
        assert refused["level"] == "error"
        assert refused["filter"] == FILTER
        late = await engine.until("not ready yet")
        assert late["waiting_for"]
        assert not engine.named("ready")
        mended.set()
        await until(lambda: bool(engine.named("ready")), "the event 'ready'", full(20.0, 90.0))
        await until(lambda: backend.times[Record("d1", 1)] == 1, "the record")


def scripted_engine(folder: Path, broker: ScriptedBroker, backend: Backend, text: str = "") -> Any:
    """The engine between a scripted broker and a backend, launched when entered."""
    file = folder / "rig.yaml"
    file.write_text(text or flow(), encoding="utf-8")
    env = {"MQTT_URL": broker.url, "BACKEND_URL": backend.url}

    class Launched(RigEngine):
        async def start(self) -> None:
            await self.launch()

    return Launched(file, state=folder / "state", env=env)


class Thief:
    """Another program with the same client id, which takes the session whenever the engine has it, and confirms nothing."""

    def __init__(self, port: int, client_id: str) -> None:
        self._place = ("127.0.0.1", port)
        self._id = client_id
        self._client: mqtt.Client | None = None

    def strike(self) -> None:
        """Take the session. Blocks."""
        self.leave()
        self._client = client = mqtt.Client(
            CallbackAPIVersion.VERSION2, self._id, protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True
        )
        client.reconnect_delay_set(3600, 3600)
        kept: Any = Properties(PacketTypes.CONNECT)
        kept.SessionExpiryInterval = 3600
        client.connect(*self._place, clean_start=False, properties=kept)
        client.loop_start()

    def leave(self) -> None:
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None


async def test_another_program_with_our_client_id_is_named_gets_us_slowed_down_and_costs_no_record(
    tmp_path: Path,
) -> None:
    said = (
        "thrown off by the broker again and again just after it took us in, most likely because another program uses the same "
        "client id; stop it, or give one of them another client_id"
    )
    async with Rig(tmp_path) as rig:
        client_id = rig.engine.named("connected to the broker")[0]["client_id"]
        thief = Thief(rig.broker.port, client_id)
        async with rig.load():
            for time in range(3):
                await asyncio.to_thread(thief.strike)
                if time < 2:
                    await rig.engine.until("connected to the broker", time + 2)
            duel = await rig.engine.until(said)
            assert duel["client_id"] == client_id
            assert float(duel["again_in"].removesuffix(" s")) >= 30
            await asyncio.to_thread(thief.leave)
            if not FULL:  # what a person does who has stopped the other program and will not wait for a minute
                await rig.engine.kill()
                await rig.engine.start()
            else:
                await until(lambda: len(rig.engine.named("connected to the broker")) == 4, "a connection", 90)
        await assert_nothing_lost(rig)


@pytest.mark.parametrize(
    ("window", "dead", "seconds"),
    [(20, answers(503), full(10.0, 120.0)), (20, hangs, full(2.0, 120.0)), (1, hangs, full(2.0, 120.0))],
    ids=["20-refuses", "20-hangs", "1-hangs"],
)
async def test_a_dead_backend_behind_a_broker_that_queues_1000_costs_no_record(
    window: int, dead: Behaviour, seconds: float, tmp_path: Path
) -> None:
    """Mosquitto's defaults: what it would drop has been taken by the outbox."""
    broker = f"max_inflight_messages {window}\nmax_queued_messages 1000"
    async with Rig(tmp_path, broker=broker, flows={"rig": flow(mqtt='version: "3.1.1"')}) as rig:
        async with rig.load():
            rig.backend.behave = dead
            await asyncio.sleep(seconds)
            await until(lambda: len(rig.rows()) > 100 * seconds, "two thirds of that time's records on the disk")
            rig.backend.behave = healthy
        await assert_nothing_lost(rig)


async def test_redeliveries_after_a_reconnect_join_the_copies_that_are_pending(tmp_path: Path) -> None:
    in_memory = flow(delivery="store_after: 1h")
    with MosquittoBroker(ROOMY) as broker:
        async with (
            ChaosProxy(broker.port) as network,
            Rig(tmp_path, broker=broker, mqtt_url=network.url, flows={"rig": in_memory}) as rig,
        ):
            before = rig.backend.requests
            rig.backend.behave = held = Held()
            await rig.publisher.burst(3)  # one second of waiting for its first attempt, and they would be stored
            await until(lambda: rig.backend.requests - before == len(rig.devices), "a request for each device")
            network.reset()
            await rig.engine.until("connected to the broker", 2)
            await until(lambda: "(d1, q1" in rig.broker.log(), "redeliveries")
            held.release()
            await rig.arrived()
            books = await rig.engine.until_books(lambda books: not books.pending, "nothing pending")
            assert books.received == len(rig.publisher.sent)
            await assert_nothing_lost(rig, repeats=False)


class Held:
    """Takes each record once it is released."""

    def __init__(self, which: Callable[[Record], bool] = lambda record: True) -> None:
        self._which = which
        self._released = asyncio.Event()
        self.records: dict[str, asyncio.Event] = {}

    async def __call__(self, call: Call) -> Any:
        released = self.records.setdefault(call.record.device, asyncio.Event())
        await asyncio.wait(
            [asyncio.ensure_future(self._released.wait()), asyncio.ensure_future(released.wait())],
            return_when=asyncio.FIRST_COMPLETED,
        )
        return await healthy(call)

    def release(self, device: str = "") -> None:
        """Let one device's records go, or all."""
        if device:
            self.records[device].set()
        else:
            self._released.set()


async def test_a_packet_id_that_was_given_to_another_message_confirms_only_that_one(tmp_path: Path) -> None:
    held = Held()
    confirmed: list[tuple[int, list[Record]]] = []
    cut, done = asyncio.Event(), asyncio.Event()

    def record(device: str) -> bytes:
        return json.dumps({"device": device, "number": 1}).encode()

    async def script(peer: Peer) -> None:
        await peer.accept(version=5, session_present=peer.number > 1)
        if peer.number == 1:
            await peer.grant(1, version=5)
            peer.publish("rig/a/up", record("a"), mid=1, version=5)
            peer.publish("rig/b/up", record("b"), mid=2, version=5)
            await cut.wait()
            return
        peer.publish("rig/a/up", record("a"), mid=1, version=5, dup=True)
        peer.publish("rig/c/up", record("c"), mid=2, version=5)
        while len(confirmed) < 2:
            kind, body = await peer.receive()
            assert kind != DISCONNECT
            if kind == PUBACK:
                confirmed.append((int.from_bytes(body[:2], "big"), list(backend.times)))
        done.set()
        await peer.until_closed()

    async with ScriptedBroker(script) as broker, Backend() as backend:
        backend.behave = held
        async with scripted_engine(tmp_path, broker, backend, flow(delivery="store_after: 1h")) as engine:
            await until(lambda: set(held.records) == {"a", "b"}, "requests for a and b")
            cut.set()
            await until(lambda: "c" in held.records, "a request for c")
            held.release("b")  # whose packet id is that of c now
            await until(lambda: Record("b", 1) in backend.times, "b")
            held.release("a")
            await until(lambda: len(confirmed) == 1, "the first PUBACK")
            held.release("c")
            await asyncio.wait_for(done.wait(), 10)
            assert [mid for mid, _there in confirmed] == [1, 2]
            assert Record("c", 1) in confirmed[1][1]
            books = await engine.until_books(lambda books: books.delivered == 3, "three delivered")
            assert (books.received, books.pending) == (3, 0)
    assert set(backend.times.values()) == {1}


async def test_a_session_that_the_broker_has_lost_is_said_and_subscribed_again(tmp_path: Path) -> None:
    with MosquittoBroker(ROOMY, persistence=False) as broker:
        async with Rig(tmp_path, broker=broker) as rig:
            for time in range(rounds(1, LOSSES)):
                async with rig.load():
                    await asyncio.sleep(HOLDS)
                await rig.arrived()  # what is under way in it, a broker that forgets takes with it
                await asyncio.to_thread(broker.restart)
                lost = await rig.engine.until(
                    "the broker has lost our session; what it held back for us while we were away is gone", time + 1
                )
                assert lost["level"] == "warning"
                await until(lambda time=time: subscriptions(broker) == time + 2, "a new subscription")  # type: ignore[misc]
            async with rig.load():
                pass
            await assert_nothing_lost(rig)
