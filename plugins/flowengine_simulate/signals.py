"""Stopping in good order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def stop_on_signal() -> Iterator[asyncio.Event]:
    """An event that SIGINT (Ctrl-C) or SIGTERM sets. A second signal does what it did before, at once."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, frame: object) -> None:
        restore()
        loop.call_soon_threadsafe(stopping.set)

    before: dict[int, Any] = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        restore()


async def first_of(*ends: Any, seconds: float | None = None) -> None:
    """Return when the first of the awaitables has ended, or after `seconds`; the others are cancelled."""
    tasks = [asyncio.ensure_future(end) for end in ends]
    try:
        done, _pending = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
