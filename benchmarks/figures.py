"""What many rounds say together: medians, quartiles, and ratios within a round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from benchmarks.broker import Window
from benchmarks.results import Batch

Metric = Callable[[Batch], float | None]


class Quartiles(NamedTuple):
    """The middle of some values, and between what the middle half of them lies."""

    low: float
    median: float
    high: float


def quartiles(values: Iterable[float]) -> Quartiles | None:
    """Of no values None; of one, that three times."""
    given = list(values)
    if len(given) < 2:
        return Quartiles(given[0], given[0], given[0]) if given else None
    return Quartiles(*statistics.quantiles(given, n=4, method="inclusive"))


class Table:
    """The batches of one work with one setting of the broker, by system and round."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._rounds: dict[str, dict[int, Batch]] = {}
        self.errors: dict[str, str] = {}
        for batch in batches:
            if batch.error:
                self.errors[batch.system] = batch.error
            else:
                self._rounds.setdefault(batch.system, {})[batch.round] = batch

    @property
    def systems(self) -> Sequence[str]:
        """Those with figures."""
        return list(self._rounds)

    def of(self, system: str) -> Mapping[int, Batch]:
        """The batches of a system by round."""
        return self._rounds.get(system, {})

    def quartiles(self, system: str, metric: Metric) -> Quartiles | None:
        """Of a metric over the rounds."""
        return quartiles(value for batch in self.of(system).values() if (value := metric(batch)) is not None)

    def ratio(self, system: str, to: str, metric: Metric) -> Quartiles | None:
        """Of a metric of `system`, divided by that of `to` in the same round, over the rounds that have both."""
        mine, theirs = self.of(system), self.of(to)
        found = []
        for number in mine.keys() & theirs.keys():
            above, below = metric(mine[number]), metric(theirs[number])
            if above is not None and below:
                found.append(above / below)
        return quartiles(found)

    def total(self, system: str, metric: Metric) -> int:
        """A count over all rounds."""
        return int(sum(metric(batch) or 0 for batch in self.of(system).values()))


def tables(batches: Iterable[Batch]) -> dict[tuple[Window, str], Table]:
    """One for each setting of the broker and each work."""
    sorted_out: dict[tuple[Window, str], list[Batch]] = {}
    for batch in batches:
        sorted_out.setdefault((batch.window, batch.work), []).append(batch)
    return {key: Table(rows) for key, rows in sorted_out.items()}


def rate(batch: Batch) -> float | None:
    """Messages a second."""
    return batch.figures.sample.rate if batch.figures.sample else None


def cpu(batch: Batch) -> float | None:
    """CPU microseconds a message; None where nothing was done."""
    return (batch.figures.sample.cpu_us or None) if batch.figures.sample else None


def p50(batch: Batch) -> float | None:
    """The median latency in milliseconds, of replies where there are some, else of posts."""
    sample = batch.figures.sample
    found = (sample.replies or sample.posts) if sample else None
    return found.p50 if found else None


def p99(batch: Batch) -> float | None:
    """The latency in milliseconds that one in a hundred exceeds."""
    sample = batch.figures.sample
    found = (sample.replies or sample.posts) if sample else None
    return found.p99 if found else None


def rss(batch: Batch) -> float | None:
    """Resident memory in MB."""
    return batch.figures.rss or None


def seconds(batch: Batch) -> float | None:
    """How long it took; with a backlog, from the system's start or the backend's return to the last arrival."""
    return batch.figures.sample.seconds if batch.figures.sample else None


def start(batch: Batch) -> float | None:
    """Seconds to the first work done."""
    return batch.figures.start or None


def lost(batch: Batch) -> float | None:
    """Messages without effect."""
    return batch.figures.sample.lost if batch.figures.sample else None


def repeats(batch: Batch) -> float | None:
    """Effects beyond the first."""
    return batch.figures.sample.repeats if batch.figures.sample else None


def swapped(batch: Batch) -> float | None:
    """Records that came behind a later one of their device."""
    return batch.figures.sample.swapped if batch.figures.sample else None
