"""The session against a real Mosquitto: versions, delivery over drops and restarts, subscriptions, publishing."""

from __future__ import annotations

import asyncio
import gc
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
import trustme
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from structlog.typing import EventDict

from flowengine_mqtt.errors import Offline, PublishFailed, PublishRefused
from flowengine_mqtt.settings import Tls
from tests.flowengine_mqtt.conftest import OpenSession, Watched, until
from tests.support.broker import MosquittoBroker


@pytest.fixture
def broker() -> Iterator[MosquittoBroker]:
    with MosquittoBroker() as running:
        yield running


async def publish(sender: Watched, *messages: tuple[str, bytes], retain: bool = False) -> None:
    for topic, payload in messages:
        await asyncio.wait_for(sender.session.publish_qos1(topic, payload, retain), 10)


def acknowledged(broker: MosquittoBroker, session: Watched) -> int:
    """How many PUBACKs of the session the broker has had."""
    return broker.log().count(f"Received PUBACK from {session.session.client_id}")


@pytest.mark.parametrize(("version", "window"), [("5", 512), ("3.1.1", 20)])
async def test_messages_come_in_and_are_acknowledged(
    broker: MosquittoBroker, open_session: OpenSession, version: str, window: int
) -> None:
    session = open_session(broker.url, {"in/+": 1}, version=version)
    await session.ready()
    assert session.session.version == version
    assert session.session.window == window
    sent = [(f"in/{number % 3}", b"%d" % number) for number in range(1000)]
    sender = open_session(broker.url, folder="sender")
    await sender.ready()
    await publish(sender, *sent)
    await until(lambda: len(session.messages) == 1000, "all messages")
    assert session.messages == sent
    await until(lambda: not len(session.ledger), "all acknowledged")


async def test_mqtt_5_is_used_where_the_broker_speaks_it(broker: MosquittoBroker, open_session: OpenSession) -> None:
    session = open_session(broker.url)
    await session.ready()
    assert session.session.version == "5"
    broker.wait_for_log("(p5, c0,")


async def test_big_and_small_messages_in_a_mix_come_whole(broker: MosquittoBroker, open_session: OpenSession) -> None:
    session = open_session(broker.url, {"in": 1})
    sender = open_session(broker.url, folder="sender")
    await session.ready()
    await sender.ready()
    payloads = [bytes([size % 251]) * size for size in (0, 1, 127, 128, 300_000, 5, 16_384, 262_144, 1_000_000, 2)]
    await publish(sender, *(("in", payload) for payload in payloads))
    await until(lambda: len(session.messages) == len(payloads), "all messages")
    assert session.payloads() == payloads


async def test_qos_0_and_retained_messages_are_told_apart(broker: MosquittoBroker, open_session: OpenSession) -> None:
    sender = open_session(broker.url, folder="sender")
    await sender.ready()
    await publish(sender, ("kept/a", b"old"), retain=True)
    session = open_session(broker.url, {"kept/#": 1})
    await session.ready()
    assert sender.session.publish_qos0("kept/b", b"now")
    await until(lambda: len(session.messages) == 2, "both messages")
    assert [(qos, retain) for _mid, qos, retain, _dup in session.flags] == [(1, True), (0, False)]


async def test_what_was_unacknowledged_at_a_drop_is_redelivered_once_and_in_order(
    broker: MosquittoBroker, open_session: OpenSession
) -> None:
    session = open_session(broker.url, {"in": 1})
    sender = open_session(broker.url, folder="sender")
    await session.ready()
    await sender.ready()
    session.settling = False
    sent = [b"%d" % number for number in range(50)]
    await publish(sender, *(("in", payload) for payload in sent))
    await until(lambda: len(session.messages) == 50, "all messages")
    broker.restart()
    await until(lambda: len(session.ups) == 2 and len(session.ledger) == 50, "the redelivery")
    assert session.ups[1][1], "the session is gone"
    assert session.payloads() == sent, "handed on again although the first copy is pending"
    for entry in session.entries:
        entry.settle()
    await until(lambda: acknowledged(broker, session) == 50, "all acknowledged")
    session.session._live.abort()  # type: ignore[union-attr]  # the network fails
    await until(lambda: len(session.ups) == 3, "the third connection")
    await session.ready()
    await publish(sender, ("in", b"last"))
    await until(lambda: session.payloads()[-1:] == [b"last"], "the last message")
    assert session.payloads() == [*sent, b"last"], "acknowledged messages came again"


