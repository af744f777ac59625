"""What was measured, as lines of JSON: a file a run, each point appended at once, so that an interrupted run is not lost."""

from __future__ import annotations

from pathlib import Path

import msgspec

from benchmarks.growth.axes import Cost
from benchmarks.results import FOLDER as ALL_RESULTS
from benchmarks.results import Machine

FOLDER = ALL_RESULTS / "growth"


class Point(msgspec.Struct, frozen=True, tag="point"):
    """What one round gave at one place: `cost`, or the reason why there is none."""

    axis: str
    value: int
    round: int
    cost: Cost | None = None
    failed: str = ""


Line = Machine | Point


def append(line: Line, file: Path) -> None:
    """Append one line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as out:
        out.write(msgspec.json.encode(line) + b"\n")


def read(file: Path) -> list[Line]:
    """All whole lines of a file; the last may have been cut short."""
    whole = file.read_bytes().rpartition(b"\n")[0]
    lines: list[Line] = msgspec.json.Decoder(Line).decode_lines(whole)
    return lines


def newest() -> Path | None:
    """The file of the last run, or None."""
    return max(FOLDER.glob("*.jsonl"), default=None)
