"""Results as a run would have left them."""

from __future__ import annotations

from benchmarks.broker import Window
from benchmarks.measure import Figures
from benchmarks.results import Batch, Machine
from benchmarks.samples import Sample, Spread

MACHINE = Machine(
    at="2026-01-02 03:04 UTC",
    commit="abc1234",
    cpu="A Processor",
    cores=2,
    memory_gb=8.0,
    kernel="Linux 6.1",
    mosquitto="2.0.11",
    versions={"flowengine": "flowengine 0.1.0", "node-red": "Node-RED 4.1.8"},
)


def batch(
    system: str, rate: float, *, round: int = 1, work: str = "records-1.5k", window: Window = "default", lost: int = 0
) -> Batch:
    """One batch with this rate; its CPU time a message is a tenth of it, its median latency a hundredth."""
    sample = Sample(
        sent=1000,
        lost=lost,
        seconds=1.0,
        rate=rate,
        cpu_us=rate / 10,
        own_cpu=0.1,
        posts=Spread(rate / 100, rate / 90, rate / 80, rate / 70),
    )
    return Batch(round, window, system, work, Figures(sample, rss=80.0, pss=70.0))
