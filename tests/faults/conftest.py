"""The fault suite: its quick form is part of every test run, `make faults` runs the full one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.rig import FULL

_LONGEST_S = 1800


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In the full form a fault takes its time."""
    here = Path(__file__).parent
    for item in items:
        if FULL and here in item.path.parents:
            item.add_marker(pytest.mark.timeout(_LONGEST_S))
