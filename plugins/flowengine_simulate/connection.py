"""The MQTT connection of one terminal, or of several that share it."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from flowengine import _

MOST_UNACKNOWLEDGED = 1000
_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}


class Events(Protocol):
    """What a connection tells its owner, in the event loop."""

    def ready(self) -> None:
        """It is connected and subscribed to the downlinks."""

    def lost(self) -> None:
        """It was ready and is gone."""

    def acknowledged(self) -> None:
        """The broker has confirmed a message."""

    def downlink(self, device: str, payload: bytes) -> None:
        """A message came for `device`."""

    def notice(self, text: str) -> None:
        """Something a person should know."""


class TerminalConnection:
    """An MQTT 3.1.1 connection, as terminals have, with a clean session.

    paho's own thread does the network: it reconnects after 1 to 5 s and sends again what was not
    acknowledged. It only hands over to the event loop, where everything else happens. ValueError if `url` is
    not like mqtt://[user:password@]host[:port] or mqtts://...
    """

    def __init__(self, events: Events, url: str, devices: Sequence[str]) -> None:
        self.devices = devices
        self.unacknowledged = 0
        self._is_ready = False
        self._events = events
        self._downlinks = {f"fungxi_{device}_downLink": device for device in devices}
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError(_("not a broker's URL such as mqtt://127.0.0.1:1883: {url!r}").format(url=url))
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        self._place = f"{parts.scheme}://{parts.hostname}:{port}"
        client_id = f"terminal-{devices[0]}-{secrets.token_hex(4)}"
        self._client = client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id)
        if parts.username:
            client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
        if parts.scheme == "mqtts":
            client.tls_set()
        client.max_inflight_messages_set(MOST_UNACKNOWLEDGED)
        client.reconnect_delay_set(1, 5)
        client.on_socket_open = self._on_socket_open
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.connect_async(parts.hostname, port, keepalive=30)

    @property
    def ready(self) -> bool:
        """Whether reports can be sent and their replies will be heard."""
        return self._is_ready

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the thread, which connects, for as long as it takes."""
        self._loop = loop
        self._client.loop_start()

    def publish(self, topic: str, payload: bytes, qos: int) -> bool:
        """Send; False if not taken. At QoS 1 paho takes it always and keeps it until the PUBACK."""
        taken = self._client.publish(topic, payload, qos).rc == mqtt.MQTT_ERR_SUCCESS or qos > 0
        self.unacknowledged += taken
        return taken

    def disconnect(self) -> None:
        """Send DISCONNECT, which ends the thread."""
        self._is_ready = False
        self._client.disconnect()

    def join(self) -> None:
        """Wait for the thread. Blocks."""
        self._client.loop_stop()

    # What follows runs in paho's thread, but for the methods it hands over to the loop.

    def _on_socket_open(self, client: mqtt.Client, userdata: Any, sock: Any) -> None:
        # Without it the second of two small packets waits for the ACK of the first, some 20 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _on_connect(self, client: mqtt.Client, userdata: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if reason.is_failure:
            text = _("the broker at {place} refuses the terminals: {reason}")
            self._notice(text.format(place=self._place, reason=reason))
        else:
            client.subscribe([(topic, 1) for topic in self._downlinks])

    def _on_connect_fail(self, client: mqtt.Client, userdata: Any) -> None:
        self._notice(_("the broker at {place} cannot be reached; trying again").format(place=self._place))

    def _on_subscribe(
        self, client: mqtt.Client, userdata: Any, mid: int, reasons: list[ReasonCode], properties: Any
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            self._notice(_("the broker at {place} refuses a terminal its downlink").format(place=self._place))
        self._loop.call_soon_threadsafe(self._subscribed)

    def _subscribed(self) -> None:
        self._is_ready = True
        self._events.ready()

    def _on_disconnect(
        self, client: mqtt.Client, userdata: Any, flags: Any, reason: ReasonCode, properties: Any
    ) -> None:
        if reason.is_failure:
            self._loop.call_soon_threadsafe(self._lost)

    def _lost(self) -> None:
        if self._is_ready:
            self._is_ready = False
            self._events.lost()
            self._events.notice(
                _("the connection to the broker at {place} is lost; reports pause").format(place=self._place)
            )

    def _on_publish(self, client: mqtt.Client, userdata: Any, mid: int, reason: ReasonCode, properties: Any) -> None:
        self._loop.call_soon_threadsafe(self._published)

    def _published(self) -> None:
        self.unacknowledged -= 1
        self._events.acknowledged()

    def _on_message(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        device = self._downlinks[message.topic]
        self._loop.call_soon_threadsafe(self._events.downlink, device, bytes(message.payload))

    def _notice(self, text: str) -> None:
        self._loop.call_soon_threadsafe(self._events.notice, text)
