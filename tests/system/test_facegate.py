"""The face-gate flow as it is shipped, run by the real command between terminals, a broker and a backend."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import trustme

from flowengine_simulate import Terminals
from flowengine_simulate.payloads import TIME_FORMAT, Kind
from flowengine_simulate.terminals import device_ids
from tests.support.broker import MosquittoBroker, find_mosquitto, free_port
from tests.support.engine import Engine, until
from tests.support.facegate import FaceGate
from tests.support.wiretap import Wiretap

DEVICES = device_ids(20)
RATE = 20.0
MIX: dict[Kind, float] = {"heartbeat": 5, "record": 3, "stranger": 2}


class Command(NamedTuple):
    """The body of a POST and what the terminal is to get. `as_json`: any JSON that says the same will do."""

    body: str
    arrives: bytes
    as_json: bool = False


COMMANDS = {
    # What the script sent.
    "text": Command('"restart"', b"restart"),
    "text that is JSON": Command(json.dumps('{"cmd": "openDoorD", "id": 7}'), b'{"cmd": "openDoorD", "id": 7}'),
    "Chinese": Command('"开门"', "开门".encode()),
    "Chinese, escaped": Command(json.dumps("开门"), "开门".encode()),
    "empty text": Command('""', b""),
    "number": Command("42", b"42"),
    "fraction": Command("-1.5", b"-1.5"),
    # Where the script raised.
    "object": Command('{"cmd": "openDoorD", "id": 7}', b'{"cmd": "openDoorD", "id": 7}', True),
    "Chinese in an object": Command(
        '{"cmd": "showD", "text": "请通过"}', '{"cmd":"showD","text":"请通过"}'.encode(), True
    ),
    "list": Command('[1, "two", null]', b'[1, "two", null]', True),
    "nested": Command('{"a": {"b": [{"c": {}}, []]}}', b'{"a": {"b": [{"c": {}}, []]}}', True),
    # Where it sent Python's words for them: docs/from-the-script.md.
    "true": Command("true", b"true"),
    "false": Command("false", b"false"),
    "null": Command("null", b"null"),
}


def is_json(payload: bytes) -> bool:
    """Whether a payload can be read as JSON."""
    try:
        json.loads(payload)
    except ValueError:
        return False
    return True


async def post_all(gate: FaceGate, devices: list[str]) -> dict[str, list[Command]]:
    """Post every form of command to the first terminal at `/` and to the others at their own paths; who should get what."""
    due: dict[str, list[Command]] = {device: [] for device in devices}
    async with aiohttp.ClientSession() as session:
        for number, command in enumerate([*COMMANDS.values()] * 2):
            device = devices[0] if number < len(COMMANDS) else devices[1 + number % (len(devices) - 1)]
            url = gate.url(None if device == devices[0] else device)
            headers = {"Content-Type": "application/json"}
            async with session.post(url, data=command.body.encode(), headers=headers) as answer:
                assert (answer.status, await answer.text()) == (200, "ok")
            due[device].append(command)
    return due


def assert_received(tap: Wiretap, due: dict[str, list[Command]], heartbeats: Counter[str]) -> None:
    """Every terminal got its commands in order, and as many heartbeat replies as it asked for, in the script's form."""
    for device, commands in due.items():
        heard = [payload for topic, payload in tap.heard if topic == f"fungxi_{device}_downLink"]
        replies = [p for p in heard if is_json(p) and isinstance(v := json.loads(p), dict) and v.get("cmd") == "heartD"]
        others = [p for p in heard if p not in replies]
        assert len(replies) == heartbeats[device]
        for reply in replies:
            fields = json.loads(reply)
            assert list(fields) == ["cmd", "time"]
            assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", fields["time"])
            assert abs((datetime.now() - datetime.strptime(fields["time"], TIME_FORMAT)).total_seconds()) < 120
        assert [json.loads(p) if c.as_json else p for c, p in zip(commands, others, strict=True)] == [
            json.loads(c.arrives) if c.as_json else c.arrives for c in commands
        ]


