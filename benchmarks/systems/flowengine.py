"""flowengine as it is shipped: `flowengine run`, durable, with the chains of flows/facegate.yaml."""

from __future__ import annotations

import platform
from typing import Any, ClassVar

import yaml

from benchmarks.systems.system import PYTHON, ROOT, Ability, Delivery, Place, System
from flowengine import __version__

_NOT_MEASURED = ("downlink", "sent")
"""Chains that log what other programs sent to terminals; the other systems have no such log"""


def flow(delivery: Delivery = "ordered") -> dict[str, Any]:
    """flows/facegate.yaml without the chains that are not measured."""
    text = (ROOT / "flows" / "facegate.yaml").read_text(encoding="utf-8")
    tree: dict[str, Any] = yaml.safe_load(text)
    for chain in _NOT_MEASURED:
        del tree["chains"][chain]
    post = tree["chains"]["records"][-1]
    if delivery == "unordered":
        post["delivery"]["order_by"] = "none"
    elif delivery == "batches":
        post["http-post"]["batch"] = {"max": 50, "wait": "20ms"}
    return tree


class FlowEngine(System):
    """Its settings are the shipped ones, so what is not yet delivered is kept on disk."""

    name = "flowengine"
    abilities: ClassVar[frozenset[Ability]] = frozenset(
        {"records", "heartbeats", "commands", "many devices", "order", "session", "outbox", "batches"}
    )

    def version(self) -> str:
        return f"flowengine {__version__}, {platform.python_implementation()} {platform.python_version()}"

    def command(self, place: Place) -> list[str]:
        file = place.folder / "facegate.yaml"
        file.write_text(yaml.safe_dump(flow(place.delivery), allow_unicode=True, sort_keys=False), encoding="utf-8")
        return [PYTHON, "-m", "flowengine", "run", str(file), "--state", str(place.folder / "state")]

    def env(self, place: Place) -> dict[str, str]:
        return {
            "MQTT_URL": f"mqtt://127.0.0.1:{place.broker_port}",
            "BACKEND_URL": place.backend,
            "COMMAND_LISTEN": f"127.0.0.1:{place.listen_port}",
        }