async def test_a_new_process_gets_what_the_last_one_had_not_acknowledged(
    broker: MosquittoBroker, open_session: OpenSession
) -> None:
    first = open_session(broker.url, {"in": 1})
    sender = open_session(broker.url, folder="sender")
    await first.ready()
    await sender.ready()
    first.settling = False
    await publish(sender, ("in", b"1"))
    await until(lambda: bool(first.messages), "the message")
    await first.close()
    await publish(sender, ("in", b"2"))
    second = open_session(broker.url, {"in": 1})
    await until(lambda: second.payloads() == [b"1", b"2"], "both messages")
    assert second.session.client_id == first.session.client_id
    assert second.ups == [(1, True)]


async def test_an_exception_in_the_callback_leaves_its_message_unacknowledged_and_the_rest_alive(
    broker: MosquittoBroker, open_session: OpenSession, logs: list[EventDict]
) -> None:
    session = open_session(broker.url, {"in": 1})
    sender = open_session(broker.url, folder="sender")
    await session.ready()
    await sender.ready()
    handle = session.session._on_message

    def fail_once(*message: object) -> None:
        session.session._on_message = handle
        raise RuntimeError("boom")

    session.session._on_message = fail_once
    await publish(sender, ("in", b"1"), ("in", b"2"))
    await until(lambda: session.payloads() == [b"2"], "the second message")
    assert [entry["log_level"] for entry in logs if "could not be handled" in entry["event"]] == ["error"]
    await until(lambda: acknowledged(broker, session) == 1, "the acknowledgement of the second")
    session.session._live.abort()  # type: ignore[union-attr]
    await until(lambda: session.payloads() == [b"2", b"1"], "the first again")


async def test_the_session_comes_back_after_the_broker_was_killed(
    broker: MosquittoBroker, open_session: OpenSession, logs: list[EventDict]
) -> None:
    session = open_session(broker.url, {"in": 1})
    await session.ready()
    broker.kill()
    await until(lambda: bool(session.downs), "the loss of the connection")
    assert not session.session.connected
    assert not session.session.ready
    with pytest.raises(Offline):
        session.session.publish_qos1("in", b"")
    assert session.session.publish_qos0("in", b"") is False
    broker.start()
    await session.ready()
    await publish(session, ("in", b"again"))
    await until(lambda: session.payloads() == [b"again"], "a message")
    assert any(entry["event"] == "connection to the broker lost" for entry in logs)


async def test_a_broker_that_stops_answering_is_left(broker: MosquittoBroker, open_session: OpenSession) -> None:
    session = open_session(broker.url, keepalive=1)
    await session.ready()
    broker.suspend()
    try:
        await until(lambda: bool(session.downs), "the loss of the connection", 15)
    finally:
        broker.resume()
    await session.ready()


async def test_a_session_starts_before_its_broker_does(open_session: OpenSession) -> None:
    broker = MosquittoBroker()
    session = open_session(broker.url)
    await until(lambda: session.session.generation > 2, "some attempts")
    with broker:
        await session.ready()
        await session.close()


async def test_a_resumed_session_with_the_same_filters_subscribes_to_nothing(
    broker: MosquittoBroker, open_session: OpenSession
) -> None:
    sender = open_session(broker.url, folder="sender")
    await sender.ready()
    await publish(sender, ("in", b"retained"), retain=True)
    first = open_session(broker.url, {"in": 1}, version="3.1.1")
    await until(lambda: bool(first.messages), "the retained message")
    await first.close()
    subscribed = broker.log().count("Received SUBSCRIBE")
    second = open_session(broker.url, {"in": 1}, version="3.1.1")
    await second.ready()
    await publish(sender, ("in", b"new"))
    await until(lambda: bool(second.messages), "the new message")
    assert second.payloads() == [b"new"]
    assert broker.log().count("Received SUBSCRIBE") == subscribed


