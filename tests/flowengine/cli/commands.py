"""Runs the real command, as a person does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def flowengine(*words: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """`flowengine WORDS` in a folder; its output as text."""
    return subprocess.run(
        [sys.executable, "-m", "flowengine", *words],
        cwd=cwd,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
