"""Logs as `flowengine run` writes them, where pytest shows them when a test fails."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from flowengine import logs


@pytest.fixture(autouse=True)
def logs_as_in_a_run() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:]
    logs.configure("info", json=True)
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:] = before
