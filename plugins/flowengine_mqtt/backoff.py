"""How long to wait before the next attempt to connect."""

from __future__ import annotations

import random

from flowengine_mqtt.settings import Patience


class Backoff:
    """Exponential backoff with full jitter, so that the clients of a broker do not all come back at once.

    The bound doubles from `patience.first` to `patience.longest` seconds; the wait is a random part of it.
    """

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._bound = patience.first

    def next(self) -> float:
        """The next wait in seconds."""
        wait = random.uniform(0, self._bound)
        self._bound = min(self._bound * 2, self._patience.longest)
        return wait

    def slow(self) -> float:
        """A wait in seconds for what only a person can mend."""
        return random.uniform(*self._patience.slow)

    def held(self, seconds: float) -> None:
        """Tell how long a connection held: after a stable while the backoff begins anew."""
        if seconds >= self._patience.stable:
            self._bound = self._patience.first
