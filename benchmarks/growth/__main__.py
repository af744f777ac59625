"""`python -m benchmarks.growth run | report`; `make bench-growth` does both."""

from __future__ import annotations

import argparse
import random
import sys
from datetime import datetime
from pathlib import Path

from benchmarks import machine
from benchmarks.growth import report, results
from benchmarks.growth.axes import AXES, measure
from benchmarks.growth.results import Point
from benchmarks.rig import MeasurementFailed
from benchmarks.systems.flowengine import FlowEngine


def _run(axes: list[str], rounds: int) -> None:
    """Measure every point of these curves once a round, in another order each time."""
    file = results.FOLDER / f"{datetime.now():%Y%m%d-%H%M%S}.jsonl"
    results.append(machine.describe({FlowEngine.name: FlowEngine().version()}), file)
    for number in range(1, rounds + 1):
        places = [(axis, value) for axis in axes for value in AXES[axis].values[1:]]
        random.shuffle(places)
        for axis, value in places:
            try:
                point = Point(axis, value, number, measure(axis, value))
            except MeasurementFailed as failure:
                point = Point(axis, value, number, failed=str(failure))
            results.append(point, file)
            print(f"{number:3} {axis:24} {value:7} {_shown(point)}", flush=True)
    print(f"results: {file}")


def _shown(point: Point) -> str:
    if point.cost is None:
        return f"FAILED: {point.failed}"
    cost = point.cost
    return (
        f"{cost.cpu_us:8.1f} us, {cost.cpu_us / cost.base_us:5.2f} times {cost.base_us:.1f} us, {cost.memory_mb:.0f} MB"
    )


def _report(file: Path | None) -> None:
    file = file or results.newest()
    if file is None:
        sys.exit("there are no results yet: python -m benchmarks.growth run")
    for path in report.write(Path(__file__).parents[1], results.read(file)):
        print(path)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure, and append the points to a new file in .bench/results/growth/")
    run.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    run.add_argument("--rounds", type=int, default=3)
    write = commands.add_parser("report", help="write GROWTH.md, GROWTH.zh-CN.md and plots/growth.*.svg")
    write.add_argument("file", nargs="?", type=Path, help="a file of points; by default that of the last run")
    options = parser.parse_args()
    if options.command == "run":
        _run(options.axes, options.rounds)
    else:
        _report(options.file)


if __name__ == "__main__":
    main()
