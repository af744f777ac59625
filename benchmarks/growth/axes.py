"""In which directions flowengine is made to grow, and how a point of each curve is measured.

The rate of messages is the same at every point, so that what differs is what is around them. Beside the engine that is measured
runs another with the first value of the curve, and both are loaded in turn for a second each: what else goes on in the machine
meets both, and their ratio is what counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import NamedTuple

import msgspec

from benchmarks.growth import stored
from benchmarks.growth.flows import (
    ASLEEP,
    LIVE,
    Growing,
    facegate,
    flows,
    with_a_backend_down,
    with_copies,
    with_steps,
)
from benchmarks.processes import Child, cpu_seconds, memory_mb
from benchmarks.rig import MeasurementFailed, Rig
from benchmarks.samples import Sample
from tests.support.broker import free_port

RATE = 400
"""Messages a second."""
_DEVICES = 50
_FLOW_DEVICES = 200
_PAIRS = 5
_ATTEMPTS = 3
_STORE_AFTER_MS = 50.0
"""When a message that is not delivered goes to the disk; the shipped setting."""
_SECONDS = 1.0
_WARM_UP_S = 0.3
_IDLE_S = 1.5
_SETTLE_S = 2.5
"""Until all lanes of a run before have been tried: they begin spread over a second."""
_ASLEEP_LANES = 1000
_DRAIN_WARM_UP = 200
_DRAIN_ROWS = 6000
_DRAIN_S = 60.0


class Cost(msgspec.Struct, frozen=True):
    """What was measured at a point.

    cpu_us: microseconds of CPU for each message. base_us: what it took at the same time at the beginning of the curve. memory_mb:
    resident at the end. idle_ms: milliseconds of CPU a second while nothing comes, None where something always does.
    """

    cpu_us: float
    base_us: float
    memory_mb: float
    idle_ms: float | None = None


class Axis(NamedTuple):
    """A direction. values: along it, the first being what the others are measured beside. measure: a point, given that first
    value and another. within: the factor by which the target lets the cost differ from there; None: it may grow in proportion."""

    values: tuple[int, ...]
    measure: Callable[[int, int], Cost]
    within: float | None = None


Start = Callable[[Rig, int], int]
"""Starts an engine for this value in a rig; how many devices report to it."""


def _live(start: Start) -> Callable[[int, int], Cost]:
    """The cost of records of 1.5 KB at the fixed rate, once each device was heard of."""

    def measure(base: int, value: int) -> Cost:
        with Rig("wide") as first, Rig("wide") as second:
            sites = {first: start(first, base), second: start(second, value)}
            for rig, devices in sites.items():
                rig.load(devices=devices, count=max(devices, RATE), warm_up=0.0)
            idle = _idle(_child(second))
            pairs = [_pair(sites) for _number in range(_PAIRS)]
            base_us = median(one.cpu_us for one, _other in pairs)
            ratio = median(other.cpu_us / one.cpu_us for one, other in pairs)
            return Cost(round(base_us * ratio, 1), round(base_us, 1), _memory(_child(second)), idle)

    return measure


def _pair(sites: Mapping[Rig, int]) -> list[Sample]:
    """A second of each. It is taken again where the machine stood still so long that messages went to the disk meanwhile, which
    costs much and says nothing about the curve."""
    for _attempt in range(_ATTEMPTS):
        samples = [_slice(rig, devices) for rig, devices in sites.items()]
        if all(sample.posts is not None and sample.posts.worst < _STORE_AFTER_MS for sample in samples):
            break
    return samples


def _slice(rig: Rig, devices: int) -> Sample:
    sample = rig.load(devices=devices, rate=RATE, warm_up=_WARM_UP_S, seconds=_SECONDS)
    if sample.lost or sample.swapped:
        raise MeasurementFailed(f"{sample.lost} lost, {sample.swapped} out of order")
    return sample


def _idle(child: Child) -> float:
    before = cpu_seconds(child.pids())
    time.sleep(_IDLE_S)
    return round((cpu_seconds(child.pids()) - before) / _IDLE_S * 1000, 2)


def _memory(child: Child) -> float:
    return round(memory_mb(child.pids())[0], 1)


def _child(rig: Rig) -> Child:
    assert rig.system is not None
    return rig.system.child


def _devices(rig: Rig, count: int) -> int:
    rig.start(Growing({"facegate": facegate()}), probe=False)
    return count


def _flows(rig: Rig, count: int) -> int:
    rig.start(Growing(flows(count, _FLOW_DEVICES, shared=False)), probe=False)
    return _FLOW_DEVICES


def _shared_flows(rig: Rig, count: int) -> int:
    rig.start(Growing(flows(count, _FLOW_DEVICES, shared=True)), probe=False)
    return _FLOW_DEVICES


def _steps(rig: Rig, count: int) -> int:
    rig.start(Growing(with_steps(count)), probe=False)
    return _DEVICES


def _copies(rig: Rig, count: int) -> int:
    rig.start(Growing(with_copies(count)), probe=False)
    return _DEVICES


def _beside_stored(rig: Rig, rows: int) -> int:
    stored.fill(rig.place.folder / "state", ASLEEP, rows, _ASLEEP_LANES, batch=0)
    rig.start(Growing(with_a_backend_down(f"http://127.0.0.1:{free_port()}/")), probe=False)
    time.sleep(_SETTLE_S)
    return _DEVICES


def _drained(base: int, value: int) -> Cost:
    """The cost of a stored record on its way to a backend that is well again; what the start costs is left out."""
    before, _memory_mb = _drain(base)
    cpu_us, memory = _drain(value)
    after, _memory_mb = _drain(base)
    return Cost(cpu_us, round((before + after) / 2, 1), memory)


def _drain(rows: int) -> tuple[float, float]:
    with Rig("wide") as rig:
        board = rig.board
        stored.fill(rig.place.folder / "state", LIVE, rows, _DEVICES, batch=board.begin(_DEVICES))
        rig.start(Growing({"facegate": facegate()}), probe=False)
        child = _child(rig)
        deadline = time.monotonic() + _DRAIN_S

        def until(posts: int) -> tuple[int, float]:
            while board.posts < posts:
                if time.monotonic() > deadline:
                    raise MeasurementFailed(f"{board.posts} of {posts} rows drained")
                time.sleep(0.002)
            return board.posts, cpu_seconds(child.pids())

        begun, before = until(_DRAIN_WARM_UP)
        ended, after = until(min(rows, _DRAIN_WARM_UP + _DRAIN_ROWS))
        return round((after - before) / (ended - begun) * 1e6, 1), _memory(child)


AXES: Mapping[str, Axis] = {
    "devices": Axis((10, 1, 100, 1000, 10_000), _live(_devices), within=1.2),
    "flows": Axis((1, 10, 50, 100, 200), _live(_flows), within=1.2),
    "flows on one connection": Axis((1, 10, 50, 100, 200), _live(_shared_flows), within=1.2),
    "steps": Axis((1, 5, 10, 20, 50), _live(_steps)),
    "copies": Axis((1, 5, 10, 20, 50), _live(_copies)),
    "stored for others": Axis((0, 1000, 10_000, 50_000, 200_000), _live(_beside_stored), within=1.2),
    "drained": Axis((10_000, 50_000, 200_000), _drained, within=1.2),
}
"""The first value of each is what the others are measured beside."""


def measure(axis: str, value: int) -> Cost:
    """Measure one point. Raises MeasurementFailed."""
    return AXES[axis].measure(AXES[axis].values[0], value)
