"""The paho client that PUBLISH and PUBACK pass by. One that fails after an update of paho says which private name has changed."""

from __future__ import annotations

import inspect
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
import trustme
from paho.mqtt.enums import CallbackAPIVersion

from flowengine_mqtt import client as module
from flowengine_mqtt.client import PRIVATE, Client
from flowengine_mqtt.packets import pubacks, publish_head, topic_name

TOPIC = topic_name("t")


class Wired:
    """A client connected to the other end of a socket, past its CONNACK."""

    def __init__(self, context: ssl.SSLContext | None = None, far_context: ssl.SSLContext | None = None) -> None:
        self.messages: list[bytes] = []
        self.confirmed: list[tuple[int, int]] = []
        server = socket.create_server(("127.0.0.1", 0))
        self.client = Client(
            "c",
            "3.1.1",
            lambda _flags, _packet_id, _topic, payload: self.messages.append(payload),
            lambda packet_id, code: self.confirmed.append((packet_id, code)),
        )
        self.client.on_socket_register_write = lambda *_: None
        if context is not None:
            self.client.tls_set_context(context)
        dialling = threading.Thread(target=self.client.connect, args=("127.0.0.1", server.getsockname()[1]))
        dialling.start()
        self.far, _address = server.accept()
        if far_context is not None:
            self.far = far_context.wrap_socket(self.far, server_side=True)
        dialling.join()
        server.close()
        self.client.loop_write()
        self.far.recv(1000)
        self.far.sendall(b"\x20\x02\x00\x00")
        while not self.client.is_connected():
            self.wait_readable()
            self.client.read()

    def wait_readable(self) -> None:
        sock = self.client.socket()
        assert sock is not None
        assert select.select([sock.fileno()], [], [], 5)[0]

    def send(self, *payloads: bytes) -> None:
        self.far.sendall(b"".join(packet(payload) for payload in payloads))

    def close(self) -> None:
        self.far.close()
        sock = self.client.socket()
        if sock is not None:
            sock.close()


def packet(payload: bytes, packet_id: int = 0) -> bytes:
    return publish_head("3.1.1", TOPIC, len(payload), packet_id=packet_id) + payload


@pytest.fixture
def wired() -> Iterator[Wired]:
    pair = Wired()
    yield pair
    pair.close()


def source(name: str) -> str:
    return inspect.getsource(getattr(paho.Client, name))


def test_every_private_name_that_is_used_is_listed_and_is_there() -> None:
    used = set(re.findall(r"(?:self|super\(\))\.(_\w+)", inspect.getsource(module)))
    own = {name for name in used if f"self.{name} =" in inspect.getsource(Client.__init__) or name in vars(Client)}
    assert used - own | {"_sock_recv", "_sock_send"} == set(PRIVATE)
    instance = paho.Client(CallbackAPIVersion.VERSION2)
    assert all(hasattr(instance, name) for name in PRIVATE)


def test_the_private_names_mean_what_they_did() -> None:
    for name in ("_sock_recv", "_sock_send"):
        theirs, ours = getattr(paho.Client, name), getattr(Client, name)
        assert list(inspect.signature(theirs).parameters) == list(inspect.signature(ours).parameters)
    assert source("_packet_read").count("self._sock_recv(") == 3
    assert source("_packet_write").count("self._sock_send(") == 1
    assert source("_packet_write").count("self._out_packet.popleft(") == 1
    assert source("_packet_queue").count("self._out_packet.append(") == 1
    for clock in ("_last_bytes_received", "_last_msg_out"):
        assert f"self.{clock}" in source("_check_keepalive")
    assert paho.time_func is time.monotonic
    for sender in ("_send_subscribe", "_send_unsubscribe"):
        assert "self._mid_generate()" in source(sender)
    assert list(inspect.signature(paho.Client._loop_rc_handle).parameters) == ["self", "rc"]


def test_our_own_names_are_none_of_paho_s() -> None:
    theirs = set(dir(paho.Client(CallbackAPIVersion.VERSION2)))
    own = re.findall(r"self\.(\w+) =", inspect.getsource(Client.__init__))
    assert own and not theirs & set(own)
    overridden = theirs & set(vars(Client)) - set(dir(object))
    assert overridden - {"__annotations__", "__module__"} == {"loop_write", "_sock_recv", "_sock_send"}


def test_many_packets_are_read_from_the_socket_at_once(wired: Wired) -> None:
    payloads = [b"%d" % number for number in range(50)]
    wired.send(*payloads)
    wired.wait_readable()
    assert not wired.client.read()
    assert wired.messages == payloads


