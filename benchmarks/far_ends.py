"""The far ends of a replay, in the event loop of the engine: a broker, a backend, a caller of commands, as bare protocols."""

from __future__ import annotations

import asyncio
import struct

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, DISCONNECT = 1, 2, 3, 4, 8, 9, 14


def packet(kind: int, flags: int, body: bytes) -> bytes:
    """An MQTT packet (MQTT 5 section 2.1)."""
    length = bytearray()
    rest = len(body)
    while True:
        rest, low = rest >> 7, rest & 127
        length.append(low | 128 if rest else low)
        if not rest:
            return bytes([kind << 4 | flags, *length]) + body


def text(words: str) -> bytes:
    """A UTF-8 string as MQTT writes it (section 1.5.4)."""
    encoded = words.encode()
    return struct.pack("!H", len(encoded)) + encoded


class _Peer(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def close(self) -> None:
        """End the connection, if there is one."""
        if self._transport is not None:
            self._transport.close()

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)


class Broker(_Peer):
    """Speaks MQTT 5 with one client: grants what it asks for, acknowledges what it publishes, and sends it back, since the
    flow is subscribed to what it sends."""

    def __init__(self) -> None:
        super().__init__()
        self.acknowledged = 0
        """PUBACKs that came."""
        self.published = 0
        """PUBLISHes that came."""
        self._mid = 0

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        answers = bytearray()
        while (whole := self._packet()) is not None:
            answers += self._answer(*whole)
        self._write(bytes(answers))

    def send(self, messages: list[tuple[str, bytes]]) -> None:
        """Publish these, (topic, payload) each, at QoS 1 and in one piece."""
        packets = []
        for topic, payload in messages:
            self._mid = self._mid % 60_000 + 1
            packets.append(packet(PUBLISH, 2, text(topic) + struct.pack("!H", self._mid) + b"\0" + payload))
        self._write(b"".join(packets))

    def _packet(self) -> tuple[int, bytes] | None:
        length = shift = 0
        for at, byte in enumerate(self._buffer[1:5], start=2):
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                if len(self._buffer) < at + length:
                    return None
                first, body = self._buffer[0], bytes(self._buffer[at : at + length])
                del self._buffer[: at + length]
                return first, body
        return None

    def _answer(self, first: int, body: bytes) -> bytes:
        kind = first >> 4
        if kind == CONNECT:
            return packet(CONNACK, 0, b"\0\0\0")
        if kind == SUBSCRIBE:
            return packet(SUBACK, 0, body[:2] + b"\0\x01")  # the flow's filters merge into one
        if kind == DISCONNECT:
            self.close()
        elif kind == PUBACK:
            self.acknowledged += 1
        elif kind == PUBLISH:
            self.published += 1
            if not first & 6:
                return packet(PUBLISH, 0, body)
            (size,) = struct.unpack_from("!H", body)
            mid, rest = body[2 + size : 4 + size], body[4 + size :]
            return packet(PUBACK, 0, mid + b"\0\0") + packet(PUBLISH, 0, body[: 2 + size] + rest)
        return b""


class Backend(_Peer):
    """Answers every request of one connection with 200; `taken` holds their bodies."""

    def __init__(self, taken: list[bytes]) -> None:
        super().__init__()
        self._taken = taken

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (body := taken_from(self._buffer)) is not None:
            self._taken.append(body)
            self._write(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{"code":0}')


class Caller(_Peer):
    """Posts commands over one kept connection; `answered` counts the answers."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = 0

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while taken_from(self._buffer) is not None:
            self.answered += 1

    def has(self, answers: int) -> bool:
        """Whether so many answers have come."""
        return self.answered >= answers

    def post(self, path: str, body: bytes) -> None:
        """Send one request."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        self._write(f"{head}\r\n\r\n".encode() + body)


def taken_from(buffer: bytearray) -> bytes | None:
    """Take one whole HTTP/1.1 message with a Content-Length out of the buffer: its body, or None if it is not there yet."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    fields = (line.partition(b":") for line in bytes(buffer[:end]).split(b"\r\n")[1:])
    lengths = [int(value) for name, _colon, value in fields if name.strip().lower() == b"content-length"]
    length = lengths[0] if lengths else 0
    if len(buffer) < end + 4 + length:
        return None
    body = bytes(buffer[end + 4 : end + 4 + length])
    del buffer[: end + 4 + length]
    return body
