"""The buffered paho client. If one of these fails after an update of paho, its private methods have changed."""

from __future__ import annotations

import inspect
import select
import socket
import struct
from collections.abc import Iterator

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from flowengine_mqtt.buffered import BufferedClient


class Wired:
    """A client connected to the other end of a socket pair, past its CONNACK."""

    def __init__(self) -> None:
        server = socket.create_server(("127.0.0.1", 0))
        self.client = BufferedClient("c", MQTTProtocolVersion.MQTTv311)
        self.client.on_socket_register_write = lambda *_: None
        self.client.connect("127.0.0.1", server.getsockname()[1])
        self.far, _address = server.accept()
        server.close()
        self.client.loop_write()
        self.far.recv(1000)
        self.messages: list[bytes] = []
        self.client.on_message = lambda _client, _data, message: self.messages.append(bytes(message.payload))
        self.far.sendall(b"\x20\x02\x00\x00")
        self.wait_readable()
        self.client.read()
        assert self.client.is_connected()

    def wait_readable(self) -> None:
        sock = self.client.socket()
        assert sock is not None
        assert select.select([sock.fileno()], [], [], 5)[0]

    def publish(self, *payloads: bytes) -> None:
        self.far.sendall(b"".join(packet(payload) for payload in payloads))
        self.wait_readable()


def packet(payload: bytes) -> bytes:
    body = struct.pack("!H", 1) + b"t" + payload
    length = bytes([len(body)]) if len(body) < 128 else bytes([len(body) & 127 | 128, len(body) >> 7])
    return b"\x30" + length + body


@pytest.fixture
def wired() -> Iterator[Wired]:
    pair = Wired()
    yield pair
    pair.far.close()
    sock = pair.client.socket()
    if sock is not None:
        sock.close()


def test_the_private_methods_are_those_that_paho_calls() -> None:
    for name in ("_sock_recv", "_sock_send"):
        theirs, ours = getattr(paho.Client, name), getattr(BufferedClient, name)
        assert list(inspect.signature(theirs).parameters) == list(inspect.signature(ours).parameters)
    assert inspect.getsource(paho.Client._packet_read).count("self._sock_recv(") == 3
    assert "self._sock_send(" in inspect.getsource(paho.Client._packet_write)


def test_many_packets_are_read_from_the_socket_at_once(wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    original = paho.Client._sock_recv

    def counted(client: paho.Client, size: int) -> bytes:
        data = original(client, size)
        reads.append(len(data))
        return data

    monkeypatch.setattr(paho.Client, "_sock_recv", counted)
    payloads = [b"%d" % number for number in range(50)]
    wired.publish(*payloads)
    wired.client.read()
    assert wired.messages == payloads
    assert len(reads) == 1


def test_many_packets_are_written_to_the_socket_at_once(wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[int] = []
    original = paho.Client._sock_send

    def counted(client: paho.Client, data: bytes) -> int:
        writes.append(len(data))
        return original(client, data)

    monkeypatch.setattr(paho.Client, "_sock_send", counted)
    for mid in range(1, 101):
        wired.client.ack(mid, 1)
    wired.client.loop_write()
    assert writes == [400]
    assert wired.far.recv(1000) == b"".join(b"\x40\x02" + struct.pack("!H", mid) for mid in range(1, 101))
    assert not wired.client.want_write()


def test_a_read_is_bounded_and_says_that_there_is_more(wired: Wired) -> None:
    payloads = [b"%d" % number for number in range(100)]
    wired.publish(*payloads)
    turns = 0
    while wired.client.read(most=30):
        turns += 1
        assert len(wired.messages) <= 10 * (turns + 1)
    assert turns >= 9
    assert wired.messages == payloads


def test_packets_come_whole_however_they_are_cut(wired: Wired) -> None:
    payloads = [b"x" * size for size in (0, 1, 200, 5000)]
    for byte in b"".join(packet(payload) for payload in payloads):
        wired.far.sendall(bytes([byte]))
        wired.client.read()
    while len(wired.messages) < len(payloads):
        wired.wait_readable()
        wired.client.read()
    assert wired.messages == payloads


def test_the_end_of_the_stream_is_noticed_after_what_came_before_it(wired: Wired) -> None:
    wired.publish(b"last")
    wired.far.close()
    while wired.client.socket() is not None:
        wired.client.read()
    assert wired.messages == [b"last"]


def test_what_the_socket_does_not_take_waits_and_goes_out_in_order(wired: Wired) -> None:
    payloads = [bytes([number]) * 100_000 for number in range(100)]
    for payload in payloads:
        wired.client.publish("t", payload)
    wired.client.loop_write()
    assert wired.client.full
    assert wired.client.want_write()
    wired.far.settimeout(5)
    expected = sum(len(payload) + 3 + 4 for payload in payloads)
    received = bytearray()
    while len(received) < expected:
        received += wired.far.recv(1 << 20)
        wired.client.loop_write()
    assert not wired.client.full
    assert not wired.client.want_write()
    assert [received[(100_007) * i + 50] for i in range(100)] == list(range(100))


def test_a_disconnect_goes_out_after_what_was_queued_before_it(wired: Wired) -> None:
    wired.client.ack(7, 1)
    wired.client.disconnect()
    wired.client.loop_write()
    assert wired.client.socket() is None
    assert wired.far.recv(100) == b"\x40\x02\x00\x07\xe0\x00"
