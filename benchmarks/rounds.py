"""Runs the systems in turn: in each round every one of them, in an order that changes, does its works in short batches.

Machines change their speed while one measures. What was measured within one round can be compared; medians over many rounds can
be believed.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from typing import get_args

from benchmarks.broker import Window
from benchmarks.measure import Figures, measure
from benchmarks.processes import memory_mb
from benchmarks.results import Batch
from benchmarks.rig import MeasurementFailed, Rig
from benchmarks.systems import SYSTEMS
from benchmarks.systems.system import Delivery, System
from benchmarks.works import Work

Report = Callable[[Batch], None]


def can(system: type[System], work: Work) -> bool:
    """Whether the system is made for this work."""
    return work.needs <= system.abilities


def run(
    rounds: int, systems: Sequence[str], works: Sequence[Work], windows: Sequence[Window], report: Report, seed: int = 1
) -> None:
    """Measure; each batch is reported as soon as it is done, failures too."""
    dice = random.Random(seed)
    for number, window in itertools.product(range(1, rounds + 1), windows):
        for name in dice.sample(systems, len(systems)):
            for group in _groups(SYSTEMS[name], works, window):
                for work, figures, error in _in_one_start(SYSTEMS[name](), group, window):
                    report(Batch(number, window, name, work.name, figures, error))


def _groups(system: type[System], works: Sequence[Work], window: Window) -> list[list[Work]]:
    """The works of this system that can follow one another without a new start."""
    mine = [work for work in works if can(system, work) and work.window in (None, window)]
    shared = [
        [work for work in mine if work.way in ("start", "load", "commands") and work.delivery == delivery]
        for delivery in get_args(Delivery)
    ]
    alone = [[work] for work in mine if work.way in ("backlog", "outbox")]
    return [group for group in (*shared, *alone) if group]


def _in_one_start(system: System, works: list[Work], window: Window) -> Iterable[tuple[Work, Figures, str]]:
    """Start the system once and do these works; one that fails has a text instead of figures."""
    left = list(works)
    try:
        with Rig(window, delivery=works[0].delivery) as rig:
            start = rig.start(system)
            rss, pss = memory_mb(system.child.pids())
            if left[0].way == "start":
                yield left.pop(0), Figures(rss=round(rss, 1), pss=round(pss, 1), start=round(start, 3)), ""
            if any(work.way == "load" for work in left) and "records" in system.abilities:
                rig.load(devices=50 if "many devices" in system.abilities else 1)  # what it compiles on first use
            while left:
                yield left[0], measure(rig, left[0]), ""
                del left[0]
    except (MeasurementFailed, OSError, AssertionError) as error:
        text = " ".join([str(error), *getattr(error, "__notes__", ())])
        for work in left:
            yield work, Figures(), text
