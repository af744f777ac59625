"""A power cut: the state folder set back to what was synced, by a shim that records each sync (`powercut.c`)."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest


class PowerCut:
    """Run the engine with `env`, kill it, then `strike()`: its files are as a disk would have them that lost its power.

    What was never synced is gone. Of a file that was written to after its last sync, a real disk has kept any part; here all or
    nothing, by chance for each file.
    """

    def __init__(self, folder: Path, state: Path, chance: random.Random) -> None:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler: a power cut cannot be recorded")
        shim = folder / "powercut.so"
        source = Path(__file__).with_suffix(".c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], check=True)
        self._state = state
        self._chance = chance
        self._shadow = folder / "shadow"
        self._shadow.mkdir()
        self.env = {
            "LD_PRELOAD": str(shim),
            "POWERCUT_FOLDER": str(state),
            "POWERCUT_SHADOW": str(self._shadow),
        }

    def strike(self) -> list[str]:
        """Set the files back; returns the names of those that lost something."""
        lost = []
        for file in sorted(self._state.rglob("*")):
            if not file.is_file():
                continue
            synced = self._shadow / str(file.stat().st_ino)
            if not synced.exists() or file.name.endswith("-shm"):  # the index of the WAL, which is memory only
                file.unlink()
                lost.append(file.name)
            elif file.read_bytes() != synced.read_bytes() and self._chance.random() < 0.7:
                file.write_bytes(synced.read_bytes())
                lost.append(file.name)
        return lost
