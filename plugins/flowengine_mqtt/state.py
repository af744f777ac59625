"""What a session must know after a restart: its client id, and what it has subscribed to at which broker."""

from __future__ import annotations

import json
import re
import secrets
from pathlib import Path
from urllib.parse import quote

import structlog

from flowengine import N_
from flowengine_mqtt.atomic import write_atomically

log = structlog.get_logger(__name__)


class SessionState:
    """A small JSON file in the state folder, written whole or not at all, readable by its owner only.

    `client_id` is made once (`<flow>-<connection>-<random>`), since the broker keeps our session under it.
    `filters` are the filters of that session to their QoS, or to None where a SUBSCRIBE or UNSUBSCRIBE was
    sent and not yet seen answered.
    """

    def __init__(self, folder: Path, flow: str, connection: str) -> None:
        """Read the file, or begin anew; a damaged one is set aside, loudly. Raises OSError."""
        self.path = folder / f"mqtt-{quote(flow, safe='')}-{quote(connection, safe='')}.json"
        self.client_id = f"{_plain(flow)}-{_plain(connection)}-{secrets.token_hex(4)}"
        self.broker = ""
        self.filters: dict[str, int | None] = {}
        folder.mkdir(0o700, parents=True, exist_ok=True)
        if self.path.exists():
            self._read()
        else:
            self.save()

    def use(self, client_id: str | None, broker: str) -> None:
        """Say whose session it is: `client_id` (None: the one made here) at `broker`.

        What another session had subscribed to is forgotten.
        """
        client_id = client_id or self.client_id
        if (client_id, broker) == (self.client_id, self.broker):
            return
        self.client_id, self.broker, self.filters = client_id, broker, {}
        self.save()

    def save(self) -> None:
        """Write the file. Raises OSError."""
        text = json.dumps({"client_id": self.client_id, "broker": self.broker, "filters": self.filters}, indent=1)
        write_atomically(self.path, text)

    def _read(self) -> None:
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            client_id, broker, filters = stored["client_id"], stored["broker"], stored["filters"]
            if not (isinstance(client_id, str) and client_id and isinstance(broker, str)):
                raise ValueError("client id or broker")
            if not all(qos in (0, 1, None) for qos in filters.values()):
                raise ValueError("filters")
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            damaged = self.path.with_suffix(f".damaged-{secrets.token_hex(4)}")
            self.path.replace(damaged)
            log.error(
                N_(
                    "a session's file is damaged and was set aside; a new session begins, "
                    "and what the broker kept for the old one is not fetched"
                ),
                file=str(self.path),
                kept_as=str(damaged),
                problem=str(problem),
                client_id=self.client_id,
            )
            self.save()
            return
        self.client_id, self.broker, self.filters = client_id, broker, dict(filters)


def _plain(name: str) -> str:
    """Letters, digits, - and _ only, at most 40: what every broker takes in a client id and in its ACLs."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:40]
