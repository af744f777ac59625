"""What the generators report of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Spread(msgspec.Struct, frozen=True):
    """Percentiles, in milliseconds."""

    p50: float
    p90: float
    p99: float
    worst: float


class Sample(msgspec.Struct, frozen=True):
    """One batch.

    `rate` is per second and `cpu_us` per message, both between the end of the warm-up and that of the measured time, which took
    `seconds`; the other counts are of the whole batch.

    sent: messages that should have had an effect. lost: those that had none, also not until some seconds after the end.
    posts and replies: how long a record took to the backend, a heartbeat to its reply. own_cpu: the generator's seconds.
    """

    sent: int
    lost: int
    seconds: float
    rate: float
    cpu_us: float
    own_cpu: float
    repeats: int = 0
    swapped: int = 0
    posts: Spread | None = None
    replies: Spread | None = None


def spread(seconds: Sequence[float]) -> Spread | None:
    """The percentiles of some times; None of none."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    last = len(ordered) - 1

    def at(share: float) -> float:
        return round(ordered[round(share * last)] * 1000, 3)

    return Spread(at(0.5), at(0.9), at(0.99), at(1))
