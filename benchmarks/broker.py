"""The Mosquitto of a measurement."""

from __future__ import annotations

import os
from typing import Literal

from tests.support.broker import MosquittoBroker

Window = Literal["default", "wide"]

_WIDE = """
max_inflight_messages 0
max_queued_messages 0
"""


class BenchBroker(MosquittoBroker):
    """A Mosquitto that keeps sessions in memory and logs only errors, as it comes out of the box.

    By default it has 20 messages in flight to a client and queues 1000 more; `wide` bounds neither.
    """

    def __init__(self, window: Window = "default") -> None:
        super().__init__(_WIDE if window == "wide" else "", persistence=False)

    def config(self) -> str:
        lines = [f"listener {self.port} {self.host}", "allow_anonymous true"]
        lines += [f"log_dest file {self.log_path}", "log_type error", self.options]
        if os.geteuid() == 0:
            lines.append("user root")
        return "\n".join(lines) + "\n"
