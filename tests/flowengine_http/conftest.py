"""The loops that the tests of the HTTP clients run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

_ON_BOTH = {"test_client.py", "test_choosing.py", "test_wire.py"}


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop too, which the engine uses where it can: its transports differ in what a client of them sees."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.name in _ON_BOTH:
        try:
            import uvloop
        except ImportError:
            pass
        else:
            factories["uvloop"] = uvloop.new_event_loop
    return factories
