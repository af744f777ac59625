"""One failing flow, connection, node or backend does not disturb the others; what cannot start says what to do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowengine_simulate import Faults, Terminals
from flowengine_simulate.payloads import Kind
from flowengine_simulate.terminals import device_ids
from tests.support.broker import MosquittoBroker, free_port
from tests.support.engine import Engine, until
from tests.support.facegate import FaceGate

REPLIES = """
flow: replies
connections:
  gate: {mqtt: {url: "%s"}}
chains:
  uplink:
    - mqtt-in: {connection: gate, topic: "fungxi_{device}_upLink"}
    - json-parse
    - heartbeat-reply
    - mqtt-out: {connection: gate, topic: "fungxi_{device}_downLink"}
"""
COMMANDS = """
flow: commands
connections:
  commands: {http-listener: {listen: "%s"}}
chains:
  commands:
    - http-in: {connection: commands}
    - log: "{payload}"
"""
FAULTY = """
flow: faulty
connections:
  gate: {mqtt: {url: "%s"}}
chains:
  uplink:
    - mqtt-in: {connection: gate, topic: "fungxi_{device}_upLink"}
    - boom
    - log: "never"
"""
BOOM = '''
from flowengine import Message, Step, hookimpl


class Boom(Step):
    """Fails at every message.

    As a node with a fault does.

    Guarantees:
        None.

    Example:
        - boom
    """

    type = "boom"

    def process(self, msg: Message) -> Message:
        raise ZeroDivisionError("boom")


@hookimpl
def flowengine_nodes() -> list[type[Boom]]:
    return [Boom]
'''


def written(folder: Path, **files: str) -> Path:
    """A folder with flow files."""
    flows = folder / "flows"
    flows.mkdir()
    for name, text in files.items():
        (flows / f"{name}.yaml").write_text(text, encoding="utf-8")
    return flows


@contextmanager
def taken_port() -> Iterator[int]:
    """A port where another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def replies_to_all(broker: str) -> None:
    """Let terminals send heartbeats, each of which must be answered."""
    async with Terminals(broker, device_ids(3), rate=30, count=60, mix={"heartbeat": 1}) as terminals:
        await terminals.finished()
    assert (terminals.counts.replies, terminals.counts.replies_missed) == (60, 0)


async def test_heartbeats_are_answered_while_every_post_hangs(tmp_path: Path) -> None:
    with MosquittoBroker() as broker:
        gate = FaceGate(tmp_path, broker.url)
        gate.backend.faults = Faults(hang=True)
        async with gate.backend, gate.engine() as engine:
            devices = device_ids(10)
            mix: dict[Kind, float] = {"heartbeat": 1, "record": 1}
            terminals = Terminals(broker.url, devices, rate=15, count=300, mix=mix, on_report=gate.on_report)
            async with terminals:
                await terminals.finished()
            sides = terminals.counts
            assert sides.heartbeats > 100
            assert (sides.replies, sides.replies_missed) == (sides.heartbeats, 0)
            assert gate.backend.counts.records == 0
            await engine.until_books(lambda books: books.pending == sides.records, "all records pending")
            gate.backend.faults = Faults()
            await until(gate.all_arrived, "all records at the backend")
            assert gate.arrived == gate.sent


async def test_a_flow_whose_port_is_taken_is_left_out_and_named_and_the_other_runs(tmp_path: Path) -> None:
    with MosquittoBroker() as broker, taken_port() as port:
        flows = written(tmp_path, commands=COMMANDS % f"127.0.0.1:{port}", replies=REPLIES % broker.url)
        async with Engine(flows, state=tmp_path / "state") as engine:
            [ready] = engine.named("ready")
            assert (ready["flows"], ready["left_out"]) == (["replies"], ["commands"])
            [told] = engine.named("the flow cannot start; the others go on")
            assert told["flow"] == "commands"
            assert str(port) in told["reason"]
            await replies_to_all(broker.url)
            assert await engine.stop() == 0
            assert engine.books.balanced


