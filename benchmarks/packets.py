"""As much of MQTT 3.1.1 as a load generator needs, as bytes: it writes few kinds of packets and reads fewer."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence

PUBLISH = 0x30
PUBLISH_QOS1 = 0x32
PUBACK_SIZE = 4
_FILTERS_IN_ONE = 200


def remaining_length(size: int) -> bytes:
    """A size as MQTT writes it (MQTT 3.1.1 section 2.2.3)."""
    out = bytearray()
    while True:
        size, digit = divmod(size, 128)
        out.append(digit | (0x80 if size else 0))
        if not size:
            return bytes(out)


def publish_head(topic: str, payload_size: int) -> bytes:
    """A QoS 1 PUBLISH up to its packet identifier (2 bytes), which the payload follows."""
    name = topic.encode()
    return bytes((PUBLISH_QOS1,)) + remaining_length(4 + len(name) + payload_size) + struct.pack(">H", len(name)) + name


def connect(client_id: str) -> bytes:
    """CONNECT with a clean session, and no keepalive, so that silence is allowed."""
    name = client_id.encode()
    body = b"\x00\x04MQTT\x04\x02\x00\x00" + struct.pack(">H", len(name)) + name
    return b"\x10" + remaining_length(len(body)) + body


def subscribe(topics: Sequence[str], qos: int = 0) -> list[bytes]:
    """SUBSCRIBE packets for all these topics."""
    packets = []
    for number, first in enumerate(range(0, len(topics), _FILTERS_IN_ONE), 1):
        names = [topic.encode() for topic in topics[first : first + _FILTERS_IN_ONE]]
        body = struct.pack(">H", number)
        body += b"".join(struct.pack(">H", len(name)) + name + bytes((qos,)) for name in names)
        packets.append(b"\x82" + remaining_length(len(body)) + body)
    return packets


class Reader:
    """Cuts what a socket gives into packets."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """First byte and body of each packet that is complete."""
        data, at = self._rest + data, 0
        self._rest = b""
        while at < len(data):
            size = shift = 0
            body = at + 1
            while body < len(data):
                digit = data[body]
                size |= (digit & 0x7F) << shift
                shift += 7
                body += 1
                if digit < 0x80:
                    break
            else:
                break
            if body + size > len(data):
                break
            yield data[at], data[body : body + size]
            at = body + size
        self._rest = data[at:]


def opened(port: int, client_id: str, topics: Sequence[str] = ()) -> socket.socket:
    """A connection to the broker on this loopback port, which has subscribed to the topics at QoS 0. Raises OSError."""
    sock = socket.create_connection(("127.0.0.1", port), 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(connect(client_id))
    if _exactly(sock, 4)[3] != 0:
        raise ConnectionRefusedError("the broker refuses the load generator")
    for number, packet in enumerate(subscribe(topics), 1):
        sock.sendall(packet)
        granted = min(_FILTERS_IN_ONE, len(topics) - (number - 1) * _FILTERS_IN_ONE)
        _exactly(sock, 3 + granted + len(remaining_length(2 + granted)))
    return sock


def acknowledge_quickly(sock: socket.socket) -> None:
    """Have the kernel acknowledge what came at once, until it changes its mind; so after each recv.

    One connection hears for all terminals here. Mosquitto leaves Nagle's algorithm on, which holds a reply back for up to 40 ms
    until the one before it is acknowledged; terminals, with a connection each, do not meet that.
    """
    if hasattr(socket, "TCP_QUICKACK"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise ConnectionResetError("the broker closed the connection")
        data += more
    return data
