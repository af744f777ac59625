"""flowengine with flows that are made to grow in one direction."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import yaml

from benchmarks.payloads import DEVICE
from benchmarks.rig import MeasurementFailed
from benchmarks.systems.flowengine import FlowEngine, flow
from benchmarks.systems.system import PYTHON, Ability, Place

Tree = dict[str, Any]

LIVE = "facegate/records/http-post"
"""The action that posts records."""
ASLEEP = "elsewhere/reports/http-post"
"""The action whose backend is down."""
_START_S = 60.0
_READY = '"event":"ready"'


class Growing(FlowEngine):
    """`flowengine run` on a folder of these flow files, by name."""

    abilities: ClassVar[frozenset[Ability]] = frozenset({"records", "heartbeats", "many devices", "order", "outbox"})

    def __init__(self, files: Mapping[str, Tree]) -> None:
        super().__init__()
        self._files = files

    def command(self, place: Place) -> list[str]:
        folder = place.folder / "flows"
        folder.mkdir()
        for name, tree in self._files.items():
            text = yaml.safe_dump(tree, allow_unicode=True, sort_keys=False)
            (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
        return [PYTHON, "-m", "flowengine", "run", str(folder), "--state", str(place.folder / "state")]

    def start(self, place: Place) -> None:
        """Start the process, and return once it says that all flows are ready. Raises MeasurementFailed."""
        super().start(place)
        log = place.folder / f"{self.name}.log"
        deadline = time.monotonic() + _START_S
        while _READY not in log.read_text(errors="replace").replace('": "', '":"'):
            if not self.child.running or time.monotonic() > deadline:
                raise MeasurementFailed("flowengine does not get ready")
            time.sleep(0.02)


def facegate() -> Tree:
    """The shipped flow, as far as terminals report."""
    tree = flow()
    for chain in ("commands", "commands-by-device"):
        del tree["chains"][chain]
    del tree["connections"]["commands"]
    tree["params"] = {name: tree["params"][name] for name in ("mqtt", "backend")}
    return tree


def flows(count: int, devices: int, *, shared: bool) -> dict[str, Tree]:
    """So many flows, each for its part of the devices; with a connection each, or one for all."""
    files: dict[str, Tree] = {}
    for number in range(count):
        tree = copy.deepcopy(facegate())
        tree["flow"] = f"facegate-{number:03d}"
        mine = [str(DEVICE + device) for device in range(number, devices, count)]
        tree["chains"]["uplink"][0]["mqtt-in"]["devices"] = mine
        if shared:
            del tree["connections"], tree["params"]["mqtt"]
        files[tree["flow"]] = tree
    if shared:
        files["shared"] = {"connections": {"gate": {"mqtt": {"url": "${env:MQTT_URL}"}}}}
    return files


def with_steps(count: int) -> dict[str, Tree]:
    """The flow, its records passing so many filters first."""
    return _before_records(
        [{"filter": 'payload.cmd == "verifiedRecordU"', "name": f"step-{number}"} for number in range(count)]
    )


def with_copies(count: int) -> dict[str, Tree]:
    """The flow, so many copies of its records sent to a chain that looks at them and drops them."""
    files = _before_records([{"copy-to": "aside", "name": f"copy-{number}"} for number in range(count)])
    files["facegate"]["chains"]["aside"] = [
        {"filter": 'payload.cmd == "neverU"'},
        {"log": {"text": "from {device}: {payload}"}},
    ]
    return files


def with_a_backend_down(url: str) -> dict[str, Tree]:
    """The flow, and another whose backend is at a URL where nobody listens."""
    elsewhere = {
        "flow": "elsewhere",
        "connections": {"gate": {"mqtt": {"url": "${env:MQTT_URL}"}}},
        "chains": {
            "reports": [{"mqtt-in": {"connection": "gate", "topic": "elsewhere/{device}"}}, {"http-post": {"url": url}}]
        },
    }
    return {"facegate": facegate(), "elsewhere": elsewhere}


def _before_records(nodes: Sequence[Tree]) -> dict[str, Tree]:
    tree = facegate()
    tree["chains"]["records"][:0] = nodes
    return {"facegate": tree}
