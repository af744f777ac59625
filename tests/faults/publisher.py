"""Devices that publish numbered records and know which of them the broker has acknowledged."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from tests.faults.backend import Record
from tests.support.engine import until

_SENT_AGAIN_S = 0.1


class Publisher:
    """Publishes the records of all devices over one connection at QoS 1, each device's numbers in order.

    It connects again by itself, and what was not acknowledged is then sent again, in order. `sent` and `acknowledged` are in
    the order in which that happened; what is told here is told in the event loop.
    """

    def __init__(self, port: int, devices: Sequence[str], *, topic: str = "rig/{device}/up", size: int = 0) -> None:
        self.devices = list(devices)
        self.size = size
        self.sent: list[Record] = []
        self.acknowledged: list[Record] = []
        self._topic = topic
        self._port = port
        self._numbers: defaultdict[str, int] = defaultdict(int)
        self._under_way: dict[int, Record] = {}
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="rig-publisher", clean_session=False)
        self._client.max_inflight_messages_set(500)
        self._client.reconnect_delay_set(0.1, 0.5)  # type: ignore[arg-type]
        self._connected = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many records the broker has not acknowledged."""
        return len(self._under_way)

    def publish(self, device: str, **fields: Any) -> Record:
        """Publish a device's next record, with these fields in it; PUBACK comes later."""
        self._numbers[device] += 1
        record = Record(device, self._numbers[device])
        content = {"device": device, "number": record.number, **fields}
        if self.size:
            content["pad"] = "x" * self.size
        told = self._client.publish(self._topic.format(device=device), json.dumps(content), qos=1)
        self._under_way[told.mid] = record
        self.sent.append(record)
        return record

    async def burst(self, each: int) -> None:
        """Publish so many records of each device, and wait until the broker has acknowledged all."""
        for _ in range(each):
            await self._connected.wait()
            for device in self.devices:
                self.publish(device)
            await asyncio.sleep(0)
        await self.all_acknowledged()

    async def steady(self, rate: float) -> None:
        """Publish `rate` records a second, devices in turn, until cancelled."""
        loop = asyncio.get_running_loop()
        began, count = loop.time(), 0
        while True:
            await self._connected.wait()
            while count < (loop.time() - began) * rate:
                self.publish(self.devices[count % len(self.devices)])
                count += 1
            await asyncio.sleep(0.01)

    async def all_acknowledged(self, within: float = 30.0) -> None:
        """Return once the broker has acknowledged all that was published."""
        await until(lambda: not self._under_way, "a PUBACK for each record", within)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        client = self._client

        def on_connect(*_: Any) -> None:
            # paho sends what is unacknowledged again right after this; newer records must not come in between.
            loop.call_soon_threadsafe(loop.call_later, _SENT_AGAIN_S, self._connected.set)

        def on_disconnect(*_: Any) -> None:
            loop.call_soon_threadsafe(self._connected.clear)

        def on_publish(_client: mqtt.Client, _data: Any, mid: int, *_: Any) -> None:
            loop.call_soon_threadsafe(self._puback, mid)

        client.on_connect = on_connect
        client.on_disconnect = on_disconnect
        client.on_publish = on_publish
        await asyncio.to_thread(client.connect, "127.0.0.1", self._port)
        client.loop_start()
        await asyncio.wait_for(self._connected.wait(), 10)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    def _puback(self, mid: int) -> None:
        self.acknowledged.append(self._under_way.pop(mid))
