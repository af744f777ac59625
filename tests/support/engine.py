"""`flowengine run` as a child process, read by its log."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL, SIGTERM, SIGUSR1, Signals
from types import TracebackType
from typing import Any, Self

import msgspec

from flowengine_simulate.books import EngineBooks

_DEADLINE_S = 20.0
_LINE_LIMIT = 4 * 1024 * 1024


async def until(condition: Callable[[], bool], what: str, within: float = _DEADLINE_S) -> None:
    """Return once `condition()` is true; AssertionError naming `what` if that takes over `within` seconds."""
    deadline = asyncio.get_running_loop().time() + within
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {within:g} s: {what}")
        await asyncio.sleep(0.01)


class Engine:
    """The real command, with a state folder that outlives its runs.

        async with Engine(flow, state=tmp_path / "state", env={"MQTT_URL": broker.url}) as engine:     # is ready
            await engine.kill(); await engine.start()               # kill -9 and again, with the same state
            assert await engine.stop() == 0                         # SIGTERM
            assert engine.books.balanced

    `waiting` enters as soon as the process is there, for what happens before `ready` or instead of it. `lines` are what the
    present run has written, `events` those of them that are JSON. Leaving kills what still runs, and an embedded broker
    that was left behind.
    """

    def __init__(
        self,
        *flows: Path,
        state: Path,
        env: Mapping[str, str] | None = None,
        waiting: bool = False,
    ) -> None:
        self.state = state
        self.lines: list[str] = []
        self.events: list[dict[str, Any]] = []
        self._command = [sys.executable, "-m", "flowengine", "run", *map(str, flows), "--state", str(state)]
        self._env = {**os.environ, **(env or {})}
        self._waiting = waiting
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.returncode is None

    @property
    def log(self) -> str:
        """All that the present run has written."""
        return "\n".join(self.lines)

    @property
    def books(self) -> EngineBooks:
        """The books of the last `books` line."""
        return msgspec.convert(self.named("books")[-1], EngineBooks)

    def named(self, event: str) -> list[dict[str, Any]]:
        """The log's events of this name."""
        return [entry for entry in self.events if entry.get("event") == event]

    async def launch(self) -> None:
        """Start the process; what it does then is to be waited for."""
        assert not self.running, "the engine is running already"
        self.lines, self.events = [], []
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._env,
            cwd=self.state.parent,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=_LINE_LIMIT,
        )
        self._reader = asyncio.create_task(self._read(self._process))

    async def start(self) -> None:
        """Start the process and return once it says `ready`."""
        await self.launch()
        await self.until("ready")

    async def until(self, event: str, count: int = 1) -> dict[str, Any]:
        """The `count`th event of this name, once it is in the log; AssertionError with the log if it does not come."""
        found = self.named
        try:
            await until(lambda: len(found(event)) >= count or self._over, f"the event {event!r}")
            return found(event)[count - 1]
        except (AssertionError, IndexError):
            raise AssertionError(f"no event {event!r} of number {count}; the log is:\n{self.log}") from None

    def signal(self, number: Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self, within: float = _DEADLINE_S) -> int:
        """The exit status, once it has ended by itself and its log is read."""
        assert self._process is not None
        try:
            status = await asyncio.wait_for(self._process.wait(), within)
        except TimeoutError:
            raise AssertionError(f"the engine does not end within {within:g} s; the log is:\n{self.log}") from None
        await until(lambda: self._over, "the end of the log")
        return status

    async def stop(self, number: Signals = SIGTERM) -> int:
        """Send a signal, by default SIGTERM; the exit status."""
        self.signal(number)
        return await self.ended()

    async def kill(self) -> None:
        """kill -9, and wait."""
        await self.stop(SIGKILL)

    async def ask_books(self) -> EngineBooks:
        """SIGUSR1: the books of this moment."""
        said = len(self.named("books"))
        self.signal(SIGUSR1)
        return msgspec.convert(await self.until("books", said + 1), EngineBooks)

    async def until_books(self, condition: Callable[[EngineBooks], bool], what: str) -> EngineBooks:
        """The books, once `condition` holds for them."""
        deadline = asyncio.get_running_loop().time() + _DEADLINE_S
        while not condition(books := await self.ask_books()):
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"not within {_DEADLINE_S:g} s: {what}; the books are {books}\n{self.log[-4000:]}")
            await asyncio.sleep(0.02)
        return books

    async def __aenter__(self) -> Self:
        try:
            await (self.launch() if self._waiting else self.start())
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._reader is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            await self._reader
        _end_brokers(self.state)
        if error is not None:
            error.add_note(f"the engine's log ends:\n{self.log[-4000:]}")

    @property
    def _over(self) -> bool:
        return self._reader is None or self._reader.done()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for raw in process.stdout:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            self.lines.append(line)
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                self.events.append(event)


def _end_brokers(state: Path) -> None:
    """Kill embedded brokers that a killed engine has left behind."""
    for file in state.glob("**/mosquitto.pid"):
        with suppress(OSError, ValueError, KeyError):
            os.kill(json.loads(file.read_text())["pid"], SIGKILL)
