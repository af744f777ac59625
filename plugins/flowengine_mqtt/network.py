"""One network connection of a session, on its own paho client.

A new connection gets a new client, so that packet ids and messages which paho still holds from the last one
can never reach the next.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import structlog
from paho.mqtt.client import ConnectFlags, DisconnectFlags
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from flowengine import N_, _
from flowengine_mqtt.client import Client
from flowengine_mqtt.dial import dial
from flowengine_mqtt.errors import Offline
from flowengine_mqtt.listener import Listener
from flowengine_mqtt.outcome import Accepted, Closed, End
from flowengine_mqtt.packets import pubacks, publish_head
from flowengine_mqtt.reader import Malformed
from flowengine_mqtt.settings import ASSUMED_WINDOW, SessionSettings

log = structlog.get_logger(__name__)

_TICKS_A_KEEPALIVE = 10
_TICK = (1.0, 5.0)
"""Seconds at the least and at the most between two looks at what is due: pings, and their answers."""
_STALLED_BYTES = 1_000_000  # how much may wait behind a full socket
_FILTERS_A_PACKET = 8  # AWS IoT Core refuses more in one SUBSCRIBE


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
        self._leaving = False
        self._refusal: ReasonCode | None = None
        self._accepted_at: float | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._client = client = Client(client_id, version, partial(listener.message, generation), listener.published)
        client.connect_timeout = settings.patience.connect
        client.username = settings.username
        client.password = settings.password
        client.on_socket_register_write = self._want_write
        client.on_connect = self._connack
        client.on_disconnect = self._disconnected
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
            self._client.leave()
            self._want_write()

    def abort(self, end: End = End.BY_US, reason: str = "") -> None:
        """Close at once, without DISCONNECT; the broker keeps the session."""
        sock = self._client.socket()
        self._detach()
        if sock is not None:
            sock.close()
        self._end(Closed(end, reason or _("closed by us"), held=self._held()))

    def acknowledge(self, packet_ids: Iterable[int]) -> None:
        """Send PUBACKs in this order, now: whoever calls this has gathered those of one turn of the loop."""
        if self._fd != -1:
            self._client.send(pubacks(packet_ids))
            if not self._write_scheduled:
                self._write()

    def next_packet_id(self) -> int:
        """A packet id for `publish`; it may be that of a message in flight, once all have been used."""
        return self._client.next_packet_id()

    def publish(self, packet_id: int, topic: bytes, payload: bytes, retain: bool, expiry: int | None = None) -> None:
        """Send a PUBLISH, of QoS 1 if it has a packet id. Raises Offline if the connection cannot take it.

        topic, expiry: see `packets`.
        """
        client = self._client
        if self._fd == -1 or self._leaving:
            raise Offline(_("not connected to the broker"))
        if client.full and client.waiting > _STALLED_BYTES:
            raise Offline(_("the connection to the broker is stalled"))
        client.send(publish_head(self.version, topic, len(payload), packet_id, retain, expiry), payload)
        self._want_write()

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
        self._loop.add_reader(self._fd, self._readable)
        self._tick_s = min(max(_TICK[0], self._settings.keepalive / _TICKS_A_KEEPALIVE), _TICK[1])
        self._timers = [self._loop.call_later(self._tick_s, self._tick)]
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

    def _readable(self) -> None:
        if not self._read_scheduled:  # or this turn would read twice
            self._read()

    def _read(self) -> None:
        self._read_scheduled = False
        if self._fd == -1:
            return
        try:
            more = self._client.read()
        except Malformed as problem:
            log.error(N_("the broker sent what cannot be read; the connection is closed"), reason=str(problem))
            self.abort(reason=str(problem))
            return
        except Exception:
            log.exception(N_("the broker sent what cannot be read; the connection is closed"))
            self.abort(reason=_("malformed packet"))
            return
        if more:
            self._read_scheduled = True
            self._loop.call_soon(self._read)

    def _write(self) -> None:
        self._write_scheduled = False
        if self._fd == -1:
            return
        self._client.loop_write()
        if self._fd == -1:
            return
        if not self._client.full:
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
            self._timers[0] = self._loop.call_later(self._tick_s, self._tick)

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

    def _suback(
        self, _client: object, _data: object, mid: int, reasons: Sequence[ReasonCode], _properties: object
    ) -> None:
        self._listener.subscribed(mid, [reason.value for reason in reasons])

    def _unsuback(self, _client: object, _data: object, mid: int, _reasons: object, _properties: object) -> None:
        self._listener.unsubscribed(mid)


def _portions(filters: Sequence[str]) -> list[list[str]]:
    return [list(filters[start : start + _FILTERS_A_PACKET]) for start in range(0, len(filters), _FILTERS_A_PACKET)]
