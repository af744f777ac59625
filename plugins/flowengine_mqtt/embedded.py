"""The broker behind `embedded:`, for whoever has none: Mosquitto if it is installed, else amqtt."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import ClassVar

from flowengine import _
from flowengine_mqtt.amqtt_broker import AmqttBroker
from flowengine_mqtt.mosquitto import Mosquitto, find_mosquitto
from flowengine_mqtt.settings import Version

DEFAULT_PORT = 1883


def embedded_port(url: str) -> int | None:
    """The port that `embedded:` or `embedded:PORT` names; None if `url` is of another kind.

    Raises ValueError if it is embedded: and something that is no port.
    """
    if not url.startswith("embedded:"):
        return None
    text = url.removeprefix("embedded:")
    if not text:
        return DEFAULT_PORT
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise ValueError(
            _("embedded: takes a port from 1 to 65535, as in embedded:1884, not {text!r}.").format(text=text)
        )
    return int(text)


class EmbeddedBroker:
    """A share in the broker that belongs to a state folder and a port.

    The first share to start in this process starts it, the last to stop stops it.
    """

    _brokers: ClassVar[dict[tuple[Path, str, int], _Shared]] = {}

    def __init__(self, state_dir: Path, host: str = "127.0.0.1", port: int = DEFAULT_PORT) -> None:
        self._host = host
        self._port = port
        self._folder = state_dir.resolve() / f"mosquitto-{port}"
        self._started = False

    @property
    def url(self) -> str:
        """Where clients connect to."""
        return f"mqtt://{self._host}:{self._port}"

    @property
    def version(self) -> Version:
        """The protocol version to speak to it once it is started: amqtt knows 3.1.1 only, and hangs on a 5."""
        shared = self._brokers.get((self._folder, self._host, self._port))
        return "3.1.1" if shared is not None and isinstance(shared.broker, AmqttBroker) else "auto"

    async def start(self) -> None:
        """Return once the broker answers. Raises BrokerError, with what to do about it, and OSError."""
        key = (self._folder, self._host, self._port)
        shared = self._brokers.setdefault(key, _Shared())
        async with shared.lock:
            if not shared.users:
                shared.broker = self._make()
                await shared.broker.start()
            shared.users += 1
        self._started = True

    async def stop(self) -> None:
        """Give the share up; the last one stops the broker, which saves its state."""
        if not self._started:
            return
        self._started = False
        shared = self._brokers[(self._folder, self._host, self._port)]
        async with shared.lock:
            shared.users -= 1
            if not shared.users and shared.broker is not None:
                await shared.broker.stop()
                shared.broker = None

    def _make(self) -> Mosquitto | AmqttBroker:
        program = find_mosquitto()
        if program is None:
            return AmqttBroker(self._host, self._port)
        return Mosquitto(program, self._folder, self._host, self._port)


class _Shared:
    """A broker and how many use it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0
        self.broker: Mosquitto | AmqttBroker | None = None
