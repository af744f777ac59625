"""The breaker of one action: after failures in a row one probe goes at a time; when it gets through, all lanes wake."""

from __future__ import annotations

from flowengine.delivery import retry
from flowengine.errors import Retry

FAILURES = 5
"""So many failures in a row, whatever their lanes, open it. One sick device among healthy ones never does."""
LONGEST = 5.0
"""Seconds between probes at the most: how late a recovery may be seen."""


class Breaker:
    """Closed while the action delivers. `failed` and `worked` hear of every attempt; `wait` says when to probe."""

    def __init__(self) -> None:
        self.failures = 0
        self.open = False

    def worked(self) -> bool:
        """An attempt went through; whether that closed it."""
        closes, self.open, self.failures = self.open, False, 0
        return closes

    def failed(self) -> bool:
        """An attempt failed; whether that opened it."""
        self.failures += 1
        opens = not self.open and self.failures >= FAILURES
        self.open = self.open or opens
        return opens

    def wait(self, error: Retry) -> float:
        """Seconds until the next probe."""
        if error.after is not None or error.slow:
            return retry.wait(error, 1)
        return max(0.2, min(LONGEST, retry.wait(Retry(error.reason), max(1, self.failures - FAILURES + 1))))
