"""MQTT: the connection `mqtt`, the nodes `mqtt-in` and `mqtt-out`, and the embedded broker."""

from __future__ import annotations

from flowengine import Connection, Node, hookimpl
from flowengine_mqtt.connection import MqttConnection
from flowengine_mqtt.mqtt_in import MqttIn
from flowengine_mqtt.mqtt_out import MqttOut


@hookimpl
def flowengine_nodes() -> list[type[Node]]:
    """The nodes of this pack."""
    return [MqttIn, MqttOut]


@hookimpl
def flowengine_connections() -> list[type[Connection]]:
    """The connections of this pack."""
    return [MqttConnection]
