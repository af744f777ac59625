"""The session against a scripted broker: what a real one cannot be made to do."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from structlog.typing import EventDict

from flowengine_mqtt.errors import PublishFailed, PublishRefused
from tests.flowengine_mqtt.conftest import QUICK, OpenSession, until
from tests.support.scripted_broker import CONNACK, CONNECT, DISCONNECT, PUBACK, PUBLISH, SUBSCRIBE, Peer, ScriptedBroker


def events(logs: list[EventDict], words: str) -> list[EventDict]:
    return [entry for entry in logs if words in entry["event"]]


def protocol_level(connect: bytes) -> int:
    return connect[6]


@pytest.mark.parametrize("refusal", ["connack", "close", "silence"])
async def test_a_broker_that_knows_no_mqtt_5_is_spoken_to_in_3_1_1_and_again_after_a_drop(
    open_session: OpenSession, refusal: str
) -> None:
    levels: list[int] = []

    async def script(peer: Peer) -> None:
        connect = await peer.expect(CONNECT)
        levels.append(protocol_level(connect))
        if levels[-1] == 5:
            if refusal == "connack":
                peer.send_raw(b"\x20\x02\x00\x01")  # 3.1.1: unacceptable protocol version
            if refusal == "silence":
                await peer.until_closed()
            return
        assert not connect[7] & 0x02, "asked for a clean session"
        peer.send(CONNACK, b"\0\0")
        await peer.grant(1, version=4)
        if len(levels) < 4:
            return
        await peer.until_closed()

    async with ScriptedBroker(script) as broker:
        session = open_session(broker.url, {"a": 1}, patience=replace(QUICK, connect=0.3))
        await until(lambda: len(levels) == 4, "a connection that holds")
        await session.ready()
        assert levels == [5, 4, 4, 4]
        assert session.session.version == "3.1.1"
        assert session.session.window == 20
        await session.close()


async def test_a_close_before_the_connack_does_not_change_a_version_that_has_worked(
    open_session: OpenSession,
) -> None:
    levels: list[int] = []

    async def script(peer: Peer) -> None:
        connect = await peer.expect(CONNECT)
        levels.append(protocol_level(connect))
        if len(levels) == 2:
            return
        peer.send(CONNACK, b"\0\0\0")
        if len(levels) > 2:
            await peer.until_closed()

    async with ScriptedBroker(script) as broker:
        session = open_session(broker.url)
        await until(lambda: len(session.ups) == 2, "the second good connection")
        assert levels == [5, 5, 5]
        await session.close()


async def test_a_fixed_version_is_kept(open_session: OpenSession) -> None:
    levels: list[int] = []

    async def script(peer: Peer) -> None:
        levels.append(protocol_level(await peer.expect(CONNECT)))

    async with ScriptedBroker(script) as broker:
        session = open_session(broker.url, version="5")
        await until(lambda: len(levels) > 2, "some attempts")
        await session.close()
    assert set(levels) == {5}


async def test_connect_asks_for_the_session_its_expiry_and_the_window(open_session: OpenSession) -> None:
    seen: list[bytes] = []
    drop = asyncio.Event()

    async def script(peer: Peer) -> None:
        seen.append(await peer.accept(version=5))
        if peer.number == 1:
            await drop.wait()
        else:
            await peer.until_closed()

    async with ScriptedBroker(script) as broker:
        session = open_session(broker.url, session_expiry=3600, receive_maximum=100)
        await until(lambda: bool(session.ups), "the first connection")
        session.session.receive_maximum = 7
        assert session.session.window == 100
        drop.set()
        await until(lambda: len(session.ups) == 2, "the second connection")
        assert session.session.window == 7
        await session.close()
    first, second = seen
    assert not first[7] & 0x02, "asked for a clean start"
    assert b"\x11\x00\x00\x0e\x10" in first and b"\x21\x00\x64" in first
    assert b"\x21\x00\x07" in second


@pytest.mark.parametrize(("version", "code", "words"), [("5", 0x87, "Not authorized"), ("3.1.1", 0x80, "0x80")])
async def test_a_refused_subscription_is_named_makes_the_session_unready_and_is_tried_again(
    open_session: OpenSession, logs: list[EventDict], version: str, code: int, words: str
) -> None:
    level = 5 if version == "5" else 4
    asked: list[bytes] = []
    again = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.accept(version=level)
        asked.append(await peer.grant(1, code, version=level))
        asked.append(await peer.expect(SUBSCRIBE))
        await again.wait()
        peer.send(9, asked[1][:2] + (b"\0" if level == 5 else b"") + b"\x01")
        await peer.until_closed()

    async with ScriptedBroker(script) as broker:
        session = open_session(broker.url, {"good": 1, "bad": 1}, version=version)
        await until(lambda: bool(session.session.refused), "the refusal")
        assert words in session.session.refused["bad"]
        assert list(session.session.refused) == ["bad"]
        assert not session.session.ready
        await until(lambda: len(asked) == 2, "another attempt")
        assert b"bad" in asked[1] and b"good" not in asked[1]
        again.set()
        await session.ready()
        assert session.session.refused == {}
        assert session.state.filters == {"good": 1, "bad": 1}
        refusals = events(logs, "refused a subscription")
        assert [(entry["log_level"], entry["filter"]) for entry in refusals] == [("error", "bad")]
        await session.close()


async def test_a_lower_qos_than_asked_for_is_said(open_session: OpenSession, logs: list[EventDict]) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(version=5)
        await peer.grant(0, version=5)
        await peer.until_closed()

    async with ScriptedBroker(script) as broker:
        session = open_session(broker.url, {"a": 1})
        await session.ready()
        assert [entry["filter"] for entry in events(logs, "lower QoS")] == ["a"]
        await session.close()


async def test_many_filters_are_asked_for_in_portions(open_session: OpenSession) -> None:
    wanted = {f"fungxi_{number}_upLink": 1 for number in range(20)}
    portions: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.accept(version=4)
        for size in (8, 8, 4):
            body = await peer.grant(*[1] * size, version=4)
            portions.append(body.count(b"fungxi"))
        await peer.until_closed()

    async with ScriptedBroker(script) as broker:
        session = open_session(broker.url, wanted, version="3.1.1")
        await session.ready()
        assert portions == [8, 8, 4]
        assert session.state.filters == wanted
        await session.close()


async def test_an_unanswered_subscribe_is_asked_again_even_if_the_session_is_present(
    open_session: OpenSession,
) -> None:
    subscribes: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.accept(version=5, session_present=peer.number > 1)
        if peer.number == 1:
            subscribes.append(await peer.expect(SUBSCRIBE))
            return
        subscribes.append(await peer.grant(1, version=5))
        await peer.until_closed()

    async with ScriptedBroker(script) as broker:
        session = open_session(broker.url, {"a": 1})
        await session.ready()
        assert len(subscribes) == 2
        await session.close()


@pytest.mark.parametrize("way", ["0x8E", "close"])
async def test_a_duel_over_the_client_id_is_named_and_slowed_down(
    open_session: OpenSession, logs: list[EventDict], way: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(version=5)
        if way == "0x8E":
            peer.send(DISCONNECT, b"\x8e")

    async with ScriptedBroker(script) as broker:
        session = open_session(broker.url)
        await until(lambda: bool(events(logs, "same client id")), "the error")
        assert broker.connections == 3
        (error,) = events(logs, "same client id")
        assert error["log_level"] == "error"
        assert error["client_id"] == session.session.client_id
        assert float(error["again_in"].removesuffix(" s")) >= 0.2, "not slowed down"
        await until(lambda: broker.connections == 5, "more attempts")
        assert len(events(logs, "same client id")) == 1
        waits = [float(entry["again_in"].removesuffix(" s")) for entry in events(logs, "connection to the broker lost")]
        assert all(wait >= 0.2 for wait in waits[2:])
        await session.close()


@pytest.mark.parametrize("code", [0x86, 0x87, 0x85])
async def test_a_refusal_that_needs_a_person_is_loud_and_slow(
    open_session: OpenSession, logs: list[EventDict], code: int
) -> None:
    async def script(peer: Peer) -> None:
        await peer.expect(CONNECT)
        peer.send(CONNACK, bytes([0, code, 0]))

    async with ScriptedBroker(script) as broker:
        session = open_session(broker.url)
        await until(lambda: bool(events(logs, "refuses us")), "the error")
        entry = events(logs, "refuses us")[0]
        assert entry["log_level"] == "error"
        assert entry["code"] == f"0x{code:02X}"
        assert float(entry["again_in"].removesuffix(" s")) >= 0.2
        await session.close()


async def test_a_broker_that_accepts_the_connection_and_says_nothing_is_left(open_session: OpenSession) -> None:
    async def script(peer: Peer) -> None:
        if peer.number == 1:
            await peer.until_closed()
        await peer.accept(version=5)
        await peer.until_closed()

    async with ScriptedBroker(script) as broker:
        session = open_session(broker.url, version="5", patience=replace(QUICK, connect=0.3))
        await session.ready()
        assert broker.connections == 2
        await session.close()


async def test_nonsense_ends_the_connection_and_not_the_session(open_session: OpenSession) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(version=5)
        if peer.number == 1:
            peer.send(PUBLISH, b"\x00\xff", flags=2)
        if peer.number == 2:
            peer.send_raw(b"\xff\xff\xff\xff\xff\xff")
        await peer.until_closed()

    async with ScriptedBroker(script) as broker:
        session = open_session(broker.url)
        await until(lambda: len(session.ups) == 3, "the third connection")
        await session.close()


async def test_a_topic_that_is_not_utf_8_does_no_harm(open_session: OpenSession) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(version=5)
        await peer.grant(1, version=5)
        peer.send(PUBLISH, b"\x00\x01\xff\x00\x07\x00x", flags=2)
        peer.publish("a", b"good", mid=8, version=5)
        assert (await peer.expect(PUBACK))[:2] == b"\x00\x08"
        await peer.until_closed()

    async with ScriptedBroker(script) as broker:
        session = open_session(broker.url, {"#": 1})
        await until(lambda: session.payloads() == [b"good"], "the good message")
        await until(lambda: not len(session.ledger), "its acknowledgement")
        await session.close()


async def test_pubacks_go_to_the_connection_that_brought_the_message_only(open_session: OpenSession) -> None:
    """The packet id is used again for another message: an old acknowledgement would confirm that one."""
    acknowledged: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.accept(version=5, session_present=peer.number > 1)
        if peer.number == 1:
            await peer.grant(1, version=5)
        peer.publish("a", b"%d" % peer.number, mid=1, version=5)
        if peer.number == 1:
            return
        while True:
            acknowledged.append((await peer.expect(PUBACK))[:2])

    async with ScriptedBroker(script) as broker:
        session = open_session(broker.url, {"a": 1})
        session.settling = False
        await until(lambda: len(session.entries) == 2, "both messages")
        first, second = session.entries
        first.settle()
        session.session.acknowledge(1, [1])
        await asyncio.sleep(0.05)  # there is nothing to wait for: nothing must come
        assert acknowledged == []
        second.settle()
        await until(lambda: acknowledged == [b"\x00\x01"], "the acknowledgement of the second")
        await session.close()


async def test_a_redelivery_after_a_reconnect_is_handed_on_once(open_session: OpenSession) -> None:
    acknowledged: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.accept(version=5, session_present=peer.number > 1)
        if peer.number == 1:
            await peer.grant(1, version=5)
        peer.publish("a", b"x", mid=1, version=5, dup=peer.number > 1)
        peer.publish("a", b"y", mid=2, version=5)
        if peer.number == 1:
            return
        while True:
            acknowledged.append((await peer.expect(PUBACK))[:2])

    async with ScriptedBroker(script) as broker:
        session = open_session(broker.url, {"a": 1})
        session.settling = False
        await until(lambda: len(session.messages) == 3, "the messages of both connections")
        assert session.payloads() == [b"x", b"y", b"y"]
        for entry in session.entries:
            entry.settle()
        await until(lambda: acknowledged == [b"\x00\x01", b"\x00\x02"], "the acknowledgements")
        await session.close()


@pytest.mark.parametrize(
    ("code", "error", "slow"),
    [(0x97, PublishFailed, False), (0x87, PublishFailed, True), (0x90, PublishRefused, None)],
)
async def test_a_puback_that_says_no_fails_the_publish(
    open_session: OpenSession, code: int, error: type[Exception], slow: bool | None
) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(version=5)
        body = await peer.expect(PUBLISH)
        peer.send(PUBACK, body[3:5] + bytes([code, 0]))
        await peer.until_closed()

    async with ScriptedBroker(script) as broker:
        session = open_session(broker.url)
        await session.ready()
        with pytest.raises(error, match=f"0x{code:02X}") as caught:
            await session.session.publish_qos1("a", b"")
        assert getattr(caught.value, "slow", None) is slow
        await session.close()


async def test_limits_that_the_broker_announced_are_kept(open_session: OpenSession) -> None:
    maximum_packet_size, maximum_qos = b"\x27\x00\x00\x00\x64", b"\x24\x00"

    async def script(peer: Peer) -> None:
        await peer.accept(version=5, properties=maximum_packet_size + (maximum_qos if peer.number == 2 else b""))
        if peer.number == 2:
            await peer.until_closed()
        await peer.expect(PUBLISH)

    async with ScriptedBroker(script) as broker:
        session = open_session(broker.url)
        await session.ready()
        with pytest.raises(PublishRefused, match="100 bytes are more than the broker takes"):
            session.session.publish_qos0("a", b"x" * 100)
        session.session.publish_qos0("a", b"x" * 80)
        await until(lambda: len(session.ups) == 2, "the second connection")
        with pytest.raises(PublishRefused, match="QoS 0 only"):
            session.session.publish_qos1("a", b"")
        await session.close()


async def test_the_broker_is_told_when_a_message_expires_also_one_that_waits_for_its_turn(
    open_session: OpenSession,
) -> None:
    expiries: list[bytes] = []
    receive_maximum_1 = b"\x21\x00\x01"

    async def script(peer: Peer) -> None:
        await peer.accept(version=5, properties=receive_maximum_1)
        for _message in range(3):
            body = await peer.expect(PUBLISH)
            expiries.append(body[5:11])
            peer.send(PUBACK, body[3:5])
        await peer.until_closed()

    async with ScriptedBroker(script) as broker:
        session = open_session(broker.url)
        await session.ready()
        waits = [session.session.publish_qos1("a", b"xxxxxx", time_left=left) for left in (59.5, 0.01, None)]
        await asyncio.wait_for(asyncio.gather(*waits), 10)
        assert expiries == [b"\x05\x02\x00\x00\x00\x3c", b"\x05\x02\x00\x00\x00\x01", b"\x00xxxxx"]
        await session.close()


async def test_what_is_published_after_a_subscribe_reaches_the_broker_after_it(open_session: OpenSession) -> None:
    kinds: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.accept(version=5)
        while len(kinds) < 2:
            kinds.append((await peer.receive())[0])
        await peer.until_closed()

    async with ScriptedBroker(script) as broker:
        session = open_session(broker.url)
        await session.ready()
        session.session.set_filters({"a": 1})
        assert session.session.publish_qos0("a", b"x")
        await until(lambda: len(kinds) == 2, "both packets")
        assert kinds == [SUBSCRIBE, PUBLISH]
        await session.close()


@pytest.mark.parametrize(
    "stream", [b"\x34\x07\x00\x01a\x00\x05\x00x", b"\x30\x04\x00\x00\x00x"], ids=["QoS 2", "topic alias"]
)
async def test_what_a_broker_must_not_send_ends_the_connection_with_its_reason(
    open_session: OpenSession, logs: list[EventDict], stream: bytes
) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(version=5)
        if peer.number == 1:
            peer.send_raw(stream)
        await peer.until_closed()

    async with ScriptedBroker(script) as broker:
        session = open_session(broker.url)
        await until(lambda: len(session.ups) == 2, "the second connection")
        (entry,) = events(logs, "cannot be read")
        assert entry["log_level"] == "error"
        assert session.downs == [entry["reason"]]
        assert session.messages == []
        await session.close()


async def test_a_stalled_connection_takes_no_more_qos_0_messages(open_session: OpenSession) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(version=5)
        await asyncio.Event().wait()  # reads no more

    async with ScriptedBroker(script) as broker:
        session = open_session(broker.url)
        await session.ready()
        taken = 0
        while session.session.publish_qos0("a", b"x" * 100_000):
            taken += 1
            assert taken < 1000, "a broker that reads nothing is fed without end"
            await asyncio.sleep(0)
        await session.close()


async def test_pubacks_are_on_their_way_when_they_have_been_gathered(open_session: OpenSession) -> None:
    """And not a turn of the loop later, which would be one more wait for each message that comes alone."""
    acknowledged: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.accept(version=5)
        for mid in (1, 2, 3):
            peer.publish("a", b"x", mid=mid, version=5)
        while len(acknowledged) < 3:
            acknowledged.append((await peer.expect(PUBACK))[:2])
        await peer.until_closed()

    async with ScriptedBroker(script) as broker:
        session = open_session(broker.url)
        session.settling = False
        await until(lambda: len(session.entries) == 3, "the messages")
        for entry in session.entries:
            entry.settle()
        session.ledger.flush()
        live = session.session._live
        assert live is not None and live._client.waiting == 0
        await until(lambda: len(acknowledged) == 3, "their PUBACKs")
        assert acknowledged == [b"\0\1", b"\0\2", b"\0\3"]
        await session.close()
