"""What is on the disk of messages is for the eyes of its owner."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from flowengine_simulate.backend import Faults
from tests.support.broker import free_port
from tests.support.facegate import FaceGate


def modes(folder: Path) -> dict[str, str]:
    """The permissions of everything in a folder, and of itself."""
    found = [folder, *folder.rglob("*")]
    return {str(path.relative_to(folder)): stat.filemode(path.stat().st_mode) for path in found}


@pytest.mark.skipif(shutil.which("mosquitto") is None, reason="no mosquitto on the PATH")
async def test_a_state_folder_with_an_embedded_broker_is_closed_to_others_while_it_runs_and_afterwards(
    tmp_path: Path,
) -> None:
    gate = FaceGate(tmp_path, f"embedded:{free_port()}")
    before = os.umask(0)  # the child has it too: nothing is left to a careful umask
    try:
        async with gate.backend:
            gate.backend.faults = Faults(fail=422)
            async with gate.engine() as engine:
                at_work = modes(tmp_path / "state")
                assert await engine.stop() == 0
                afterwards = modes(tmp_path / "state")
    finally:
        os.umask(before)
    assert {"lock", "control.sock", "flowengine.db", "flowengine.db-wal"} <= at_work.keys()
    assert any(name.endswith("mosquitto.log") for name in at_work)
    for found in (at_work, afterwards):
        assert {name: mode for name, mode in found.items() if mode[4:] != "------"} == {}
