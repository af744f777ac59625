"""The node `mqtt-out`."""

from __future__ import annotations

from typing import Any

import pytest

from flowengine import Drop, Reject, Result, Retry
from flowengine.testing import FlowError, deliver, make, message
from flowengine_mqtt.mqtt_out import MqttOut
from tests.flowengine_mqtt.stand_in import StandIn, connection


def node(options: str) -> tuple[MqttOut, StandIn]:
    gate, session = connection()
    return make(MqttOut, f"{{connection: gate, {options}}}", connections={"gate": gate}), session


@pytest.mark.parametrize(
    ("payload", "published"),
    [("open", b"open"), (b"\xff\x00", b"\xff\x00"), ({"cmd": "开"}, '{"cmd":"开"}'.encode()), (None, b"null")],
)
async def test_a_text_and_bytes_go_as_they_are_and_the_rest_as_json(payload: Any, published: bytes) -> None:
    out, session = node('topic: "to/{device}"')
    assert await deliver(out, message(payload, device="7")) == Result()
    assert session.published == [("to/7", published, 0)]


async def test_qos_0_without_a_connection_is_dropped_as_offline() -> None:
    out, session = node("topic: t")
    session.online = False
    assert await deliver(out, message("x")) == Drop("offline")
    assert not out.confirming


async def test_qos_1_is_delivered_at_its_puback_and_retried_without_a_connection() -> None:
    out, session = node("topic: t, qos: 1")
    assert out.confirming
    assert await deliver(out, message("x")) == Result(status=16)
    session.online = False
    with pytest.raises(Retry):
        await deliver(out, message("x"))


@pytest.mark.parametrize("device", ["a/b", "+", "#", "a\n"])
async def test_a_value_that_would_be_another_topic_is_refused(device: str) -> None:
    out, session = node('topic: "to/{device}"')
    with pytest.raises(Reject):
        await deliver(out, message("x", device=device))
    assert session.published == []


async def test_a_payload_of_its_own_is_published_instead() -> None:
    out, session = node('topic: t, payload: {cmd: open, door: "{payload.door}"}')
    await deliver(out, message({"door": 3}))
    assert session.published == [("t", b'{"cmd":"open","door":3}', 0)]


def test_qos_2_is_refused_with_what_to_write() -> None:
    with pytest.raises(FlowError, match="QoS 2 is not used: write 1"):
        node("topic: t, qos: 2")


@pytest.mark.parametrize("qos", [0, 1])
async def test_the_broker_is_told_how_long_a_message_that_expires_is_worth_delivering(qos: int) -> None:
    out, session = node(f"topic: t, qos: {qos}")
    out.expire_after = 30.0
    msg = message("x")
    msg.outcome.arrived -= 10.0
    await deliver(out, msg)
    (left,) = session.times_left
    assert left is not None and 19.0 < left <= 20.0
    out.expire_after = None
    await deliver(out, msg)
    assert session.times_left[1] is None
