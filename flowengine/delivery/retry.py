"""When to try again: full-jitter backoff, the far end's own word, and what only a person can mend."""

from __future__ import annotations

import random

from flowengine.errors import Retry

FIRST = 1.0
LONGEST = 300.0
SHORTEST_AFTER = 0.05
LONGEST_AFTER = 3600.0
SLOW = 60.0


def wait(retry: Retry, attempts: int) -> float:
    """Seconds until the next attempt, after `attempts` of them.

    Full jitter: anywhere between nothing and a bound that doubles from 1 s to 5 min, so that many lanes do not come
    back at once. `after` (Retry-After) wins, up to 1 h, and from 50 ms on: `Retry-After: 0` shall not become a storm.
    What only a person can mend waits from 1 min on.
    """
    after = retry.after
    if isinstance(after, int | float) and after == after:  # a node may have it from the far end: NaN is no time
        return min(max(after, SHORTEST_AFTER), LONGEST_AFTER)
    bound = min(LONGEST, FIRST * 2.0 ** min(attempts - 1, 20))
    if retry.slow:
        return random.uniform(SLOW, max(bound, 2 * SLOW))
    return random.uniform(0.0, bound)
