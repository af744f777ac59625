"""`python -m benchmarks install | run | report | ceiling`; `make bench` does the first three."""

from __future__ import annotations

import argparse
import signal
import sys
from datetime import datetime
from pathlib import Path

from benchmarks import ceiling, machine, report, results, rounds
from benchmarks.broker import Window
from benchmarks.processes import end_all
from benchmarks.results import Batch
from benchmarks.systems import SYSTEMS
from benchmarks.systems.system import NotInstalled
from benchmarks.works import WORKS, Work

_WINDOWS: dict[str, tuple[Window, ...]] = {"default": ("default",), "wide": ("wide",), "both": ("default", "wide")}
_FEW = 3
"""Rounds of what is only to be seen, and not to be compared closely"""

Stage = tuple[int, list[Work], tuple[Window, ...]]
"""Rounds, works, settings of the broker"""


def _install(names: list[str]) -> dict[str, str]:
    """Make these systems ready; the versions of those that are."""
    versions = {}
    for name in names:
        system = SYSTEMS[name]()
        try:
            system.install()
            versions[name] = system.version()
        except NotInstalled as reason:
            print(f"left out: {name}: {reason}", file=sys.stderr)
    return versions


def _show(batch: Batch) -> None:
    figures, sample = batch.figures, batch.figures.sample
    text = f"{batch.round:3} {batch.window:8} {batch.system:11} {batch.work:30}"
    if batch.error:
        text += f" FAILED: {batch.error[:200]}"
    elif sample is None:
        text += f" {figures.start:8.2f} s   {figures.rss:6.0f} MB"
    else:
        text += f" {sample.rate:8.0f} /s  {figures.rss:6.0f} MB  {sample.cpu_us:7.0f} us  lost {sample.lost}"
        latency = sample.replies or sample.posts
        if latency is not None:
            text += f"  p50 {latency.p50:.1f} p99 {latency.p99:.1f} ms"
    print(text, flush=True)


def _stages(options: argparse.Namespace) -> list[Stage]:
    core = [work for work in WORKS.values() if work.tier == "core"]
    rest = [work for work in WORKS.values() if work.tier == "rest"]
    windows = _WINDOWS[options.broker]
    if options.works:
        return [(options.rounds, [WORKS[name] for name in options.works], windows)]
    if options.tier == "core":
        return [(options.rounds, core, windows)]
    few = min(_FEW, options.rounds)
    anywhere = [work for work in rest if work.window is None]
    return [
        (options.rounds, core, ("default",)),
        (few, core, ("wide",)),
        (few, anywhere, ("default",)),
        *((few, [work], (work.window,)) for work in rest if work.window is not None),
    ]


def _run(options: argparse.Namespace) -> None:
    versions = _install(options.systems)
    path = options.to or results.FOLDER / f"{datetime.now():%Y%m%d-%H%M%S}.jsonl"
    writer = results.Writer(path)
    writer.add(machine.describe(versions))

    def keep(batch: Batch) -> None:
        writer.add(batch)
        _show(batch)

    if not options.works:
        _ceiling(writer)
    for count, works, windows in _stages(options):
        rounds.run(count, list(versions), works, windows, keep)
    print(f"results: {path}")


def _ceiling(writer: results.Writer | None) -> None:
    """What the rig can do without a system: printed, and appended to the results."""
    for found in ceiling.measure():
        if writer is not None:
            writer.add(found)
        cpu = ", ".join(f"{name} {us:.0f} us" for name, us in found.cpu_us.items())
        print(f"the rig alone, {found.part:6} {found.load:14} {found.rate:8.0f} /s  {cpu}", flush=True)


def _report(files: list[Path]) -> None:
    newest = results.newest()
    paths = files or ([newest] if newest else [])
    if not paths:
        sys.exit("there are no results yet: python -m benchmarks run")
    for path in report.write(Path(__file__).parent, results.read(paths)):
        print(path)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install", help="install the other systems into .bench/")
    run = commands.add_parser("run", help="measure, and append the results to a new file in .bench/results/")
    run.add_argument("--rounds", type=int, default=20, help=f"of the core works; the rest has {_FEW} (20)")
    run.add_argument(
        "--tier", choices=["core", "all"], default="core", help="all: the rest too, and the core with a wide window"
    )
    run.add_argument(
        "--broker",
        choices=list(_WINDOWS),
        default="default",
        help="how much Mosquitto has in flight; not for --tier all",
    )
    run.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    run.add_argument("--works", nargs="+", choices=list(WORKS), help="only these")
    run.add_argument("--to", type=Path, metavar="FILE", help="append the results to this file instead")
    write = commands.add_parser("report", help="write RESULTS.md, RESULTS.zh-CN.md and plots/ from results")
    write.add_argument("files", nargs="*", type=Path, help="files of results; by default that of the last run")
    alone = commands.add_parser("ceiling", help="show what the generator with the broker, and the sink, can do alone")
    alone.add_argument("--to", type=Path, metavar="FILE", help="append it to this file of results, too")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that children are ended
    try:
        if options.command == "install":
            _install(list(SYSTEMS))
        elif options.command == "run":
            _run(options)
        elif options.command == "report":
            _report(options.files)
        else:
            _ceiling(results.Writer(options.to) if options.to else None)
    finally:
        end_all()


if __name__ == "__main__":
    main()
