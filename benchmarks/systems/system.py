"""What every system under test looks like to who measures it."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from benchmarks.broker import Window
from benchmarks.processes import Child

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".bench"
"""Where the others are installed, and results are kept; git does not see it"""

OPPONENTS = ROOT / "benchmarks" / "opponents"
"""The programs and settings of the others"""

PYTHON = sys.executable

Ability = Literal["records", "heartbeats", "commands", "many devices", "order", "session", "outbox", "batches"]
Delivery = Literal["ordered", "unordered", "batches"]
"""Records of one device in order, or not, or in order and many in one POST"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a system runs. `folder` is its own and lives over restarts."""

    folder: Path
    broker_port: int
    backend: str
    listen_port: int
    window: Window = "default"
    delivery: Delivery = "ordered"


class NotInstalled(Exception):
    """The system cannot be had on this machine; the text says what is missing."""


class System(ABC):
    """One system under test.

    abilities: the work it can do at all. A work that asks for more is left out and the report says so. string_commands: whether
    commands must come as a JSON string, as the seed's script wants them.
    """

    name: ClassVar[str]
    abilities: ClassVar[frozenset[Ability]]
    string_commands: ClassVar[bool] = False

    def __init__(self) -> None:
        self._child: Child | None = None

    def install(self) -> None:  # noqa: B027 - most have nothing to install
        """Make it ready to run, once. Raises NotInstalled."""

    @abstractmethod
    def version(self) -> str:
        """Its version, and those of what it stands on."""

    @abstractmethod
    def command(self, place: Place) -> list[str]:
        """Its command line; writes the files it needs into the place's folder."""

    def env(self, place: Place) -> dict[str, str]:
        """Its environment beside that of this process."""
        return {}

    def start(self, place: Place) -> None:
        """Start the process; it is for who measures to find out when it works."""
        self._child = Child(
            self.command(place), env=self.env(place), folder=place.folder, log=place.folder / f"{self.name}.log"
        )

    @property
    def child(self) -> Child:
        """The process that was started."""
        assert self._child is not None, f"{self.name} was not started"
        return self._child

    def stop(self) -> None:
        """End it as an init system would, and with force if it does not go."""
        if self._child is not None:
            self._child.stop()
            self._child = None
