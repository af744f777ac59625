"""Publishing on one network connection: what may be sent, how much at once, which PUBACK belongs to what."""

from __future__ import annotations

import asyncio
from collections import deque

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from flowengine import _
from flowengine_mqtt.errors import Offline, PublishFailed, PublishRefused
from flowengine_mqtt.filters import check_topic
from flowengine_mqtt.network import NetworkConnection

_NOT_AUTHORIZED = 0x87
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
        self._in_flight: dict[int, asyncio.Future[int]] = {}
        self._waiting: deque[tuple[asyncio.Future[int], str, bytes, bool]] = deque()

    def qos0(self, topic: str, payload: bytes, retain: bool) -> None:
        """Write a message. Raises Offline, PublishRefused."""
        self._check(topic, payload, 0)
        self._connection.publish(topic, payload, 0, retain)

    def qos1(self, topic: str, payload: bytes, retain: bool) -> asyncio.Future[int]:
        """Send a message; the result is its PUBACK's reason code. Raises, or the future does, as `qos0`."""
        self._check(topic, payload, 1)
        confirmation: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if len(self._in_flight) < self._broker.receive_maximum:
            self._in_flight[self._connection.publish(topic, payload, 1, retain)] = confirmation
        else:
            self._waiting.append((confirmation, topic, payload, retain))
        return confirmation

    def confirmed(self, mid: int, code: int) -> None:
        """PUBACK; a reason code from 0x80 on says no (section 3.4.2.1)."""
        confirmation = self._in_flight.pop(mid, None)
        if confirmation is None:
            return
        if not confirmation.done():
            if code < 0x80:
                confirmation.set_result(code)
            else:
                confirmation.set_exception(_refusal(code))
        while self._waiting:
            waiting, topic, payload, retain = self._waiting.popleft()
            if waiting.done():  # whoever published it has given up
                continue
            try:
                self._in_flight[self._connection.publish(topic, payload, 1, retain)] = waiting
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

    def _check(self, topic: str, payload: bytes, qos: int) -> None:
        try:
            check_topic(topic)
        except ValueError as problem:
            raise PublishRefused(str(problem)) from None
        if qos > self._broker.maximum_qos:
            raise PublishRefused(_("the broker takes messages at QoS 0 only"))
        limit = self._broker.maximum_packet_size
        # Fixed header 5, length of the topic 2, packet id 2, length of the properties 1
        if limit is not None and len(payload) + len(topic.encode()) + 10 > limit:
            raise PublishRefused(
                _("{size} bytes are more than the broker takes ({limit})").format(size=len(payload), limit=limit)
            )


def _refusal(code: int) -> PublishFailed | PublishRefused:
    """What a PUBACK with a reason code from 0x80 on means (section 3.4.2.1)."""
    reason = f"{ReasonCode(PacketTypes.PUBACK, identifier=code)} (0x{code:02X})"
    if code in _NEVER:
        return PublishRefused(reason, status=code)
    return PublishFailed(reason, slow=code == _NOT_AUTHORIZED, status=code)