async def busy_hour(gate: FaceGate, engine: Engine, broker: str, *, messages: int) -> None:
    """Let terminals report and commands be posted, then stop the engine, and compare all books."""
    heartbeats: Counter[str] = Counter()

    def on_report(report: Any) -> None:
        gate.on_report(report)
        heartbeats[report.device] += report.kind == "heartbeat"

    terminals = Terminals(broker, DEVICES, rate=RATE, count=messages, mix=MIX, seed=1, on_report=on_report)
    port = int(broker.rpartition(":")[2])
    async with Wiretap("127.0.0.1", port, [f"fungxi_{device}_downLink" for device in DEVICES]) as tap:
        async with terminals:
            due = await post_all(gate, DEVICES)
            await terminals.finished()
        await until(gate.all_arrived, "all records at the backend")
        sides, commands = terminals.counts, sum(map(len, due.values()))
        await until(lambda: len(tap.heard) >= sides.heartbeats + commands, "all that was sent to terminals")
    assert gate.arrived == gate.sent
    assert gate.repeats == 0
    assert sides.sent == sides.acknowledged == messages
    assert min(sides.heartbeats, sides.strangers, sides.record_messages) > messages / 10
    assert (sides.replies, sides.replies_missed) == (sides.heartbeats, 0)
    assert (sides.replies_unasked, sides.replies_malformed) == (0, 0)
    assert_received(tap, due, heartbeats)

    # What is sent to terminals comes back on the downlink, to be logged.
    came_in = sides.heartbeats * 2 + sides.strangers + sides.records + commands * 2
    await engine.until_books(lambda books: books.received == came_in and not books.pending, "all is settled")
    assert await engine.stop() == 0
    books = engine.books
    assert books.balanced
    assert (books.carried, books.received, books.replayed, books.pending) == (0, came_in, 0, 0)
    assert books.dropped == sides.heartbeats + sides.strangers
    assert books.delivered + books.dead == sides.heartbeats + sides.records + commands * 2
    # The log of the downlink reads JSON, and not every command is that.
    assert books.dead in (0, sum(not is_json(command.arrives) for sent in due.values() for command in sent))
    assert gate.backend.counts.requests == gate.backend.counts.distinct == sides.records
    assert max(map(len, engine.lines)) < 2000, "no line of the log prints an image"


async def test_a_thousand_messages_of_all_kinds_each_get_what_is_theirs_by_the_embedded_mosquitto(
    tmp_path: Path,
) -> None:
    port = free_port()
    gate = FaceGate(tmp_path, f"embedded:{port}")
    async with gate.backend, gate.engine() as engine:
        await busy_hour(gate, engine, f"mqtt://127.0.0.1:{port}", messages=1000)


async def test_the_flow_does_the_same_by_a_mosquitto_that_speaks_mqtt_5(tmp_path: Path) -> None:
    with MosquittoBroker() as broker:
        gate = FaceGate(tmp_path, broker.url)
        async with gate.backend, gate.engine() as engine:
            assert engine.named("connected to the broker")[0]["version"] == "5"
            await busy_hour(gate, engine, broker.url, messages=300)


async def test_the_flow_does_the_same_on_mqtt_3_1_1_with_mosquittos_window_of_20(tmp_path: Path) -> None:
    with MosquittoBroker() as broker:
        gate = FaceGate(tmp_path, broker.url, connection='{mqtt: {url: "${mqtt}", version: "3.1.1"}}')
        async with gate.backend, gate.engine() as engine:
            assert engine.named("connected to the broker")[0]["version"] == "3.1.1"
            await busy_hour(gate, engine, broker.url, messages=300)


async def test_the_flow_does_the_same_over_tls_with_an_own_authority_and_a_client_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "server", "server-key", "client", "client-key")}
    authority.cert_pem.write_to_path(files["ca"])
    server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("engine@gate.example")
    for name, certificate in (("server", server), ("client", client)):
        certificate.cert_chain_pems[0].write_to_path(files[name])
        certificate.private_key_pem.write_to_path(files[f"{name}-key"])
    listener = [
        f"cafile {files['ca']}",
        f"certfile {files['server']}",
        f"keyfile {files['server-key']}",
        "require_certificate true",
    ]
    terminals_port = free_port()
    with MosquittoBroker(f"listener {terminals_port} 127.0.0.1", listener=listener) as broker:
        tls = f"tls: {{ca: {files['ca']}, certificate: {files['client']}, key: {files['client-key']}}}"
        gate = FaceGate(tmp_path, broker.url, connection=f'{{mqtt: {{url: "${{mqtt}}", {tls}}}}}')
        async with gate.backend, gate.engine() as engine:
            assert broker.url.startswith("mqtts://")
            await busy_hour(gate, engine, f"mqtt://127.0.0.1:{terminals_port}", messages=300)


async def test_the_flow_does_the_same_by_amqtt_where_there_is_no_mosquitto_and_says_so_once(tmp_path: Path) -> None:
    port = free_port()
    gate = FaceGate(tmp_path, f"embedded:{port}")
    async with gate.backend, gate.engine(**without_mosquitto(tmp_path)) as engine:
        assert len([line for line in engine.lines if "is amqtt" in line]) == 1
        await busy_hour(gate, engine, f"mqtt://127.0.0.1:{port}", messages=200)


def without_mosquitto(folder: Path) -> dict[str, str]:
    """The environment of a child process for which no `mosquitto` is installed.

    An empty PATH is not enough where it lies in /usr/sbin, so a sitecustomize (see the module `site`) hides it.
    """
    assert find_mosquitto(), "without one installed this shows nothing"
    hide = folder / "hide"
    hide.mkdir()
    (hide / "sitecustomize.py").write_text(
        "import shutil\n"
        "found = shutil.which\n"
        "shutil.which = lambda cmd, *args, **kwargs: None if cmd == 'mosquitto' else found(cmd, *args, **kwargs)\n"
    )
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(hide), os.environ.get("PYTHONPATH")]))}
