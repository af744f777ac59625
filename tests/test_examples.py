"""The example is a project of its own: its flow passes the check, and its own tests pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flowengine import plugins
from flowengine.flowfile import project

EXAMPLES = sorted(folder.parent for folder in (Path(__file__).parent.parent / "examples").glob("*/flows"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda folder: folder.name)
def test_its_flows_pass_the_check(example: Path) -> None:
    loaded = project.load([example / "flows"], plugins.load([example / "plugins"]), environ={})
    assert loaded.problems == []
    assert loaded.project.flows


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda folder: folder.name)
def test_its_own_tests_pass(example: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio"]
    ran = subprocess.run(command, cwd=example, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
