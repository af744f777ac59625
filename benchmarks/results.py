"""Results on disk: JSON lines, one batch a line, written as they are found, so that an interrupted run is not lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from benchmarks.broker import Window
from benchmarks.measure import Figures
from benchmarks.systems.system import CACHE

FOLDER = CACHE / "results"


class Machine(msgspec.Struct, frozen=True, tag="machine"):
    """Where and when a run was made, and with what. `versions` is by system."""

    at: str
    commit: str
    cpu: str
    cores: int
    memory_gb: float
    kernel: str
    mosquitto: str
    versions: dict[str, str]


class Batch(msgspec.Struct, frozen=True, tag="batch"):
    """One work of one system in one round; `error` instead of figures if it failed."""

    round: int
    window: Window
    system: str
    work: str
    figures: Figures = Figures()
    error: str = ""


class Ceiling(msgspec.Struct, frozen=True, tag="ceiling"):
    """What a part of the rig reached without a system. part: "broker" (the generator with Mosquitto) or "sink". load: the kind of
    messages. cpu_us: microseconds of CPU a message, by process."""

    part: Literal["broker", "sink"]
    load: str
    rate: float
    cpu_us: dict[str, float]


Line = Machine | Batch | Ceiling


class Writer:
    """Appends to a file of results."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path

    def add(self, line: Line) -> None:
        """Append one line."""
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")


class Results(NamedTuple):
    """What stands in some files, in their order."""

    machines: list[Machine]
    batches: list[Batch]
    ceilings: list[Ceiling]


def read(paths: Iterable[Path]) -> Results:
    """What stands in these files; rounds of a later file count on from those of the one before. Raises OSError, ValueError."""
    found = machines, batches, ceilings = Results([], [], [])
    for path in paths:
        first = max((batch.round for batch in batches), default=0)
        for line in _lines(path):
            if isinstance(line, Machine):
                machines.append(line)
            elif isinstance(line, Ceiling):
                ceilings.append(line)
            else:
                batches.append(msgspec.structs.replace(line, round=line.round + first))
    return found


def _lines(path: Path) -> Iterator[Line]:
    decoder = msgspec.json.Decoder(Line)
    whole = path.read_bytes().rpartition(b"\n")[0]  # the last line may have been cut short
    for line in whole.splitlines():
        yield decoder.decode(line)


def newest() -> Path | None:
    """The file of the last run, or None."""
    return max(FOLDER.glob("*.jsonl"), key=lambda path: path.stat().st_mtime, default=None)
