"""A script for this one purpose on the packages of flowengine, with nothing in between: in plain style, and tuned further."""

from __future__ import annotations

from importlib.metadata import version
from typing import ClassVar

from benchmarks.systems.system import OPPONENTS, PYTHON, Ability, Place, System

_PACKAGES = ("paho-mqtt", "aiohttp", "orjson", "msgspec", "uvloop")


class Script(System):
    """It speaks MQTT 5 and asks for the window that flowengine asks for."""

    name = "script"
    tuned: ClassVar[bool] = False
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
            "ORDERED": str(int(place.delivery != "unordered")),
            "TUNED": str(int(self.tuned)),
        }


class LimitScript(Script):
    """It speaks MQTT 3.1.1, which costs paho less than 5, so how many messages are in flight to it is for the broker to say."""

    name = "limit"
    tuned = True
