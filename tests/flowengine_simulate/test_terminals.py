"""Simulated terminals at a real broker."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from flowengine_simulate.payloads import Report
from flowengine_simulate.terminals import Terminals, device_ids
from tests.support.broker import MosquittoBroker

FAST = 200.0
OnMessage = Callable[[mqtt.Client, str, dict[str, Any]], None]


@pytest.fixture
def broker() -> Iterator[MosquittoBroker]:
    with MosquittoBroker() as broker:
        yield broker


async def until(condition: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    """Return once `condition()` is true; AssertionError naming `what` after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:g} s: {what}") from None


@asynccontextmanager
async def listening(broker: MosquittoBroker, on_message: OnMessage) -> AsyncIterator[mqtt.Client]:
    """A client that hears all uplinks; its thread gives each to `on_message` with its device."""
    subscribed = asyncio.Event()
    loop = asyncio.get_running_loop()
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.on_connect = lambda *_: client.subscribe("+", 1)  # type: ignore[assignment]
    client.on_subscribe = lambda *_: loop.call_soon_threadsafe(subscribed.set)  # type: ignore[assignment]

    def on_any(client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        prefix, device, direction = message.topic.split("_")
        if (prefix, direction) == ("fungxi", "upLink"):
            on_message(client, device, json.loads(message.payload))

    client.on_message = on_any
    client.connect(broker.host, broker.port)
    client.loop_start()
    async with asyncio.timeout(10):
        await subscribed.wait()
    yield client
    client.disconnect()
    await asyncio.to_thread(client.loop_stop)


def reply(client: mqtt.Client, device: str, time: str = "2024-11-30 08:15:30") -> None:
    client.publish(f"fungxi_{device}_downLink", json.dumps({"cmd": "heartD", "time": time}))


async def test_every_report_arrives_on_its_own_uplink_and_is_counted_by_kind(broker: MosquittoBroker) -> None:
    heard: list[tuple[str, dict[str, Any]]] = []
    sent: list[Report] = []
    async with listening(broker, lambda client, device, payload: heard.append((device, payload))):
        terminals = Terminals(broker.url, device_ids(3), rate=FAST, count=100, reply_within=0.2, on_report=sent.append)
        async with terminals:
            await terminals.finished()
        await until(lambda: len(heard) == 100, "all reports")
    counts = terminals.counts
    kinds = Counter(payload["cmd"] for _, payload in heard)
    assert kinds == {
        "heartU": counts.heartbeats,
        "verifiedRecordU": counts.record_messages,
        "strangerRecordU": counts.strangers,
    }
    assert counts.records == sum(len(payload["data"]) for _, payload in heard if "verified" in payload["cmd"])
    assert counts.sent == counts.acknowledged == 100
    by_device = {device: [payload for heard_of, payload in heard if heard_of == device] for device in device_ids(3)}
    assert by_device == {
        device: [report.payload for report in sent if report.device == device] for device in device_ids(3)
    }


async def test_a_heartbeat_answered_on_its_own_downlink_is_a_reply(broker: MosquittoBroker) -> None:
    def answer(client: mqtt.Client, device: str, payload: dict[str, Any]) -> None:
        if payload["cmd"] == "heartU":
            reply(client, device)

    terminals = Terminals(broker.url, device_ids(3), rate=FAST, count=100)
    async with listening(broker, answer), terminals:
        await terminals.finished()
    assert terminals.counts.replies == terminals.counts.heartbeats > 0
    assert terminals.counts.replies_missed == 0


async def test_a_heartbeat_without_a_reply_in_time_is_missed_and_a_late_one_makes_no_good(
    broker: MosquittoBroker,
) -> None:
    async with listening(broker, lambda *_: None) as client:
        terminals = Terminals(broker.url, ["7"], rate=FAST, count=3, mix={"heartbeat": 1}, reply_within=0.2)
        async with terminals:
            await until(lambda: terminals.counts.replies_missed == 3, "three missed")
            reply(client, "7")
            await until(lambda: terminals.counts.replies_unasked == 1, "the late reply")
    assert (terminals.counts.heartbeats, terminals.counts.replies, terminals.counts.replies_missed) == (
        3,
        0,
        3,
    )


async def test_a_reply_to_another_device_is_not_its_reply(broker: MosquittoBroker) -> None:
    def answer_the_other(client: mqtt.Client, device: str, payload: dict[str, Any]) -> None:
        reply(client, "2")

    async with listening(broker, answer_the_other):
        terminals = Terminals(broker.url, ["1", "2"], rate=FAST, count=20, mix={"heartbeat": 1}, reply_within=0.5)
        async with terminals:
            await terminals.finished()
            await until(lambda: terminals.replies_awaited == 0, "all replies due")
    assert terminals.counts.replies <= 10
    assert terminals.counts.replies_missed >= 10


@pytest.mark.parametrize("time", ["2024-11-30T08:15:30", "2024-11-30 8:15:30", "", "2024-13-01 00:00:00"])
async def test_a_reply_in_another_time_format_is_malformed(broker: MosquittoBroker, time: str) -> None:
    async with listening(broker, lambda client, device, payload: reply(client, device, time)):
        terminals = Terminals(broker.url, ["7"], rate=FAST, count=2, mix={"heartbeat": 1}, reply_within=0.3)
        async with terminals:
            await until(lambda: terminals.counts.replies_malformed == 2, "malformed replies")
    assert terminals.counts.replies == 0


@pytest.mark.parametrize("text", ['{"cmd":"openDoor"}', "[1]", "no JSON", "3"])
async def test_any_other_downlink_message_is_a_command(broker: MosquittoBroker, text: str) -> None:
    commands: list[tuple[str, str]] = []
    async with listening(broker, lambda *_: None) as client:
        terminals = Terminals(
            broker.url,
            device_ids(2),
            rate=1,
            reply_within=0.2,
            on_command=lambda *command: commands.append(command),
        )
        async with terminals:
            await until(lambda: terminals.connected == 2, "both connected")
            client.publish("fungxi_123456790_downLink", text, qos=1)
            await until(lambda: terminals.counts.commands == 1, "the command")
    assert commands == [("123456790", text)]


async def test_more_devices_than_connections_all_report_and_hear(broker: MosquittoBroker) -> None:
    def answer(client: mqtt.Client, device: str, payload: dict[str, Any]) -> None:
        reply(client, device)

    async with listening(broker, answer):
        terminals = Terminals(broker.url, device_ids(120), rate=5, count=240, mix={"heartbeat": 1})
        async with terminals:
            await terminals.finished()
    assert terminals.counts.replies == terminals.counts.heartbeats == 240


async def test_nothing_is_lost_or_counted_twice_when_the_broker_is_killed_and_comes_back() -> None:
    """Until it is there, terminals wait; what it had not acknowledged when it died is sent again."""
    broker = MosquittoBroker()
    notices: list[str] = []
    terminals = Terminals(broker.url, device_ids(2), rate=FAST, reply_within=0.2, on_notice=notices.append)
    async with terminals:
        await until(lambda: len(notices) == 1, "a line that says so")
        assert "cannot be reached" in notices[0]
        assert terminals.counts.sent == 0
        with broker:
            await until(lambda: terminals.counts.acknowledged > 50, "acknowledged reports")
            await asyncio.to_thread(broker.kill)
            await until(lambda: terminals.connected == 0, "the loss noticed")
            before = terminals.counts.sent
            await asyncio.to_thread(broker.start)
            await until(lambda: terminals.counts.sent > before + 50, "reports again")
            await terminals.stop()
    assert terminals.unacknowledged == 0
    assert terminals.counts.connections_lost == 2
    assert any("is lost" in notice for notice in notices)
    assert notices[-1] == "all terminals are connected"


async def test_a_paused_terminal_sends_nothing_and_still_hears(broker: MosquittoBroker) -> None:
    async with listening(broker, lambda *_: None) as client:
        terminals = Terminals(broker.url, ["7"], rate=FAST, reply_within=0.2)
        async with terminals:
            await until(lambda: terminals.counts.sent > 0, "a report")
            await terminals.pause()
            sent = terminals.counts.sent
            client.publish("fungxi_7_downLink", "open", qos=1)
            await until(lambda: terminals.counts.commands == 1, "the command")
            assert terminals.counts.sent == sent


@pytest.mark.parametrize("devices", [[], [""], ["1", "+"], ["a/b"]])
def test_a_number_that_cannot_stand_in_a_topic_is_refused(devices: list[str]) -> None:
    with pytest.raises(ValueError, match="number"):
        Terminals("mqtt://127.0.0.1", devices)


async def test_terminals_can_stop_while_the_broker_hangs(broker: MosquittoBroker) -> None:
    terminals = Terminals(broker.url, device_ids(2), rate=FAST, reply_within=0.2)
    async with terminals:
        await until(lambda: terminals.counts.acknowledged > 0, "a PUBACK")
        broker.suspend()
        before = terminals.counts.sent
        await until(lambda: terminals.counts.sent > before, "a report that is not acknowledged")
    assert terminals.unacknowledged > 0


@pytest.mark.parametrize("url", ["http://127.0.0.1", "127.0.0.1:1883", "mqtt://"])
def test_a_url_that_is_no_brokers_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not a broker's URL"):
        Terminals(url, ["7"])
