"""`flows/facegate.yaml` at work between a broker and a backend."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from flowengine_simulate import Backend, Report, Taken
from tests.support.broker import free_port
from tests.support.engine import Engine

FLOW = Path(__file__).parents[2] / "flows" / "facegate.yaml"
FIELDS = {
    "user_id": "num",
    "name": "name",
    "img": "liveImageBase64",
    "verifiedCode": "verifiedCode",
    "bot_time": "time",
    "personType": "personType",
}
"""What the backend gets, and where the script took it from"""
_CONNECTION = '{mqtt: {url: "${mqtt}"}}'


def with_connection(folder: Path, connection: str) -> Path:
    """A copy of the flow whose broker's connection is this YAML."""
    text = FLOW.read_text(encoding="utf-8")
    assert text.count(_CONNECTION) == 1
    copy = folder / "facegate.yaml"
    copy.write_text(text.replace(_CONNECTION, connection), encoding="utf-8")
    return copy


class FaceGate:
    """The environment of one flow, and what it brought to the backend.

    `sent` and `arrived` are the records of each device in order: what the terminals reported, as the backend should get
    it, and what it took for the first time. `keys` has the Idempotency-Keys of all arrivals of a record, by its user_id
    and bot_time. Give `on_report` to Terminals.
    """

    def __init__(self, folder: Path, mqtt: str, *, connection: str = "", device: str = "123456789") -> None:
        self.backend = Backend(on_record=self._on_record)
        self.listen = f"127.0.0.1:{free_port()}"
        self.sent: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self.arrived: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self.keys: dict[tuple[str, str], list[str | None]] = {}
        self._flow = with_connection(folder, connection) if connection else FLOW
        self._state = folder / "state"
        self._env = {"MQTT_URL": mqtt, "COMMAND_LISTEN": self.listen, "DEVICE": device}

    def engine(self, **env: str) -> Engine:
        """The engine; the backend must have been started, for its port to be known."""
        return Engine(self._flow, state=self._state, env={**self._env, "BACKEND_URL": self.backend.url, **env})

    def url(self, device: str | None = None) -> str:
        """Where a command for a device is posted; for none, the one that the script served."""
        return f"http://{self.listen}/" if device is None else f"http://{self.listen}/devices/{device}/commands"

    def on_report(self, report: Report) -> None:
        """Note what a terminal reports."""
        for record in report.records:
            self.sent[report.device].append({target: record[source] for target, source in FIELDS.items()})

    def all_arrived(self) -> bool:
        """Whether as many different records arrived as were sent."""
        return sum(map(len, self.arrived.values())) >= sum(map(len, self.sent.values()))

    @property
    def repeats(self) -> int:
        """Arrivals beyond the first of a record."""
        return sum(map(len, self.keys.values())) - len(self.keys)

    def _on_record(self, taken: Taken) -> None:
        if taken.status != 200:
            return
        name = (taken.body["user_id"], taken.body["bot_time"])
        keys = self.keys.setdefault(name, [])
        keys.append(taken.key)
        if len(keys) == 1:
            # A terminal's people have numbers that begin with its own.
            self.arrived[taken.body["user_id"][:9]].append(taken.body)