async def test_changed_filters_are_subscribed_and_stale_ones_unsubscribed(
    broker: MosquittoBroker, open_session: OpenSession
) -> None:
    first = open_session(broker.url, {"a": 1, "b": 1})
    await first.ready()
    await first.close()
    second = open_session(broker.url, {"b": 1, "c": 1})
    await second.ready()
    await until(lambda: second.state.filters == {"b": 1, "c": 1}, "the record of the change")
    await publish(second, ("a", b"a"), ("b", b"b"), ("c", b"c"))
    await until(lambda: second.payloads() == [b"b", b"c"], "the messages of the filters wanted")


async def test_filters_can_change_while_connected(broker: MosquittoBroker, open_session: OpenSession) -> None:
    session = open_session(broker.url, {"a": 1})
    await session.ready()
    session.session.set_filters({"b": 0})
    assert not session.session.ready
    await session.ready()
    await until(lambda: session.state.filters == {"b": 0}, "the record of the change")
    await publish(session, ("a", b"a"), ("b", b"b"))
    await until(lambda: session.payloads() == [b"b"], "the message of the filter wanted")


async def test_an_expected_session_that_is_gone_is_said_loudly_and_subscribed_again(
    open_session: OpenSession, logs: list[EventDict]
) -> None:
    with MosquittoBroker(persistence=False) as broker:
        session = open_session(broker.url, {"in": 1})
        await session.ready()
        broker.restart()
        await until(lambda: len(session.ups) > 1, "the next connection")
        await session.ready()
        await publish(session, ("in", b"1"))
        await until(lambda: session.payloads() == [b"1"], "the message")
        assert session.ups[-1][1] is False
        assert [entry["log_level"] for entry in logs if "lost our session" in entry["event"]] == ["warning"]


@pytest.mark.parametrize("qos", [2, -1])
async def test_qos_2_is_refused_with_the_reason(open_session: OpenSession, qos: int) -> None:
    session = open_session("127.0.0.1:1", start=False)
    with pytest.raises(ValueError, match=f"QoS {qos} cannot be used"):
        session.session.set_filters({"a": qos})


async def test_a_confirmed_publish_waits_for_its_puback_and_fails_when_the_connection_goes(
    broker: MosquittoBroker, open_session: OpenSession
) -> None:
    session = open_session(broker.url)
    await session.ready()
    await publish(session, ("x", b"1"))
    broker.suspend()
    waiting = session.session.publish_qos1("x", b"2")
    await asyncio.sleep(0)
    assert not waiting.done()
    broker.kill()
    with pytest.raises(Offline):
        await asyncio.wait_for(waiting, 10)


async def test_nothing_that_was_published_before_a_drop_is_sent_after_it(
    broker: MosquittoBroker, open_session: OpenSession
) -> None:
    receiver = open_session(broker.url, {"x": 1}, folder="receiver")
    session = open_session(broker.url)
    await receiver.ready()
    await session.ready()
    broker.suspend()
    lost = [session.session.publish_qos1("x", b"lost") for _ in range(100)]
    session.session._live.abort()  # type: ignore[union-attr]  # before the loop has written anything
    broker.resume()
    assert await asyncio.gather(*lost, return_exceptions=True) and all(future.exception() for future in lost)
    await session.ready()
    await publish(session, ("x", b"kept"))
    await until(lambda: bool(receiver.messages), "a message")
    assert receiver.payloads() == [b"kept"]


