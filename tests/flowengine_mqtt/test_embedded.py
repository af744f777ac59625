"""The embedded broker: a real Mosquitto that outlives a kill -9 of its owner, and amqtt where there is none."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.typing import EventDict

from flowengine_mqtt import embedded, mosquitto
from flowengine_mqtt.embedded import EmbeddedBroker, embedded_port
from flowengine_mqtt.errors import BrokerError
from tests.flowengine_mqtt.conftest import OpenSession, until
from tests.support.broker import MosquittoBroker, free_port, port_answers, wait_until


def pid_of(state: Path, port: int) -> int:
    pid: int = json.loads((state / f"mosquitto-{port}" / "mosquitto.pid").read_text())["pid"]
    return pid


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
async def port() -> AsyncIterator[int]:
    yield free_port()


@pytest.mark.parametrize(("url", "expected"), [("embedded:", 1883), ("embedded:1884", 1884), ("mqtt://host", None)])
def test_the_url_names_the_port(url: str, expected: int | None) -> None:
    assert embedded_port(url) == expected


@pytest.mark.parametrize("url", ["embedded:x", "embedded:0", "embedded:65536", "embedded://1883", "embedded:-1"])
def test_a_wrong_port_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="takes a port from 1 to 65535"):
        embedded_port(url)


async def test_it_serves_on_loopback_and_its_stop_keeps_sessions_and_messages(
    tmp_path: Path, port: int, open_session: OpenSession
) -> None:
    state = tmp_path / "a folder with spaces"
    broker = EmbeddedBroker(state, port=port)
    await broker.start()
    assert broker.url == f"mqtt://127.0.0.1:{port}"
    receiver = open_session(broker.url, {"in": 1}, folder="receiver")
    await receiver.ready()
    await receiver.close()
    sender = open_session(broker.url, folder="sender")
    await sender.ready()
    for number in range(2000):  # more than the 1000 that Mosquitto queues by default
        sender.session.publish_qos1("in", b"%d" % number)
    await asyncio.wait_for(sender.session.publish_qos1("in", b"last"), 20)
    await sender.close()
    pid = pid_of(state, port)
    await broker.stop()
    assert not port_answers(port)
    assert not alive(pid)

    again = EmbeddedBroker(state, port=port)
    await again.start()
    receiver = open_session(again.url, {"in": 1}, folder="receiver")
    await until(lambda: len(receiver.messages) == 2001, "what was queued", 20)
    await receiver.close()
    await again.stop()


async def test_several_shares_are_one_broker_and_the_last_to_go_stops_it(tmp_path: Path, port: int) -> None:
    shares = [EmbeddedBroker(tmp_path, port=port) for _ in range(3)]
    await asyncio.gather(*(share.start() for share in shares))
    assert {share.version for share in shares} == {"auto"}
    pid = pid_of(tmp_path, port)
    await shares[0].stop()
    await shares[0].stop()
    await shares[1].stop()
    assert alive(pid) and port_answers(port)
    await shares[2].stop()
    assert not alive(pid)


OWNER = """
import asyncio, signal, sys
from pathlib import Path
from flowengine_mqtt.embedded import EmbeddedBroker
async def main():
    await EmbeddedBroker(Path(sys.argv[1]), port=int(sys.argv[2])).start()
    print("up", flush=True)
    await asyncio.Event().wait()
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
asyncio.run(main())
"""


def run_owner(state: Path, port: int) -> subprocess.Popen[str]:
    """A process that starts the embedded broker, in a process group of its own."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(state), str(port)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        process_group=0,
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "up\n"
    return owner


def end(owner: subprocess.Popen[str], signal_number: int) -> None:
    os.killpg(owner.pid, signal_number)
    owner.communicate(timeout=20)


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
async def test_it_outlives_its_owner_and_is_adopted(
    tmp_path: Path, port: int, logs: list[EventDict], signal_number: int
) -> None:
    end(run_owner(tmp_path, port), signal_number)
    pid = pid_of(tmp_path, port)
    assert alive(pid)
    broker = EmbeddedBroker(tmp_path, port=port)
    await broker.start()
    assert pid_of(tmp_path, port) == pid
    assert any("used again" in entry["event"] and entry["pid"] == pid for entry in logs)
    await broker.stop()
    assert not alive(pid)
    assert not port_answers(port)


