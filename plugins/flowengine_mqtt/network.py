"""One network connection of a session, on its own paho client.

A new connection gets a new client, so that packet ids and messages which paho still holds from the last one
can never reach the next.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import structlog
from paho.mqtt.client import ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from flowengine import N_, _
from flowengine_mqtt.buffered import BufferedClient
from flowengine_mqtt.dial import dial
from flowengine_mqtt.errors import Offline
from flowengine_mqtt.outcome import Accepted, Closed, End
from flowengine_mqtt.settings import ASSUMED_WINDOW, SessionSettings

log = structlog.get_logger(__name__)

_TICK = 1.0
_STALLED_BYTES = 1_000_000  # how much may wait behind a full socket
_FILTERS_A_PACKET = 8  # AWS IoT Core refuses more in one SUBSCRIBE


class Listener(Protocol):
    """Who is told what happens on a connection. All calls come in the event loop; none may close it."""

    def accepted(self, connection: NetworkConnection) -> None:
        """The broker took us in, as `connection.accepted_as` tells. Messages follow."""

    def message(self, generation: int, message: MQTTMessage) -> None:
        """A PUBLISH arrived."""

    def published(self, mid: int, code: int) -> None:
        """A PUBACK arrived, with its reason code."""

    def subscribed(self, mid: int, codes: Sequence[int]) -> None:
        """A SUBACK arrived, with a reason code for each filter."""

    def unsubscribed(self, mid: int) -> None:
        """An UNSUBACK arrived."""


class NetworkConnection:
    """Connects once. `generation` tells it from the session's other connections."""

    def __init__(
        self,
        settings: SessionSettings,
        client_id: str,
        version: str,
        receive_maximum: int,
        generation: int,
        listener: Listener,
    ) -> None:
        self.generation = generation
        self.version = version
        self.accepted_as = Accepted()
        self.closed: asyncio.Future[Closed] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._receive_maximum = receive_maximum
        self._listener = listener
        self._fd = -1
        self._writer_added = False
        self._write_scheduled = False
        self._read_scheduled = False
        self._reading = False
        self._behind = 0
        self._leaving = False
        self._refusal: ReasonCode | None = None
        self._accepted_at: float | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._client = client = BufferedClient(
            client_id, MQTTProtocolVersion.MQTTv5 if version == "5" else MQTTProtocolVersion.MQTTv311
        )
        client.max_inflight_messages = 0  # publishing.Publishing keeps the broker's limit
        client.connect_timeout = settings.patience.connect
        client.username = settings.username
        client.password = settings.password
        client.on_socket_register_write = self._want_write
        client.on_socket_unregister_write = self._want_no_write
        client.on_connect = self._connack
        client.on_disconnect = self._disconnected
        client.on_message = self._message
        client.on_publish = self._puback
        client.on_subscribe = self._suback
        client.on_unsubscribe = self._unsuback

    async def open(self) -> Closed:
        """Connect, and return once the connection has ended. Cancelling ends it without a DISCONNECT."""
        try:
            try:
                async with asyncio.timeout(self._settings.patience.connect):
                    await dial(self._client, self._settings, self.version, self._receive_maximum)
            except TimeoutError:
                seconds = self._settings.patience.connect
                return Closed(End.UNREACHED, _("no connection within {seconds:g} s").format(seconds=seconds))
            except (OSError, ValueError) as problem:
                return Closed(End.UNREACHED, str(problem) or type(problem).__name__)
            self._attach()
            return await self.closed
        finally:
            self.abort()

    def disconnect(self) -> None:
        """Send what is queued, then DISCONNECT; the broker keeps the session. `closed` follows."""
        if self._fd != -1:
            self._leaving = True
            self._client.disconnect()

    def abort(self, end: End = End.BY_US, reason: str = "") -> None:
        """Close at once, without DISCONNECT; the broker keeps the session."""
        sock = self._client.socket()
        self._detach()
        if sock is not None:
            sock.close()
        self._end(Closed(end, reason or _("closed by us"), held=self._held()))

    def acknowledge(self, mids: Iterable[int]) -> None:
        """Send PUBACKs in this order; all those of one turn of the loop go out together."""
        if self._fd != -1:
            for mid in mids:
                self._client.ack(mid, 1)

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> int:
        """Hand a PUBLISH over and return its packet id. Raises Offline if the connection cannot take it."""
        if self._fd == -1:
            raise Offline(_("not connected to the broker"))
        if not self._client.full:
            self._behind = 0
        elif self._behind > _STALLED_BYTES:
            raise Offline(_("the connection to the broker is stalled"))
        info = self._client.publish(topic, payload, qos, retain)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise Offline(str(info.rc))
        self._behind += len(payload)
        return info.mid

    def subscribe(self, filters: Mapping[str, int]) -> dict[int, list[str]]:
        """Send SUBSCRIBE; the packet ids and the filters asked for in each."""
        sent: dict[int, list[str]] = {}
        for some in _portions(list(filters)):
            if self.version == "5":
                # Retain handling 1 (section 3.8.3.1): no retained messages if the subscription exists
                asked: Any = [(each, SubscribeOptions(qos=filters[each], retainHandling=1)) for each in some]
            else:
                asked = [(each, filters[each]) for each in some]
            _code, mid = self._client.subscribe(asked)
            if mid is not None:
                sent[mid] = some
        return sent

    def unsubscribe(self, filters: Sequence[str]) -> dict[int, list[str]]:
        """Send UNSUBSCRIBE; the packet ids and the filters named in each."""
        sent: dict[int, list[str]] = {}
        for some in _portions(filters):
            _code, mid = self._client.unsubscribe(some)
            if mid is not None:
                sent[mid] = some
        return sent

    def _attach(self) -> None:
        sock: Any = self._client.socket()
        self._fd = sock.fileno()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or small replies wait for the peer's ACK
        self._client.on_socket_close = self._socket_closes
        self._loop.add_reader(self._fd, self._read)
        self._timers = [self._loop.call_later(_TICK, self._tick)]
        self._timers.append(self._loop.call_later(self._settings.patience.connect, self._connack_overdue))
        self._write()

    def _detach(self) -> None:
        """Take the socket from the loop; before it is closed, for its number may be used again at once."""
        if self._fd != -1:
            self._loop.remove_reader(self._fd)
            self._remove_writer()
            self._fd = -1
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _end(self, closed: Closed) -> None:
        if not self.closed.done():
            self.closed.set_result(closed)

    def _held(self) -> float | None:
        return None if self._accepted_at is None else time.monotonic() - self._accepted_at

    # What the loop calls

    def _read(self) -> None:
        self._reading = True
        try:
            more = self._client.read()
        except Exception:
            log.exception(N_("the broker sent what cannot be read; the connection is closed"))
            self.abort(reason=_("malformed packet"))
            return
        finally:
            self._reading = False
        if more and not self._read_scheduled:
            self._read_scheduled = True
            self._loop.call_soon(self._read_more)

    def _read_more(self) -> None:
        self._read_scheduled = False
        if self._fd != -1:
            self._read()

    def _write(self) -> None:
        self._write_scheduled = False
        if self._fd == -1:
            return
        self._client.loop_write()
        if self._fd == -1:
            return
        if not self._client.want_write():
            self._remove_writer()
        elif not self._writer_added:
            self._writer_added = True
            self._loop.add_writer(self._fd, self._write)

    def _remove_writer(self) -> None:
        if self._writer_added:
            self._writer_added = False
            self._loop.remove_writer(self._fd)

    def _tick(self) -> None:
        self._client.loop_misc()
        if self._fd != -1:
            self._timers[0] = self._loop.call_later(_TICK, self._tick)

    def _connack_overdue(self) -> None:
        if self._accepted_at is None:
            self.abort(
                End.TIMED_OUT,
                _("no CONNACK within {seconds:g} s").format(seconds=self._settings.patience.connect),
            )

    # What paho calls. It holds a lock meanwhile, so none of these may close the connection.

    def _want_write(self, *_args: object) -> None:
        # Not add_writer: most often the socket takes all in one send, later in this turn.
        # While the connecting thread is at work there is no socket here yet.
        if self._fd != -1 and not self._write_scheduled:
            self._write_scheduled = True
            self._loop.call_soon(self._write)

    def _want_no_write(self, *_args: object) -> None:
        if self._fd != -1:
            self._remove_writer()

    def _socket_closes(self, *_args: object) -> None:
        self._detach()

    def _connack(
        self,
        _client: object,
        _data: object,
        flags: ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._refusal = reason
            return
        self._accepted_at = time.monotonic()
        told = vars(properties) if properties is not None else {}
        self.accepted_as = Accepted(
            session_present=flags.session_present,
            receive_maximum=told.get("ReceiveMaximum", 65535 if self.version == "5" else ASSUMED_WINDOW),
            maximum_packet_size=told.get("MaximumPacketSize"),
            maximum_qos=told.get("MaximumQoS", 1),
        )
        self._listener.accepted(self)

    def _disconnected(
        self,
        _client: object,
        _data: object,
        flags: DisconnectFlags,
        reason: ReasonCode | None,
        _properties: Properties | None,
    ) -> None:
        if self._leaving:
            closed = Closed(End.BY_US, _("closed by us"), held=self._held())
        elif self._refusal is not None:
            closed = Closed(End.REFUSED, str(self._refusal), self._refusal.value)
        elif flags.is_disconnect_packet_from_server and reason is not None:
            closed = Closed(End.DISCONNECTED, str(reason), reason.value, held=self._held())
        elif reason is not None and reason == "Keep alive timeout":
            closed = Closed(End.TIMED_OUT, _("the broker did not answer a ping"), held=self._held())
        else:
            closed = Closed(End.CLOSED, _("the broker closed the connection"), held=self._held())
        self._end(closed)

    def _message(self, _client: object, _data: object, message: MQTTMessage) -> None:
        self._listener.message(self.generation, message)

    def _puback(self, _client: object, _data: object, mid: int, reason: ReasonCode, _properties: object) -> None:
        # paho calls this for written QoS 0 messages, too; their id may be that of a QoS 1 message in flight.
        if self._reading:
            self._listener.published(mid, reason.value)

    def _suback(
        self, _client: object, _data: object, mid: int, reasons: Sequence[ReasonCode], _properties: object
    ) -> None:
        self._listener.subscribed(mid, [reason.value for reason in reasons])

    def _unsuback(self, _client: object, _data: object, mid: int, _reasons: object, _properties: object) -> None:
        self._listener.unsubscribed(mid)


def _portions(filters: Sequence[str]) -> list[list[str]]:
    return [list(filters[start : start + _FILTERS_A_PACKET]) for start in range(0, len(filters), _FILTERS_A_PACKET)]