async def test_more_publishes_than_the_broker_takes_at_once_wait_their_turn(
    broker: MosquittoBroker, open_session: OpenSession
) -> None:
    """Mosquitto 2.0 announces a Receive Maximum of 20 and disconnects who exceeds it."""
    receiver = open_session(broker.url, {"x": 1}, folder="receiver")
    session = open_session(broker.url)
    await receiver.ready()
    await session.ready()
    futures = [session.session.publish_qos1("x", b"%d" % number) for number in range(500)]
    futures[100].cancel()
    results = await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 20)
    assert {result for number, result in enumerate(results) if number != 100} == {0}
    await until(lambda: len(receiver.messages) == 499, "all but the one given up")
    assert session.downs == []


@pytest.mark.parametrize("qos", [0, 1])
async def test_the_broker_passes_on_how_long_a_message_is_worth_delivering(
    broker: MosquittoBroker, open_session: OpenSession, qos: int
) -> None:
    """What it passes on is what is left (MQTT 5 section 3.3.2.3.3), so it has understood it."""
    got: list[Any] = []
    far: Any = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    far.on_message = lambda _client, _data, message: got.append(message)
    far.on_connect = lambda *_: far.subscribe("to/7", 1)
    far.on_subscribe = lambda *_: got.append("subscribed")
    far.connect(broker.host, broker.port)
    far.loop_start()
    session = open_session(broker.url)
    await session.ready()
    await until(lambda: got == ["subscribed"], "the subscription")
    if qos:
        await session.session.publish_qos1("to/7", b"open", time_left=99.5)
    else:
        assert session.session.publish_qos0("to/7", b"open", time_left=99.5)
    await until(lambda: len(got) == 2, "the message")
    far.disconnect()
    far.loop_stop()
    assert (got[1].payload, got[1].qos) == (b"open", qos)
    assert 80 < got[1].properties.MessageExpiryInterval <= 100


@pytest.mark.parametrize("topic", ["", "a/+", "a/#", "a\0b"])
async def test_a_topic_that_cannot_be_published_to_is_refused(
    broker: MosquittoBroker, open_session: OpenSession, topic: str
) -> None:
    session = open_session(broker.url)
    await session.ready()
    with pytest.raises(PublishRefused):
        session.session.publish_qos1(topic, b"")
    with pytest.raises(PublishRefused):
        session.session.publish_qos0(topic, b"")


async def test_what_the_broker_forbids_to_publish_fails_until_a_person_mends_it(
    open_session: OpenSession, tmp_path: Path
) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite ok\n")
    with MosquittoBroker(f"acl_file {acl}") as broker:
        session = open_session(broker.url)
        await session.ready()
        with pytest.raises(PublishFailed, match=r"Not authorized \(0x87\)") as caught:
            await session.session.publish_qos1("other", b"")
        assert caught.value.slow
        await publish(session, ("ok", b""))


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_user_and_password(
    open_session: OpenSession, logs: list[EventDict], tmp_path: Path, version: str
) -> None:
    passwords = tmp_path / "passwords"
    # "gate" with the password "p@ss/word", as mosquitto_passwd writes it
    process = await asyncio.create_subprocess_exec("mosquitto_passwd", "-c", "-b", passwords, "gate", "p@ss/word")
    assert await process.wait() == 0
    with MosquittoBroker(f"allow_anonymous false\npassword_file {passwords}", standard=False) as broker:
        good = open_session(broker.url.replace("//", "//gate:p%40ss%2Fword@"), version=version)
        await good.ready()
        bad = open_session(broker.url.replace("//", "//gate:wrong@"), folder="bad", version=version)
        await until(lambda: bad.session.generation > 1, "a second attempt")
        refusals = [entry for entry in logs if entry["event"] == "the broker refuses us"]
        assert {entry["log_level"] for entry in refusals} == {"error"}
        assert {entry["code"] for entry in refusals} <= {"0x86", "0x87"}
        assert "wrong" not in str(logs)
        assert not bad.session.connected
        await bad.close()
        await good.close()


