"""amqtt as the embedded broker, where there is no Mosquitto: runs in the engine's own event loop.

For trying things out only: it keeps nothing on disk, forgets unacknowledged messages, and what a publisher
sent just before it closed its connection.
"""

from __future__ import annotations

from typing import Any

import structlog

from flowengine import N_, _
from flowengine_mqtt.errors import BrokerError
from flowengine_mqtt.mosquitto import answers, taken

log = structlog.get_logger(__name__)


class AmqttBroker:
    """Listens on `host:port` for anyone, so `host` should be the loopback."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._broker: Any = None

    async def start(self) -> None:
        """Start it. Raises BrokerError if it is not installed or the port is taken."""
        try:
            from amqtt.broker import Broker
            from amqtt.errors import BrokerError as AmqttError
        except ImportError:
            raise BrokerError(
                _(
                    "The embedded broker needs Mosquitto: apt-get install mosquitto, or "
                    "brew install mosquitto. "
                    "To try things out, pip install 'flowengine[embedded]' will do. "
                    "Or use a broker that is there: "
                    "MQTT_URL=mqtt://HOST:PORT."
                )
            ) from None
        if await answers(self._host, self._port):
            raise BrokerError(taken(self._host, self._port))
        broker = Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"{self._host}:{self._port}"}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            }
        )
        try:
            await broker.start()
        except AmqttError as problem:
            raise BrokerError(str(problem)) from problem
        self._broker = broker
        log.warning(
            N_(
                "the embedded broker is amqtt, since no mosquitto is installed; it is for trying things out: "
                "it forgets messages when it or a device goes away"
            )
        )

    async def stop(self) -> None:
        """Stop it; what it holds is lost."""
        if self._broker is not None:
            broker, self._broker = self._broker, None
            await broker.shutdown()