def test_what_is_sent_goes_out_at_once_and_in_order_with_what_paho_sends(wired: Wired) -> None:
    client = wired.client
    client.send(pubacks(range(1, 101)))
    client.subscribe("a")
    client.send(publish_head("3.1.1", TOPIC, 1), b"x")
    assert not select.select([wired.far], [], [], 0)[0]
    client.loop_write()
    received = wired.far.recv(1000)
    assert received[:400] == pubacks(range(1, 101))
    assert received[400] == 0x82
    assert received[408:] == packet(b"x")
    assert client.waiting == 0 and not client.full and not client.want_write()


def test_packet_ids_come_from_the_row_from_which_paho_takes_its_own(wired: Wired) -> None:
    first = wired.client.next_packet_id()
    _code, second = wired.client.subscribe("a")
    assert second == first + 1
    assert wired.client.next_packet_id() == first + 2


def test_a_read_is_bounded_and_says_that_there_is_more(wired: Wired) -> None:
    payloads = [b"%d" % number for number in range(100)]
    wired.send(*payloads)
    wired.wait_readable()
    turns = 0
    while wired.client.read(packets=10):
        turns += 1
        assert len(wired.messages) == 10 * turns
    assert turns == 9
    assert wired.messages == payloads


def test_the_end_of_the_stream_is_noticed_after_what_came_before_it(wired: Wired) -> None:
    wired.send(b"last")
    wired.far.close()
    while wired.client.socket() is not None:
        wired.wait_readable()
        wired.client.read()
    assert wired.messages == [b"last"]


def test_a_puback_is_told_once_with_its_code(wired: Wired) -> None:
    wired.far.sendall(b"\x40\x02\x00\x07\x40\x03\x00\x08\x87")
    wired.wait_readable()
    wired.client.read()
    assert wired.confirmed == [(7, 0), (8, 0x87)]


def test_what_the_socket_does_not_take_waits_and_goes_out_in_order(wired: Wired) -> None:
    payloads = [bytes([number]) * 100_000 for number in range(100)]
    for payload in payloads:
        wired.client.send(packet(payload))
    wired.client.loop_write()
    assert wired.client.full
    assert wired.client.waiting
    wired.far.settimeout(5)
    expected = sum(len(packet(payload)) for payload in payloads)
    received = bytearray()
    while len(received) < expected:
        received += wired.far.recv(1 << 20)
        wired.client.loop_write()
    assert not wired.client.full
    assert not wired.client.waiting
    assert [received[(100_007) * i + 50] for i in range(100)] == list(range(100))


def test_a_disconnect_goes_out_after_what_was_queued_before_it(wired: Wired) -> None:
    big = packet(b"x" * 20_000_000)
    wired.client.leave()
    wired.client.send(big)
    wired.client.subscribe("a")
    wired.client.send(pubacks([7]))
    wired.far.settimeout(5)
    received = bytearray()
    while wired.client.socket() is not None:
        wired.client.loop_write()
        if wired.client.full:
            received += wired.far.recv(1 << 20)
    while more := wired.far.recv(1 << 20):
        received += more
    assert received.startswith(big)
    assert received[len(big)] == 0x82
    assert received.endswith(b"\x40\x02\x00\x07\xe0\x00")


@pytest.mark.parametrize("way", ["in", "out"])
def test_a_connection_at_work_is_not_silent_to_paho_s_keepalive(wired: Wired, way: str) -> None:
    """paho pings when either direction has been silent, and closes if no answer comes."""
    client: Any = wired.client
    client._last_bytes_received = client._last_msg_out = long_ago = time.monotonic() - 1000
    if way == "in":
        wired.send(b"x")
        wired.wait_readable()
        client.read()
        assert client._last_bytes_received > long_ago
    else:
        client.send(pubacks([1]))
        client.loop_write()
        assert client._last_msg_out > long_ago


def test_a_ping_that_is_answered_keeps_the_connection_while_messages_come(wired: Wired) -> None:
    client: Any = wired.client
    wired.far.settimeout(5)
    client._keepalive = 1
    client._last_msg_out -= 1000
    client.loop_misc()
    client.loop_write()
    assert wired.far.recv(100) == b"\xc0\x00"
    wired.far.sendall(b"\xd0\x00" + packet(b"x"))
    wired.wait_readable()
    client.read()
    assert client._ping_t == 0
    client.loop_misc()
    assert client.is_connected()
    assert wired.messages == [b"x"]


def test_a_whole_record_of_tls_is_read_although_the_socket_is_not_readable_for_it(tmp_path: Path) -> None:
    authority = trustme.CA()
    far_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(far_context)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    wired = Wired(context, far_context)
    payloads = [b"%d" % number * 100 for number in range(300)] + [b"y" * 1_000_000]
    sending = threading.Thread(target=wired.send, args=payloads)
    sending.start()
    while len(wired.messages) < len(payloads):
        wired.wait_readable()
        while wired.client.read(packets=20):
            pass
    sending.join()
    assert wired.messages == payloads
    wired.close()
