"""The source `mqtt-in`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from flowengine import Annotated, Emit, Meta, NodeOptions, Problem, Ref, Source
from flowengine_mqtt.connection import MqttConnection
from flowengine_mqtt.dispatch import Subscriber
from flowengine_mqtt.option_types import Pattern, Qos


class MqttIn(Source):
    """Takes in the MQTT messages whose topic matches a pattern.

    `{device}` in the pattern captures that part of the topic as metadata; a capture never crosses a `/`. MQTT's own wildcards
    match whole levels only, so `fungxi_{device}_upLink` subscribes to `+` and looks at the rest here; `devices` subscribes to
    just those. The payload is the bytes as they came; put json-parse behind it. Metadata: `topic`, `qos`, `retained`, and
    what the pattern captures.

    Guarantees:
        A QoS 1 message is acknowledged when it is settled (delivered, dropped by the flow, or kept as a dead letter) or
        stored in the outbox. Until then the broker has it, over a kill and a restart too. It may come more than once;
        ids made with `id_from` tell. QoS 0 has no such promise. QoS 2 is refused.

    Example:
        - mqtt-in: {connection: gate, topic: "fungxi_{device}_upLink", qos: 1}
    """

    type = "mqtt-in"

    class Options(NodeOptions):
        connection: Annotated[Ref[MqttConnection], Meta(description="The broker's connection", examples=["gate"])]
        topic: Annotated[
            Pattern, Meta(description="The pattern of the topics; {name} captures", examples=["fungxi_{device}_upLink"])
        ]
        qos: Annotated[Qos, Meta(description="The QoS to subscribe with, 0 or 1")] = Qos("1")
        devices: Annotated[
            list[str], Meta(description="Only these values of {device}; all by default", examples=[["0012", "0013"]])
        ] = msgspec.field(default_factory=list)

    def check(self) -> Iterable[Problem]:
        try:
            self.options.topic.pattern.filters(self.options.devices)
        except ValueError as error:
            yield Problem("devices", str(error))

    def metadata(self) -> Iterable[str]:
        return ("topic", "qos", "retained", *self.options.topic.pattern.names)

    def left_out(self) -> None:
        self._subscribe(None)

    def _subscribe(self, emit: Emit | None) -> None:
        options = self.options
        subscriber = Subscriber(options.topic.pattern, options.devices, options.qos.level, emit)
        options.connection.target.subscribe(subscriber)

    async def run(self, emit: Emit) -> None:
        self._subscribe(emit)
        await asyncio.get_running_loop().create_future()
