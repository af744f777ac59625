"""Takes the figures of one work."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from benchmarks.processes import cpu_seconds, memory_mb
from benchmarks.rig import MeasurementFailed, Rig
from benchmarks.samples import Sample
from benchmarks.systems.system import System
from benchmarks.works import BACKLOG, Work

_POLL_S = 0.02
_QUIET_S = 1.0
_STILL_S = 60.0


class Figures(msgspec.Struct, frozen=True):
    """What was found.

    rss and pss: memory of the system in MB, after the work; with a backlog, while half of it waits. start: seconds from its start
    to the first work done.
    """

    sample: Sample | None = None
    rss: float = 0.0
    pss: float = 0.0
    start: float = 0.0


def measure(rig: Rig, work: Work) -> Figures:
    """Take the figures of a work from the system that runs in the rig. Raises MeasurementFailed."""
    assert rig.system is not None
    system = rig.system
    rig.board.delay_us = work.delay_ms * 1000
    try:
        if work.way == "commands":
            sample = rig.commands(**work.plan)
        elif work.way == "load":
            fields: dict[str, Any] = dict(work.plan)
            if "many devices" not in system.abilities:
                fields["devices"] = 1
            sample = rig.load(beside=work.beside, **fields)
        else:
            return _backlog(rig, system) if work.way == "backlog" else _outbox(rig, system)
    finally:
        rig.board.delay_us = 0
    return Figures(sample, *_memory(system))


def _memory(system: System) -> tuple[float, float]:
    rss, pss = memory_mb(system.child.pids())
    return round(rss, 1), round(pss, 1)


def _backlog(rig: Rig, system: System) -> Figures:
    """Stop the system, send, start it again, and see how fast it comes clear."""
    rig.stop()
    rig.load(count=BACKLOG, warm_up=0.0, seconds=0.0, waits=False)
    began = time.monotonic()
    rig.start(system, probe=False)
    return _drain(rig, system, began)


def _outbox(rig: Rig, system: System) -> Figures:
    """Send while the backend refuses, until the system has taken all; then see how fast it comes clear."""
    rig.board.status = 503
    try:
        rig.load(count=BACKLOG, warm_up=0.0, seconds=0.0, waits=False)
        _until_idle(system)
    finally:
        rig.board.status = 200
    return _drain(rig, system, time.monotonic())


def _until_idle(system: System) -> None:
    """Return once the system has nothing to do but to try again."""
    pids = system.child.pids()
    deadline = time.monotonic() + _STILL_S
    while time.monotonic() < deadline:
        before = cpu_seconds(pids)
        time.sleep(_QUIET_S)
        if cpu_seconds(pids) - before < 0.05 * _QUIET_S:
            return
    raise MeasurementFailed(f"{system.name} does not come to rest with a backlog")


def _drain(rig: Rig, system: System, began: float) -> Figures:
    board, pids = rig.board, system.child.pids()
    cpu = cpu_seconds(pids)
    memory, last, progress = _memory(system), board.posts, time.monotonic()
    while board.posts < BACKLOG and time.monotonic() - progress < _STILL_S:
        time.sleep(_POLL_S)
        if board.posts != last:
            if last < BACKLOG // 2 <= board.posts:
                memory = _memory(system)
            last, progress = board.posts, time.monotonic()
    cpu = cpu_seconds(pids) - cpu
    times = [at for at in board.arrived[:BACKLOG] if at]
    if not times:
        raise MeasurementFailed(f"{system.name} posted nothing of its backlog")
    seconds = max(times) - min(times)
    return Figures(
        Sample(
            sent=BACKLOG,
            lost=BACKLOG - len(times),
            seconds=round(max(times) - began, 3),
            rate=round(len(times) / seconds, 1) if seconds else 0.0,
            cpu_us=round(cpu / len(times) * 1e6, 1),
            own_cpu=0.0,
            repeats=board.repeats,
            swapped=board.swapped,
        ),
        *memory,
    )
