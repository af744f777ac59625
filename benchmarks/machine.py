"""The machine of a run."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.results import Machine
from benchmarks.systems.system import ROOT
from tests.support.broker import find_mosquitto


def describe(versions: dict[str, str]) -> Machine:
    """This machine, now, with these versions of the systems."""
    return Machine(
        at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=_said("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        cpu=_cpu(),
        cores=os.cpu_count() or 0,
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        kernel=f"{platform.system()} {platform.release()}",
        mosquitto=_said(find_mosquitto() or "mosquitto", "-h").partition("\n")[0].removeprefix("mosquitto version "),
        versions=versions,
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return "unknown"
