"""A flow that cannot start, beside another on the same connection: what its devices send meanwhile waits at the broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from flowengine import Action, Message, StartError
from flowengine.flowfile import project
from flowengine.plugins import load
from flowengine.runtime.engine import Engine
from tests.flowengine_mqtt.conftest import until
from tests.support.broker import MosquittoBroker

WELL = {"sick": False}
SEEN: list[tuple[str, bytes]] = []


class Kept(Action):
    """Keeps what it delivers; in the flow `sick` it can be opened only when the test says so."""

    type = "kept"

    async def open(self) -> None:
        if not WELL.get(self.context.flow, True):
            raise StartError("sick")

    async def deliver(self, msg: Message) -> None:
        SEEN.append((self.context.flow, msg.payload))


@pytest.fixture
def broker() -> Iterator[MosquittoBroker]:
    with MosquittoBroker() as running:
        yield running


def engine(folder: Path, broker: MosquittoBroker) -> Engine:
    """The flows `sick` and `hale`, which take from the topics of their names."""
    flows = folder / "flows"
    flows.mkdir(exist_ok=True)
    (flows / "shared.yaml").write_text(f"connections: {{gate: {{mqtt: {{url: '{broker.url}'}}}}}}\n")
    for name in ("sick", "hale"):
        nodes = f"    - mqtt-in: {{connection: gate, topic: '{name}/{{device}}', qos: 1}}\n    - kept\n"
        (flows / f"{name}.yaml").write_text(f"flow: {name}\nchains:\n  main:\n{nodes}")
    registry = load()
    registry.nodes["kept"] = Kept
    state = folder / "state"
    return Engine(project.load([flows], registry, state=state).checked(), state)


def publish(broker: MosquittoBroker, *messages: tuple[str, bytes]) -> None:
    client: Any = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.connect(broker.host, broker.port)
    client.loop_start()
    for topic, payload in messages:
        client.publish(topic, payload, qos=1).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


async def test_what_is_sent_to_a_flow_that_was_left_out_reaches_it_at_the_next_start(
    tmp_path: Path, broker: MosquittoBroker
) -> None:
    SEEN.clear()
    WELL["sick"] = True
    first = engine(tmp_path, broker)
    await first.start()
    await first.until_ready()
    await first.stop()
    WELL["sick"] = False
    second = engine(tmp_path, broker)
    await second.start()
    await second.until_ready()
    publish(broker, ("sick/1", b"a"), ("hale/1", b"b"), ("sick/1", b"c"), ("hale/1", b"d"))
    await until(lambda: SEEN == [("hale", b"b"), ("hale", b"d")], "what is for the flow that runs")
    await second.stop()
    publish(broker, ("sick/1", b"e"))
    WELL["sick"] = True
    third = engine(tmp_path, broker)
    await third.start()
    await until(lambda: len(SEEN) == 5, "what waited for the other")
    assert SEEN[2:] == [("sick", b"a"), ("sick", b"c"), ("sick", b"e")]
    await third.stop()
    assert third.books().balance(third.pending())
