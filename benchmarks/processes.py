"""Child processes: started in a session of their own, watched for CPU and memory, ended with all they started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_CPU_CLOCK = 2
"""Makes the CPU clock of a process out of its id, as glibc's clock_getcpuclockid does; /proc counts in steps of 10 ms."""


class Child:
    """A process whose output goes to a file, or nowhere."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        folder: Path | None = None,
        log: Path | None,
    ) -> None:
        with open(log or os.devnull, "ab") as output:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **(env or {})},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it is alive."""
        return self._process.poll() is None

    def pids(self) -> list[int]:
        """Its process id and those of its children."""
        return family(self.pid)

    def stop(self, patience: float = 20.0) -> None:
        """SIGTERM to it; SIGKILL to it and all in its session if it is not gone within `patience` seconds."""
        if self.running:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to it and all in its session."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for each in found:
        with suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def end_all() -> None:
    """SIGKILL to all that this process has started: a signal may have come while it started something, whose handle is lost."""
    for pid in family(os.getpid())[1:]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def cpu_seconds(pids: Sequence[int]) -> float:
    """The CPU time that these processes have used, in user and system mode, in nanosecond steps."""
    used = 0.0
    for pid in pids:
        with suppress(OSError):
            used += time.clock_gettime(~pid << 3 | _CPU_CLOCK)
    return used


def memory_mb(pids: Sequence[int]) -> tuple[float, float]:
    """Resident memory, and the part of it that would be free without these processes (PSS), in MB."""
    rss = pss = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                name, _, rest = line.partition(":")
                if name == "Rss":
                    rss += int(rest.split()[0])
                elif name == "Pss":
                    pss += int(rest.split()[0])
    return rss / 1024, pss / 1024
