"""Reading packets, however the stream is cut."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowengine_mqtt.packets import pubacks, publish_head, topic_name, variable_byte_integer
from flowengine_mqtt.reader import DUP, QOS_1, QOS_2, RETAIN, Malformed, PacketReader

Seen = tuple[object, ...]


class Read:
    """A reader, and what it has handed on."""

    def __init__(self, version: str = "5") -> None:
        self.seen: list[Seen] = []
        self.open = True
        self.reader = PacketReader(
            version,
            lambda *publish: self.seen.append(("publish", *publish)),
            lambda *puback: self.seen.append(("puback", *puback)),
            self._other,
        )

    def _other(self, packet: bytes) -> bool:
        self.seen.append(("other", packet))
        return self.open

    def feed(self, data: bytes) -> None:
        """As from a socket: never more than there is room for."""
        while data:
            room = self.reader.room()
            count = min(len(room), len(data))
            room[:count] = data[:count]
            self.reader.received(count)
            data = data[count:]
            while self.reader.handle(3):
                pass


def publish(
    flags: int, packet_id: int, topic: str, payload: bytes, *, version: str = "5", properties: bytes = b""
) -> bytes:
    body = topic_name(topic) + (packet_id.to_bytes(2, "big") if flags & QOS_1 else b"")
    if version == "5":
        body += variable_byte_integer(len(properties)) + properties
    body += payload
    return bytes([0x30 | flags]) + variable_byte_integer(len(body)) + body


@st.composite
def traffic(draw: st.DrawFn, version: str) -> tuple[list[bytes], list[Seen]]:
    """Packets, and what is to be seen of them."""
    packets: list[bytes] = []
    seen: list[Seen] = []
    for _number in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(["publish", "puback", "other"]))
        packet_id = draw(st.integers(1, 65_535))
        if kind == "publish":
            flags = draw(st.sampled_from([0, RETAIN, QOS_1, QOS_1 | RETAIN, QOS_1 | DUP]))
            topic = draw(
                st.text(st.characters(exclude_categories=["Cs"], exclude_characters="+#\0"), min_size=1, max_size=9)
            )
            payload = draw(st.binary(max_size=50)) * draw(st.sampled_from([1, 1, 1, 20, 7_000]))
            properties = b"\x02" + struct.pack("!I", 9) + b"\x26\x00\x01k" + struct.pack("!H", 200) + b"v" * 200
            properties = draw(st.sampled_from([b"", properties[:5], properties]))
            packets.append(publish(flags, packet_id, topic, payload, version=version, properties=properties))
            seen.append(("publish", flags, packet_id if flags & QOS_1 else 0, topic.encode(), payload))
        elif kind == "puback":
            code = draw(st.sampled_from([0, 0x10, 0x87])) if version == "5" else 0
            end = {0: b"", 0x10: b"\x10", 0x87: b"\x87\x00"}[code]
            packets.append(bytes([0x40, 2 + len(end)]) + packet_id.to_bytes(2, "big") + end)
            seen.append(("puback", packet_id, code))
        else:
            packets.append(draw(st.sampled_from([b"\xd0\x00", b"\x90\x04\x00\x01\x00\x01", b"\x62\x02\x00\x05"])))
            seen.append(("other", packets[-1]))
    return packets, seen


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@given(st.data())
def test_packets_come_whole_and_in_order_however_they_are_cut(version: str, data: st.DataObject) -> None:
    packets, seen = data.draw(traffic(version))
    stream = b"".join(packets)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    read = Read(version)
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        read.feed(stream[begin:end])
    assert read.seen == seen


def test_a_packet_longer_than_the_buffer_comes_whole_and_the_lasting_buffer_is_used_again() -> None:
    read = Read()
    lasting = len(read.reader.room())
    payload = bytes(range(256)) * 12_000
    read.feed(publish(QOS_1, 7, "t", b"before") + publish(QOS_1, 8, "t", payload) + publish(0, 0, "t", b"after"))
    assert [(seen[2], seen[4]) for seen in read.seen] == [(7, b"before"), (8, payload), (0, b"after")]
    assert len(read.reader.room()) == lasting


def test_a_length_alone_takes_no_memory() -> None:
    read = Read()
    lasting = len(read.reader.room())
    read.feed(b"\x30\xff\xff\xff\x7f" + b"\x00\x01t")
    assert len(read.reader.room()) < 3 * lasting


def test_as_many_packets_are_handed_on_as_asked_for() -> None:
    read = Read()
    stream = pubacks(range(1, 11))
    room = read.reader.room()
    room[: len(stream)] = stream
    read.reader.received(len(stream))
    assert read.reader.handle(4) and len(read.seen) == 4
    assert read.reader.handle(4) and len(read.seen) == 8
    assert not read.reader.handle(4) and len(read.seen) == 10


def test_nothing_is_handed_on_after_the_connection_has_ended() -> None:
    read = Read()
    read.open = False
    read.feed(b"\xe0\x01\x8e" + publish(0, 0, "t", b"x"))
    assert read.seen == [("other", b"\xe0\x01\x8e")]


def test_the_bytes_that_are_handed_on_are_ours_to_keep() -> None:
    read = Read()
    read.feed(publish(0, 0, "one", b"first"))
    read.feed(publish(0, 0, "two", b"other"))
    assert read.seen[0] == ("publish", 0, 0, b"one", b"first")
    assert all(type(part) is bytes for part in read.seen[0][3:])


def packet(flags: int, body: bytes) -> bytes:
    return bytes([0x30 | flags]) + variable_byte_integer(len(body)) + body


MALFORMED: Iterable[tuple[str, str, bytes]] = [
    ("a length of five bytes", "5", b"\x30\xff\xff\xff\xff\x01"),
    ("a topic longer than its packet", "5", packet(0, b"\x00\xfft")),
    ("a topic longer than its packet", "3.1.1", packet(0, b"\xff\xfft")),
    ("no length of a topic", "3.1.1", packet(0, b"\x00")),
    ("an empty packet", "5", packet(0, b"")),
    ("no topic, or a topic alias alone", "5", packet(0, b"\x00\x00\x03\x23\x00\x01x")),
    ("no topic", "3.1.1", packet(0, b"\x00\x00x")),
    ("no packet id", "5", packet(QOS_1, b"\x00\x01t")),
    ("half a packet id", "3.1.1", packet(QOS_1, b"\x00\x01t\x00")),
    ("the packet id 0", "5", packet(QOS_1, b"\x00\x01t\x00\x00\x00")),
    ("no properties", "5", packet(0, b"\x00\x01t")),
    ("properties longer than the packet", "5", packet(0, b"\x00\x01t\x09")),
    ("a length of properties that is cut off", "5", packet(0, b"\x00\x01t\x80")),
    ("properties of much more than the packet", "5", packet(0, b"\x00\x01t\xff\xff\xff\x7f")),
    ("QoS 2", "5", packet(QOS_2, b"\x00\x01t\x00\x05\x00")),
    ("QoS 3", "3.1.1", packet(QOS_1 | QOS_2, b"\x00\x01t\x00\x05")),
    ("a PUBACK of nothing", "5", b"\x40\x01\x00"),
]


@pytest.mark.parametrize(("what", "version", "stream"), MALFORMED, ids=[f"{what} {v}" for what, v, _ in MALFORMED])
def test_what_is_no_packet_is_said(what: str, version: str, stream: bytes) -> None:
    read = Read(version)
    with pytest.raises(Malformed):
        read.feed(publish(0, 0, "good", b"", version=version) + stream)
    assert len(read.seen) == 1, what


@given(st.binary(max_size=300))
def test_no_stream_makes_anything_but_packets_or_malformed(stream: bytes) -> None:
    for version in ("5", "3.1.1"):
        read = Read(version)
        with suppress(Malformed):
            read.feed(stream)
        assert sum(len(seen) > 1 for seen in read.seen) <= len(stream)


def test_what_is_written_here_can_be_read_here() -> None:
    for version in ("5", "3.1.1"):
        read = Read(version)
        for size in (0, 118, 119, 16_000, 300_000):
            read.feed(publish_head(version, topic_name("a/b"), size, packet_id=9, retain=True, expiry=5) + b"x" * size)
        assert read.seen == [
            ("publish", QOS_1 | RETAIN, 9, b"a/b", b"x" * size) for size in (0, 118, 119, 16_000, 300_000)
        ]
