"""paho's client with buffered input and output.

paho asks its socket for one byte, for each byte of the length, and for the body of every packet, and sends
every packet by a call of its own. Here a read takes what the socket has, up to 256 KB, and answers paho from
that; packets are gathered and sent together.

`_sock_recv` and `_sock_send` are private to paho, so its minor version is pinned and a test watches that
bytes still pass through them.
"""

from __future__ import annotations

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

_READ_BYTES = 256 * 1024
_GATHER_BYTES = 256 * 1024
_DISCONNECT = 0xE0


class BufferedClient(paho.Client):
    """A paho client for one network connection, driven by `read()` and `loop_write()` from an event loop.

    It keeps the session (3.1.1: clean session off), acknowledges nothing by itself and never reconnects.
    `full` tells whether the socket took less than all there was at the last write.
    """

    def __init__(self, client_id: str, protocol: MQTTProtocolVersion) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=None if protocol == MQTTProtocolVersion.MQTTv5 else False,
            protocol=protocol,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self._incoming = b""
        self._position = 0
        self._reads_left = 0
        self._blocked = True
        self._outgoing = bytearray()
        self.full = False

    def read(self, most: int = 400) -> bool:
        """Handle what has arrived, until nothing is left or paho has asked for bytes `most` times (about four
        times a packet).

        True if there may be more: then call again in a later turn of the loop, since the socket need not
        become readable for what is in the buffer here or in TLS's own.
        """
        self._reads_left = most
        self._blocked = False
        while not self._blocked and self._sock is not None:
            self.loop_read()
        return self._reads_left == 0 and self._sock is not None

    def want_write(self) -> bool:
        """Whether anything waits to be written."""
        return bool(self._outgoing) or super().want_write()

    def loop_write(self) -> MQTTErrorCode:
        """Write all that is queued, in as few sends as the socket takes."""
        self.full = False
        code = super().loop_write()
        while self._outgoing and self._sock is not None:
            try:
                self._flush()
            except BlockingIOError:
                self.full = True
                return code
            except OSError:
                return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
            code = super().loop_write()
        return code

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._reads_left == 0:
            self._blocked = True
            raise BlockingIOError
        self._reads_left -= 1
        if self._position == len(self._incoming):
            self._incoming, self._position = b"", 0
            try:
                self._incoming = super()._sock_recv(_READ_BYTES)
            except BlockingIOError:
                self._blocked = True
                raise
        data = self._incoming[self._position : self._position + bufsize]
        self._position += len(data)
        return data

    def _sock_send(self, buf: bytes | bytearray) -> int:
        if buf[0] & 0xF0 == _DISCONNECT:
            self._flush()  # paho closes the socket as soon as this packet is taken
            return super()._sock_send(buf)
        if len(self._outgoing) > _GATHER_BYTES:
            raise BlockingIOError
        self._outgoing += buf
        return len(buf)

    def _flush(self) -> None:
        """Send what is gathered. Raises BlockingIOError if the socket does not take all of it now."""
        while self._outgoing:
            sent = super()._sock_send(self._outgoing)
            del self._outgoing[:sent]
