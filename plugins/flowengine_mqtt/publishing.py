"""Publishing on one network connection: what may be sent, how much at once, which PUBACK belongs to what."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from flowengine import _
from flowengine_mqtt.errors import Offline, PublishFailed, PublishRefused
from flowengine_mqtt.network import NetworkConnection
from flowengine_mqtt.packets import topic_name

_NOT_AUTHORIZED = 0x87
_AROUND = 5 + 2 + 6  # fixed header, packet id, properties
#: Reason codes of a PUBACK that are about the message itself: topic name invalid, payload format invalid.
_NEVER = {0x90, 0x99}


class Publishing:
    """What was published on a connection and is not confirmed yet. It ends with the connection: nothing is
    carried over to the next, since only who published it knows whether it is still wanted.

    No more than the broker's Receive Maximum is in flight (MQTT 5 section 3.2.2.3.3); the rest waits here.
    """

    def __init__(self, connection: NetworkConnection) -> None:
        self._connection = connection
        self._broker = connection.accepted_as
        self._create_future = asyncio.get_running_loop().create_future
        self._in_flight: dict[int, asyncio.Future[int]] = {}
        self._waiting: deque[tuple[asyncio.Future[int], bytes, bytes, bool, float | None]] = deque()

    def qos0(self, topic: str, payload: bytes, retain: bool, time_left: float | None = None) -> None:
        """Write a message. Raises Offline, PublishRefused.

        time_left: seconds after which the broker shall not deliver it any more (MQTT 5 only), or None.
        """
        name = self._checked(topic, payload, 0)
        self._connection.publish(0, name, payload, retain, _expiry(time_left))

    def qos1(self, topic: str, payload: bytes, retain: bool, time_left: float | None = None) -> asyncio.Future[int]:
        """Send a message; the result is its PUBACK's reason code. Raises, or the future does, as `qos0`."""
        name = self._checked(topic, payload, 1)
        confirmation = self._create_future()
        if len(self._in_flight) < self._broker.receive_maximum:
            self._send(confirmation, name, payload, retain, time_left)
        else:
            until = None if time_left is None else time.monotonic() + time_left
            self._waiting.append((confirmation, name, payload, retain, until))
        return confirmation

    def _send(
        self, confirmation: asyncio.Future[int], topic: bytes, payload: bytes, retain: bool, time_left: float | None
    ) -> None:
        packet_id = self._connection.next_packet_id()
        while packet_id in self._in_flight:  # the row has begun anew, and this one still waits for its PUBACK
            packet_id = self._connection.next_packet_id()
        self._connection.publish(packet_id, topic, payload, retain, _expiry(time_left))
        self._in_flight[packet_id] = confirmation

    def confirmed(self, packet_id: int, code: int) -> None:
        """PUBACK; a reason code from 0x80 on says no (section 3.4.2.1)."""
        confirmation = self._in_flight.pop(packet_id, None)
        if confirmation is None:
            return
        if not confirmation.done():
            if code < 0x80:
                confirmation.set_result(code)
            else:
                confirmation.set_exception(_refusal(code))
        while self._waiting:
            waiting, topic, payload, retain, until = self._waiting.popleft()
            if waiting.done():  # whoever published it has given up
                continue
            time_left = None if until is None else until - time.monotonic()
            try:
                self._send(waiting, topic, payload, retain, time_left)
            except Offline as problem:
                waiting.set_exception(problem)
                continue
            return

    def ended(self, reason: str) -> None:
        """The connection is gone: all that is unconfirmed fails with Offline."""
        for confirmation in [*self._in_flight.values(), *(waiting[0] for waiting in self._waiting)]:
            if not confirmation.done():
                confirmation.set_exception(Offline(reason))
        self._in_flight.clear()
        self._waiting.clear()

    def _checked(self, topic: str, payload: bytes, qos: int) -> bytes:
        """The topic as a packet has it. Raises PublishRefused if the broker will never take such a message."""
        try:
            name = topic_name(topic)
        except ValueError as problem:
            raise PublishRefused(str(problem)) from None
        if qos > self._broker.maximum_qos:
            raise PublishRefused(_("the broker takes messages at QoS 0 only"))
        limit = self._broker.maximum_packet_size
        if limit is not None and len(payload) + len(name) + _AROUND > limit:
            raise PublishRefused(
                _("{size} bytes are more than the broker takes ({limit})").format(size=len(payload), limit=limit)
            )
        return name


def _expiry(time_left: float | None) -> int | None:
    """A Message Expiry Interval in whole seconds: not less than is left, since 0 would be none at all."""
    return None if time_left is None else max(1, math.ceil(time_left))


def _refusal(code: int) -> PublishFailed | PublishRefused:
    """What a PUBACK with a reason code from 0x80 on means (section 3.4.2.1)."""
    reason = f"{ReasonCode(PacketTypes.PUBACK, identifier=code)} (0x{code:02X})"
    if code in _NEVER:
        return PublishRefused(reason, status=code)
    return PublishFailed(reason, slow=code == _NOT_AUTHORIZED, status=code)
