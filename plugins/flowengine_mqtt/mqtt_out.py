"""The action `mqtt-out`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, ClassVar

import msgspec

from flowengine import Action, Annotated, Drop, Message, Meta, NodeOptions, Ref, Result, Topic, Tree
from flowengine_mqtt.connection import MqttConnection
from flowengine_mqtt.option_types import Qos

_encode = msgspec.json.Encoder().encode
_WRITTEN = Result()


class MqttOut(Action):
    """Publishes each message to a topic.

    A text is published as it is, bytes too, anything else as JSON. `{result.status}` is the reason code of the
    acknowledgement (MQTT 5 section 3.4.2.1): 0, or 16 where nobody has subscribed.

    Guarantees:
        QoS 1 is delivered when the broker has acknowledged it (PUBACK); without a connection the message waits in its lane and is
        published when there is one again. QoS 0 is delivered when it was written to a connected socket, and without a connection
        dropped as `offline`: what is worth waiting for goes with QoS 1. A topic that would hold `/ + #` from a value is refused.
        With `delivery: {expire_after: ...}` an MQTT 5 broker is told how long the message is worth delivering, too.

    Example:
        - mqtt-out: {connection: gate, topic: "fungxi_{device}_downLink", qos: 1}
    """

    type = "mqtt-out"
    inline: ClassVar[bool] = True

    class Options(NodeOptions):
        connection: Annotated[Ref[MqttConnection], Meta(description="The broker's connection", examples=["gate"])]
        topic: Annotated[Topic, Meta(description="The topic to publish to", examples=["fungxi_{device}_downLink"])]
        qos: Annotated[Qos, Meta(description="0: at most once; 1: confirmed by the broker")] = Qos("0")
        retain: Annotated[bool, Meta(description="Let the broker keep it as the topic's last message")] = False
        payload: Annotated[
            Tree | None, Meta(description="What to publish in place of the payload", examples=[{"cmd": "open"}])
        ] = None

    @property
    def confirming(self) -> bool:
        return bool(self.options.qos.level)

    def deliver(self, msg: Message) -> Awaitable[Result] | Result | Drop:
        options = self.options
        topic = options.topic.render(msg)
        payload = encoded(msg.payload if options.payload is None else options.payload.build(msg))
        session = options.connection.target.session
        time_left = self.time_left(msg)
        if options.qos.level:
            return _confirmed(session.publish_qos1(topic, payload, options.retain, time_left))
        if session.publish_qos0(topic, payload, options.retain, time_left):
            return _WRITTEN
        return Drop("offline")


def encoded(value: Any) -> bytes:
    """A payload as it is published."""
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else _encode(value)


async def _confirmed(acknowledged: asyncio.Future[int]) -> Result:
    return Result(status=await acknowledged)