async def test_tls_with_an_own_authority_and_a_client_certificate(
    open_session: OpenSession, logs: list[EventDict], tmp_path: Path
) -> None:
    authority, other = trustme.CA(), trustme.CA()
    server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("gate@example.org")
    for name, blob in {
        "ca": authority.cert_pem,
        "other": other.cert_pem,
        "server": server.cert_chain_pems[0],
        "server_key": server.private_key_pem,
        "client": client.cert_chain_pems[0],
        "client_key": client.private_key_pem,
    }.items():
        blob.write_to_path(str(tmp_path / f"{name}.pem"))
    listener = [
        f"cafile {tmp_path}/ca.pem",
        f"certfile {tmp_path}/server.pem",
        f"keyfile {tmp_path}/server_key.pem",
        "require_certificate true",
    ]
    ours = Tls(tmp_path / "ca.pem", tmp_path / "client.pem", tmp_path / "client_key.pem")
    with MosquittoBroker(listener=listener) as broker:
        assert broker.url.startswith("mqtts://")
        session = open_session(broker.url, {"in": 1}, tls=ours)
        await session.ready()
        payloads = [b"x" * size for size in (1, 100, 16_384, 500_000)] * 5
        await publish(session, *(("in", payload) for payload in payloads))
        await until(lambda: len(session.messages) == len(payloads), "all messages")
        assert session.payloads() == payloads

        stranger = open_session(broker.url, folder="a", tls=Tls(tmp_path / "other.pem", ours.certificate, ours.key))
        nobody = open_session(broker.url, folder="b", tls=Tls(tmp_path / "ca.pem"))
        await until(lambda: min(s.session.generation for s in (stranger, nobody)) > 2, "some attempts")
        assert not stranger.session.connected and not nobody.session.connected
        assert any("CERTIFICATE_VERIFY_FAILED" in entry.get("reason", "") for entry in logs)
        insecure = open_session(
            broker.url, folder="c", tls=Tls(tmp_path / "other.pem", ours.certificate, ours.key, insecure=True)
        )
        await insecure.ready()
        for each in (session, stranger, nobody, insecure):
            await each.close()
    gc.collect()


async def test_disconnect_keeps_the_session_and_sends_the_acknowledgements_before(
    broker: MosquittoBroker, open_session: OpenSession
) -> None:
    session = open_session(broker.url, {"in": 1})
    await session.ready()
    session.settling = False
    await publish(session, *[("in", b"%d" % number) for number in range(5)])
    await until(lambda: len(session.messages) == 5, "all messages")
    for entry in session.entries:
        entry.settle()
    await session.close()
    broker.wait_for_log("Received DISCONNECT")
    assert acknowledged(broker, session) == 5
    again = open_session(broker.url, {"in": 1})
    await again.ready()
    assert again.ups == [(1, True)]
    await publish(again, ("in", b"new"))
    await until(lambda: again.payloads() == [b"new"], "only the new message")


async def test_disconnect_does_not_wait_for_a_broker_that_hangs(
    broker: MosquittoBroker, open_session: OpenSession
) -> None:
    session = open_session(broker.url, {"in": 1})
    await session.ready()
    broker.suspend()
    await asyncio.wait_for(session.session.disconnect(within=0.2), 5)
    broker.resume()


async def test_the_state_file_is_private_and_says_who_we_are(
    broker: MosquittoBroker, open_session: OpenSession
) -> None:
    session = open_session(broker.url, {"in": 1})
    await session.ready()
    stored = json.loads(session.state.path.read_text())
    assert stored["filters"] == {"in": 1}
    assert stored["client_id"] == session.session.client_id
    assert session.session.client_id.startswith("flow-gate-")
    assert stat.S_IMODE(session.state.path.stat().st_mode) == 0o600


async def test_an_unforeseen_error_while_connecting_is_logged_and_the_session_tries_on(
    broker: MosquittoBroker, open_session: OpenSession, logs: list[EventDict]
) -> None:
    session = open_session(broker.url, receive_maximum=0)  # which MQTT 5 does not allow (section 3.1.2.11.3)
    await until(lambda: session.session.generation > 1, "a second attempt")
    assert any("unforeseen" in entry["event"] and entry["log_level"] == "error" for entry in logs)
    session.session.receive_maximum = 1
    await session.ready()
