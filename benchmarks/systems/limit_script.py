"""The limit: a script for this one purpose on the packages of flowengine, with nothing in between."""

from __future__ import annotations

from importlib.metadata import version
from typing import ClassVar

from benchmarks.systems.system import OPPONENTS, PYTHON, Ability, Place, System

_PACKAGES = ("paho-mqtt", "aiohttp", "msgspec", "uvloop")


class LimitScript(System):
    """It speaks MQTT 3.1.1, which costs paho less than 5, so how many messages are in flight to it is for the broker to say."""

    name = "limit"
    abilities: ClassVar[frozenset[Ability]] = frozenset(
        {"records", "heartbeats", "commands", "many devices", "order", "session"}
    )

    def version(self) -> str:
        return ", ".join(f"{package} {version(package)}" for package in _PACKAGES)

    def command(self, place: Place) -> list[str]:
        return [PYTHON, str(OPPONENTS / "limit" / "app.py")]

    def env(self, place: Place) -> dict[str, str]:
        return {
            "BROKER_PORT": str(place.broker_port),
            "BACKEND_URL": place.backend,
            "LISTEN_PORT": str(place.listen_port),
            "ORDERED": str(int(place.ordered)),
        }
