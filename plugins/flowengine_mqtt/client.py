"""paho's client, which PUBLISH and PUBACK pass by.

paho connects, subscribes, pings and disconnects. What it would read from the socket it is given packet by packet; what it would
send is gathered with what is sent here, and goes out in one send.

What is used of paho that it does not promise stands in `PRIVATE`; its minor version is pinned, and a test watches that these
names still mean what they did.
"""

from __future__ import annotations

import socket
import ssl
import time
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

from flowengine_mqtt.reader import OnPuback, OnPublish, PacketReader

PRIVATE = (
    "_sock",
    "_sock_recv",
    "_sock_send",
    "_out_packet",
    "_mid_generate",
    "_loop_rc_handle",
    "_last_bytes_received",
    "_last_msg_out",
)

_TURN_PACKETS = 100
_QUICK_ACK = getattr(socket, "TCP_QUICKACK", 0)  # Linux has it
_SMALL = 512
_DISCONNECT = 0xE0
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Client(paho.Client):
    """A paho client for one network connection, driven by `read()` and `loop_write()` from an event loop.

    It keeps the session (3.1.1: clean session off) and never reconnects. Nothing goes through paho's own `publish` and `ack`, so
    it holds no message that it would send again. full: whether the socket took less than all there was at the last write.
    """

    def __init__(self, client_id: str, version: str, publish: OnPublish, puback: OnPuback) -> None:
        """version: "5" or "3.1.1". publish, puback: called for each packet of these types that arrives."""
        five = version == "5"
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=None if five else False,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        self._reader = PacketReader(version, publish, puback, self._hand_over)
        self._more = False
        self._packet = b""
        self._outgoing = bytearray()
        self._leaving = False
        self.full = False

    @property
    def waiting(self) -> int:
        """How many bytes the socket has not taken."""
        return len(self._outgoing)

    def next_packet_id(self) -> int:
        """A packet id for a PUBLISH, from the row from which paho numbers its own packets."""
        return self._mid_generate()

    def send(self, packet: bytes, payload: bytes = b"") -> None:
        """Put a packet, whose end may stand in `payload`, behind all that is queued; `loop_write` sends it."""
        if self._out_packet:
            super().loop_write()
        self._outgoing += packet
        self._outgoing += payload

    def leave(self) -> None:
        """Let `loop_write` send what is queued and then DISCONNECT. paho closes the socket as soon as that is taken."""
        self._leaving = True

    def read(self, packets: int = _TURN_PACKETS) -> bool:
        """Receive once, if nothing is left from the last time, and handle at most so many packets.

        True if there is more in the buffer here or in TLS's own: then call again in a later turn of the loop, since the socket
        need not become readable for it. Raises `reader.Malformed`.
        """
        if not self._more and not self._receive():
            return False
        self._more = self._reader.handle(packets)
        sock = self._sock
        return sock is not None and (self._more or (isinstance(sock, ssl.SSLSocket) and sock.pending() > 0))

    def _receive(self) -> bool:
        """Read what the socket has; False if there is nothing, or it is closed now."""
        sock: Any = self._sock
        if sock is None:
            return False
        try:
            count = sock.recv_into(self._reader.room())
        except _NOT_NOW:
            return False
        except OSError:
            count = 0
        if not count:
            self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
            return False
        self._last_bytes_received = time.monotonic()  # or paho would ping, and wait for the answer
        if count < _SMALL and _QUICK_ACK:
            # A broker that gathers small packets (RFC 896) sends the next only when this one is acknowledged, which our kernel
            # would put off for 40 ms (RFC 1122 section 4.2.3.2). The option does not last.
            sock.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
        self._reader.received(count)
        return True

    def loop_write(self) -> MQTTErrorCode:
        """Write all that is queued, in as few sends as the socket takes."""
        self.full = False
        if self._out_packet:
            super().loop_write()
        while self._outgoing and self._sock is not None:
            try:
                sent = self._sock.send(self._outgoing)
            except _NOT_NOW:
                self.full = True
                return MQTTErrorCode.MQTT_ERR_SUCCESS
            except OSError:
                return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
            self._last_msg_out = time.monotonic()
            del self._outgoing[:sent]
        if self._leaving and self._sock is not None:
            if not self._out_packet:
                self.disconnect()
            super().loop_write()
            self.full = self.want_write()
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _hand_over(self, packet: bytes) -> bool:
        """Have paho handle a packet; False if it closed the socket."""
        self._packet = packet
        self.loop_read()
        return self._sock is not None

    def _sock_recv(self, bufsize: int) -> bytes:
        if not self._packet:
            raise BlockingIOError
        data, self._packet = self._packet[:bufsize], self._packet[bufsize:]
        return data

    def _sock_send(self, buf: bytes | bytearray) -> int:
        if buf[0] & 0xF0 == _DISCONNECT:
            return super()._sock_send(buf)
        self._outgoing += buf
        return len(buf)