async def test_an_orphan_with_another_config_is_replaced(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    end(run_owner(tmp_path, port), signal.SIGKILL)
    old = pid_of(tmp_path, port)
    monkeypatch.setattr(mosquitto, "_CONFIG", mosquitto._CONFIG + "max_keepalive 1000\n")
    broker = EmbeddedBroker(tmp_path, port=port)
    await broker.start()
    assert pid_of(tmp_path, port) != old
    assert not alive(old)
    assert port_answers(port)
    await broker.stop()


async def test_an_orphan_that_hangs_is_replaced(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its port still takes connections, so it is adopted; stopping it needs SIGKILL."""
    monkeypatch.setattr(mosquitto, "_STOP_WITHIN", 0.2)
    end(run_owner(tmp_path, port), signal.SIGKILL)
    old = pid_of(tmp_path, port)
    os.kill(old, signal.SIGSTOP)
    broker = EmbeddedBroker(tmp_path, port=port)
    await broker.start()
    await broker.stop()
    assert not alive(old)


async def test_a_pid_that_belongs_to_another_program_is_left_alone(tmp_path: Path, port: int) -> None:
    folder = tmp_path / f"mosquitto-{port}"
    folder.mkdir(parents=True)
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    (folder / "mosquitto.pid").write_text(json.dumps({"pid": other.pid, "config": "x"}))
    broker = EmbeddedBroker(tmp_path, port=port)
    await broker.start()
    assert other.poll() is None
    await broker.stop()
    other.communicate(b"\n")


@pytest.mark.parametrize("text", ["", "{}", '{"pid": "x", "config": 1}', "[1]"])
async def test_a_damaged_pid_file_is_no_trouble(tmp_path: Path, port: int, text: str) -> None:
    folder = tmp_path / f"mosquitto-{port}"
    folder.mkdir(parents=True)
    (folder / "mosquitto.pid").write_text(text)
    broker = EmbeddedBroker(tmp_path, port=port)
    await broker.start()
    await broker.stop()


async def test_a_taken_port_is_an_error_that_says_how_to_use_what_is_there(tmp_path: Path) -> None:
    with MosquittoBroker() as other:
        broker = EmbeddedBroker(tmp_path, port=other.port)
        with pytest.raises(BrokerError, match=rf"MQTT_URL=mqtt://127.0.0.1:{other.port}"):
            await broker.start()
        assert other.running
    await broker.start()  # once the port is free
    await broker.stop()


async def test_a_broker_that_does_not_come_up_is_an_error_with_the_end_of_its_log(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mosquitto, "_CONFIG", mosquitto._CONFIG + "no_such_option 1\n")
    with pytest.raises(BrokerError, match="no_such_option") as caught:
        await EmbeddedBroker(tmp_path, port=port).start()
    assert str(tmp_path / f"mosquitto-{port}" / "mosquitto.log") in str(caught.value)


async def test_without_mosquitto_amqtt_serves_with_one_clear_warning(
    tmp_path: Path, port: int, open_session: OpenSession, logs: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "find_mosquitto", lambda: None)
    shares = [EmbeddedBroker(tmp_path, port=port) for _ in range(2)]
    for share in shares:
        await share.start()
    warnings = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
    assert len(warnings) == 1 and "for trying things out" in warnings[0]
    assert [share.version for share in shares] == ["3.1.1", "3.1.1"]
    session = open_session(shares[0].url, {"in/+": 1}, version=shares[0].version)
    await session.ready()
    await asyncio.wait_for(session.session.publish_qos1("in/1", b"x"), 10)
    await until(lambda: session.messages == [("in/1", b"x")], "the message")
    await until(lambda: not len(session.ledger), "its acknowledgement")
    await session.close()
    for share in shares:
        await share.stop()
    wait_until(lambda: not port_answers(port), "a closed port")


async def test_amqtt_says_how_to_use_what_is_on_a_taken_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_mosquitto", lambda: None)
    with MosquittoBroker() as other, pytest.raises(BrokerError, match=rf"mqtt://127.0.0.1:{other.port}"):
        await EmbeddedBroker(tmp_path, port=other.port).start()


async def test_with_neither_the_error_says_what_to_install(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "find_mosquitto", lambda: None)
    monkeypatch.setitem(sys.modules, "amqtt.broker", None)
    with pytest.raises(BrokerError) as caught:
        await EmbeddedBroker(tmp_path, port=port).start()
    for words in ("apt-get install mosquitto", "brew install mosquitto", "pip install 'flowengine[embedded]'"):
        assert words in str(caught.value)
