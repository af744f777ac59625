"""A session that is no session: it notes what is published and acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from flowengine.testing import make
from flowengine_mqtt.acks import AckLedger
from flowengine_mqtt.connection import MqttConnection
from flowengine_mqtt.errors import Offline


class StandIn:
    """What a connection needs of `session.Session`."""

    def __init__(self) -> None:
        self.online = True
        self.window = 512
        self.receive_maximum = 512
        self.published: list[tuple[str, bytes, int]] = []
        self.times_left: list[float | None] = []
        self.filters: dict[str, int] = {}
        self.acknowledged: list[int] = []
        self.came_back: list[int] = []

    def acknowledge(self, _generation: int, mids: Iterable[int]) -> None:
        self.acknowledged += mids

    def come_back(self, receive_maximum: int) -> None:
        self.came_back.append(receive_maximum)

    def set_filters(self, filters: dict[str, int]) -> None:
        self.filters = filters

    def publish_qos0(self, topic: str, payload: bytes, _retain: bool = False, time_left: float | None = None) -> bool:
        self.published.append((topic, payload, 0))
        self.times_left.append(time_left)
        return self.online

    def publish_qos1(
        self, topic: str, payload: bytes, _retain: bool = False, time_left: float | None = None
    ) -> asyncio.Future[int]:
        if not self.online:
            raise Offline("not connected")
        self.published.append((topic, payload, 1))
        self.times_left.append(time_left)
        acknowledged = asyncio.get_running_loop().create_future()
        acknowledged.set_result(16)
        return acknowledged


def connection() -> tuple[MqttConnection, StandIn]:
    """A connection that is up, on a stand-in."""
    gate = make(MqttConnection, "mqtt://127.0.0.1")
    session: Any = StandIn()
    gate._session = session
    gate._ledger = AckLedger(session.acknowledge, lambda flush: flush())
    gate._on_up(1, False)
    return gate, session
