"""`flowengine run` as a child process, read by its log."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from flowengine import _
from flowengine_simulate.books import EngineBooks

_LINE_LIMIT = 1024 * 1024
_LINES_KEPT = 20


class EngineFailed(Exception):
    """The engine ended, or was not ready in time. The text ends with the last lines it wrote."""


class EngineProcess:
    """An engine with its own state folder.

    It is started in a session of its own, so that a Ctrl-C reaches only the process that stops it in its
    turn.
    """

    def __init__(self, flows: Path, state: Path, environment: Mapping[str, str]) -> None:
        self.books: EngineBooks | None = None
        """What it printed at its end"""
        self.troubles: deque[str] = deque(maxlen=_LINES_KEPT)
        """Its last warnings and errors"""
        self._command = [sys.executable, "-m", "flowengine", "run", str(flows), "--state", str(state)]
        self._environment = {**os.environ, **environment}
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._ready = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self, timeout: float = 20.0) -> None:
        """Return once it is ready; EngineFailed if it ends before, or after `timeout` seconds."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=_LINE_LIMIT,
        )
        self._reader = asyncio.create_task(self._read(self._process))
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait([ready, self._reader], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not self._ready.is_set():
            await self.stop(timeout=1.0)
            text = _("the engine did not become ready. Its last lines:")
            raise EngineFailed("\n  ".join([text, *self._lines]))

    async def stop(self, timeout: float = 15.0) -> int | None:
        """SIGTERM, after `timeout` seconds SIGKILL. Returns the exit status; None if it never ran."""
        if self._process is None or self._reader is None:
            return None
        if self._process.returncode is None:
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), timeout)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        # A broker it left behind would hold the pipe open, so its end is not waited for without a limit.
        await asyncio.wait([self._reader], timeout=1.0)
        self._reader.cancel()
        return self._process.returncode

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for raw in process.stdout:
            line = raw.decode("utf-8", "replace").rstrip()
            self._lines.append(line)
            try:
                event = msgspec.json.decode(line, type=dict[str, Any])
            except msgspec.DecodeError:
                continue
            self._note(event, line)

    def _note(self, event: dict[str, Any], line: str) -> None:
        if event.get("event") == "ready":
            self._ready.set()
        elif event.get("event") == "books":
            self.books = msgspec.convert(event, EngineBooks)
        elif event.get("level") in ("warning", "error", "critical"):
            self.troubles.append(line)
