"""What is in flight on a connection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flowengine_mqtt.errors import Offline
from flowengine_mqtt.outcome import Accepted
from flowengine_mqtt.publishing import Publishing


class Wire:
    """A connection that notes what is published, with packet ids as given."""

    def __init__(self, packet_ids: Iterator[int]) -> None:
        self.accepted_as = Accepted()
        self.sent: list[tuple[int, bytes]] = []
        self.stalled = False
        self._packet_ids = packet_ids

    def next_packet_id(self) -> int:
        return next(self._packet_ids)

    def publish(self, packet_id: int, _topic: bytes, payload: bytes, _retain: bool, _expiry: int | None) -> None:
        if self.stalled:
            raise Offline("stalled")
        self.sent.append((packet_id, payload))


async def test_the_packet_id_of_a_message_in_flight_is_not_used_again() -> None:
    wire: Any = Wire(iter([1, 2, 1, 2, 3, 1, 2]))
    publishing = Publishing(wire)
    first = publishing.qos1("t", b"a", False)
    second = publishing.qos1("t", b"b", False)
    third = publishing.qos1("t", b"c", False)
    assert wire.sent == [(1, b"a"), (2, b"b"), (3, b"c")]
    publishing.confirmed(2, 0)
    assert (first.done(), second.done(), third.done()) == (False, True, False)
    publishing.qos1("t", b"d", False)
    assert wire.sent[3:] == [(2, b"d")]
    publishing.confirmed(1, 16)
    assert await first == 16
    publishing.ended("closed")
    with pytest.raises(Offline):
        await third


async def test_what_a_stalled_connection_does_not_take_is_not_in_flight() -> None:
    wire: Any = Wire(iter([1, 1]))
    publishing = Publishing(wire)
    wire.stalled = True
    with pytest.raises(Offline):
        publishing.qos1("t", b"a", False)
    wire.stalled = False
    publishing.qos1("t", b"b", False)
    assert wire.sent == [(1, b"b")]
