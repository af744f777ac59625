"""The node `mqtt-in`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flowengine import Outcome
from flowengine.testing import FlowError, make
from flowengine_mqtt.mqtt_in import MqttIn
from tests.flowengine_mqtt.stand_in import connection


def test_it_says_what_a_message_will_know() -> None:
    gate, _session = connection()
    source = make(MqttIn, '{connection: gate, topic: "{site}/{device}/up"}', connections={"gate": gate})
    assert set(source.metadata()) == {"topic", "qos", "retained", "site", "device"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("topic: t, qos: 2", "QoS 2 is not used"),
        ("topic: a+b", "test.yaml:1:27"),
        ('topic: "{a}/{a}"', "twice"),
        ('topic: "{topic}/x"', "taken"),
        ("topic: up, devices: ['7']", "needs {device}"),
    ],
)
def test_what_cannot_be_is_said_at_its_place(options: str, said: str) -> None:
    gate, _session = connection()
    with pytest.raises(FlowError) as error:
        make(MqttIn, f"{{connection: gate, {options}}}", connections={"gate": gate})
    assert said in str(error.value)


async def test_it_listens_before_its_first_await_and_subscribes_to_the_narrowest_filter() -> None:
    gate, session = connection()
    seen: list[tuple[Any, Any]] = []

    def emit(payload: Any, meta: Any, settled: Any = None, **_how: Any) -> Outcome:
        seen.append((payload, dict(meta)))
        return Outcome(settled)

    text = '{connection: gate, topic: "x_{device}_up", devices: ["7"], qos: 0}'
    task = asyncio.create_task(make(MqttIn, text, connections={"gate": gate}).run(emit))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert gate.filters() == {"x_7_up": 0}
    gate._on_message(1, 0, 0, b"x_7_up", b"a")
    gate._on_message(1, 0, 0, b"x_8_up", b"b")  # of another device
    assert seen == [(b"a", {"topic": "x_7_up", "qos": 0, "retained": False, "device": "7"})]
    assert gate.unmatched == 1
    assert session.acknowledged == []
    task.cancel()


def test_of_a_flow_that_was_left_out_the_filter_is_kept() -> None:
    gate, _session = connection()
    make(MqttIn, "{connection: gate, topic: 'x_{device}_up'}", connections={"gate": gate}).left_out()
    assert gate.filters() == {"+": 1}
