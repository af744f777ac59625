"""The script that flowengine replaces, as its author wrote it."""

from __future__ import annotations

from importlib.metadata import version
from typing import ClassVar

from benchmarks.systems.system import PYTHON, ROOT, Ability, Place, System

_PACKAGES = ("paho-mqtt", "requests", "flask")


class SeedScript(System):
    """It knows one terminal, subscribes at QoS 0 and has no session: what comes while it is away is lost."""

    name = "seed"
    abilities: ClassVar[frozenset[Ability]] = frozenset({"records", "heartbeats", "commands", "order"})
    string_commands = True

    def version(self) -> str:
        return ", ".join(f"{package} {version(package)}" for package in _PACKAGES)

    def command(self, place: Place) -> list[str]:
        return [PYTHON, str(ROOT / "tests" / "seed" / "app.py")]

    def env(self, place: Place) -> dict[str, str]:
        return {
            "MQTT_HOST": "127.0.0.1",
            "MQTT_PORT": str(place.broker_port),
            "BACKEND_URL": place.backend,
            "LISTEN_PORT": str(place.listen_port),
            "PYTHONIOENCODING": "utf-8",
        }
