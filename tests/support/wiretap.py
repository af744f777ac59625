"""A client that hears what goes over a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Any, NamedTuple, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion


class Heard(NamedTuple):
    """One message."""

    topic: str
    payload: bytes


class Wiretap:
    """Hears all messages on some topics, and publishes.

    async with Wiretap("127.0.0.1", port, ["fungxi_+"]) as tap:
        await tap.publish("fungxi_1_upLink", b"{}")                 # QoS 1: returns after the PUBACK
        tap.heard                                                   # in the order of arrival
    """

    def __init__(self, host: str, port: int, topics: Iterable[str]) -> None:
        self.heard: list[Heard] = []
        self._topics = [(topic, 1) for topic in topics]
        self._place = (host, port)
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._unconfirmed: dict[int, asyncio.Future[None]] = {}
        self._ready = asyncio.Event()

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Publish; at QoS 1 return once the broker has it."""
        sent = self._client.publish(topic, payload, qos, retain)
        if qos:
            await asyncio.wait_for(self._unconfirmed.setdefault(sent.mid, self._loop.create_future()), 10)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        client = self._client
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        await asyncio.to_thread(client.connect, *self._place)
        client.loop_start()
        await asyncio.wait_for(self._ready.wait(), 10)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    # What runs in paho's thread only hands over to the loop.

    def _on_connect(self, *_: Any) -> None:
        if self._topics:
            self._client.subscribe(self._topics)
        else:
            self._loop.call_soon_threadsafe(self._ready.set)

    def _on_subscribe(self, *_: Any) -> None:
        self._loop.call_soon_threadsafe(self._ready.set)

    def _on_publish(self, client: mqtt.Client, userdata: Any, mid: int, *_: Any) -> None:
        self._loop.call_soon_threadsafe(self._confirmed, mid)

    def _on_message(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        self._loop.call_soon_threadsafe(self.heard.append, Heard(message.topic, bytes(message.payload)))

    def _confirmed(self, mid: int) -> None:
        confirmation = self._unconfirmed.setdefault(mid, self._loop.create_future())
        if not confirmation.done():
            confirmation.set_result(None)