async def test_a_node_that_fails_at_every_message_does_not_disturb_another_flow(tmp_path: Path) -> None:
    with MosquittoBroker() as broker:
        flows = written(tmp_path, faulty=FAULTY % broker.url, replies=REPLIES % broker.url)
        (tmp_path / "plugins").mkdir()
        (tmp_path / "plugins" / "boom.py").write_text(BOOM, encoding="utf-8")
        async with Engine(flows, state=tmp_path / "state") as engine:
            await replies_to_all(broker.url)
            await engine.until_books(lambda books: not books.pending, "all is settled")
            assert await engine.stop() == 0
            books = {entry["flow"]: entry for entry in engine.named("books of the flow")[-2:]}
            assert (books["faulty"]["received"], books["faulty"]["dead"]) == (60, 60)
            assert (books["replies"]["received"], books["replies"]["delivered"]) == (60, 60)
            told = engine.named("a message failed: the node has a fault")
            assert told[0]["node"] == "faulty/uplink/boom"
            assert "ZeroDivisionError" in told[0]["exception"]
            assert len(told) < 60, "a node that fails at every message must not fill the log"


async def test_a_taken_port_for_the_embedded_broker_says_how_to_use_what_is_there(tmp_path: Path) -> None:
    with taken_port() as port:
        flows = written(tmp_path, replies=REPLIES % f"embedded:{port}")
        async with Engine(flows, state=tmp_path / "state", waiting=True) as engine:
            assert await engine.ended() == 1
            [told] = engine.named("the flow cannot start; the others go on")
            assert f"MQTT_URL=mqtt://127.0.0.1:{port}" in told["reason"]
            assert f"MQTT_URL=embedded:{port + 1}" in told["reason"]
            assert engine.named("cannot start")[0]["reason"] == "no flow could be started"


async def test_a_taken_port_for_commands_says_whose_it_is_and_what_to_change(tmp_path: Path) -> None:
    with taken_port() as port:
        flows = written(tmp_path, commands=COMMANDS % f"127.0.0.1:{port}")
        async with Engine(flows, state=tmp_path / "state", waiting=True) as engine:
            assert await engine.ended() == 1
            [told] = engine.named("the flow cannot start; the others go on")
            assert f"127.0.0.1:{port}" in told["reason"]
            assert "listen" in told["reason"]


async def test_errors_in_flow_files_are_all_listed_and_nothing_is_started(tmp_path: Path) -> None:
    wrong = REPLIES.replace("json-parse", "json-pars").replace("topic:", "topik:") % "mqtt://127.0.0.1:1"
    flows = written(tmp_path, one=wrong, two=COMMANDS.replace("commands}", "comands}") % f"127.0.0.1:{free_port()}")
    async with Engine(flows, state=tmp_path / "state", waiting=True) as engine:
        assert await engine.ended() == 78
        assert "one.yaml:8:7" in engine.log
        assert "did you mean 'json-parse'" in engine.log
        assert engine.log.count("did you mean 'topic'") == 2
        assert "two.yaml:7:" in engine.log
        assert "did you mean 'commands'" in engine.log
        assert not engine.events


async def test_a_flow_that_waits_for_its_broker_says_so_and_starts_when_it_is_there(tmp_path: Path) -> None:
    port = free_port()
    flows = written(tmp_path, replies=REPLIES % f"mqtt://127.0.0.1:{port}")
    async with Engine(flows, state=tmp_path / "state", waiting=True) as engine:
        told = await engine.until("no connection to the broker")
        assert told["broker"] == f"127.0.0.1:{port}"
        with MosquittoBroker(port=port) as broker:
            await engine.until("ready")
            await replies_to_all(broker.url)
            assert await engine.stop() == 0


async def test_sigterm_ends_an_engine_that_still_waits_for_its_broker(tmp_path: Path) -> None:
    flows = written(tmp_path, replies=REPLIES % f"mqtt://127.0.0.1:{free_port()}")
    async with Engine(flows, state=tmp_path / "state", waiting=True) as engine:
        await engine.until("no connection to the broker")
        assert await engine.stop() == 0
        assert engine.books.balanced
        assert not engine.named("ready")
