"""Broker, backend, flow and terminals together, for a live look and a check that all their books agree."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import aiohttp

from flowengine import _
from flowengine_simulate.backend import Backend, Taken
from flowengine_simulate.books import Books
from flowengine_simulate.display import Status, shorten
from flowengine_simulate.engine import EngineProcess
from flowengine_simulate.payloads import Report
from flowengine_simulate.signals import first_of
from flowengine_simulate.terminals import Terminals, device_ids

_COMMAND_EVERY_S = 1.0
_DRAIN_WITHIN_S = 15.0
_POST_WITHIN = aiohttp.ClientTimeout(total=15)


class Demo:
    """One run of the flow that replaces the seed's script, on free ports and with a state folder of its own.

    The flow finds its surroundings by MQTT_URL, BACKEND_URL, COMMAND_LISTEN, COMMAND_TOKEN and DEVICE; the
    engine starts the broker (`embedded:`).
    """

    def __init__(self, flows: Path, *, devices: int, rate: float, seconds: float, status: Status) -> None:
        self._flows = flows
        self._devices = device_ids(devices)
        self._seconds = seconds
        self._status = status
        broker, self._listen = _free_ports(2)
        self._broker = f"127.0.0.1:{broker}"
        self._backend = Backend(on_record=self._arrived)
        self._terminals = Terminals(
            f"mqtt://{self._broker}", self._devices, rate=rate, on_report=self._sent, on_notice=status.line
        )
        self.books = Books(self._terminals.counts)

    async def run(self, stopping: asyncio.Event) -> Books:
        """Run for the time given or until `stopping` is set; let all arrive, stop all, return the books.

        Raises EngineFailed if the engine does not start.
        """
        async with AsyncExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="flowengine-demo-"))
            await stack.enter_async_context(self._backend)
            engine = EngineProcess(self._flows, Path(folder, "state"), self._environment())
            stack.push_async_callback(engine.stop)
            self._status.show(_("starting the engine"))
            await engine.start()
            await self._live(stopping)
            self._status.show(_("stopping the engine"))
            self.books.engine_exit = await engine.stop()
            self.books.engine = engine.books
            for line in engine.troubles:
                self._status.line(shorten(line, 400))
        self._status.clear()
        return self.books

    def _environment(self) -> dict[str, str]:
        return {
            "MQTT_URL": f"embedded:{self._broker.rpartition(':')[2]}",
            "BACKEND_URL": self._backend.url,
            "COMMAND_LISTEN": f"127.0.0.1:{self._listen}",
            "COMMAND_TOKEN": "",
            "DEVICE": self._devices[0],
        }

    async def _live(self, stopping: asyncio.Event) -> None:
        over = asyncio.Event()
        async with self._terminals:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._post_commands(over))
                await first_of(stopping.wait(), self._show_progress(), seconds=self._seconds)
                over.set()
            await self._terminals.pause()
            await self._drain()

    async def _show_progress(self) -> None:
        start = time.monotonic()
        while True:
            self._status.show(self._progress(time.monotonic() - start))
            await asyncio.sleep(0.25)

    def _progress(self, elapsed: float) -> str:
        counts, bar = self._terminals.counts, 20
        done = min(bar, round(bar * elapsed / self._seconds))
        text = _(
            "{elapsed:.0f}/{seconds:.0f} s  records {arrived}/{sent}  replies {replies}/{heartbeats}"
            "  commands {commands}"
        )
        numbers = text.format(
            elapsed=elapsed,
            seconds=self._seconds,
            arrived=self.books.arrived.total(),
            sent=len(self.books.sent),
            replies=counts.replies,
            heartbeats=counts.heartbeats,
            commands=counts.commands,
        )
        return f"[{'#' * done}{'-' * (bar - done)}] {numbers}"

    async def _drain(self) -> None:
        """Wait until what was sent has arrived, for a time that only a broken flow needs."""
        deadline = time.monotonic() + _DRAIN_WITHIN_S
        while not self._all_arrived() and time.monotonic() < deadline:
            self._status.show(_("the terminals have stopped; waiting for what is under way"))
            await asyncio.sleep(0.05)

    def _all_arrived(self) -> bool:
        books = self.books
        return len(books.arrived) >= len(books.sent) and books.terminals.commands >= books.commands_posted

    async def _post_commands(self, over: asyncio.Event) -> None:
        """Post to the first terminal at `/`, as the script took it, and to the others at their own paths."""
        async with aiohttp.ClientSession(f"http://127.0.0.1:{self._listen}", timeout=_POST_WITHIN) as session:
            for number, device in enumerate(itertools.cycle(self._devices)):
                await first_of(over.wait(), seconds=_COMMAND_EVERY_S)
                if over.is_set():
                    return
                path = "/" if device == self._devices[0] else f"/devices/{device}/commands"
                command = {"cmd": "openDoorD", "id": number}
                # The script took a text that is itself JSON; both forms must arrive as the same message.
                await self._post(session, path, command if number % 2 else json.dumps(command))

    async def _post(self, session: aiohttp.ClientSession, path: str, body: object) -> None:
        try:
            async with session.post(path, json=body) as answer:
                taken = answer.ok
        except (aiohttp.ClientError, TimeoutError):
            taken = False
        if taken:
            self.books.commands_posted += 1
        else:
            self.books.commands_refused += 1

    def _sent(self, report: Report) -> None:
        self.books.sent.update((record["num"], record["time"]) for record in report.records)

    def _arrived(self, taken: Taken) -> None:
        if taken.status == 200:
            self.books.arrived[str(taken.body.get("user_id")), str(taken.body.get("bot_time"))] += 1


def _free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that were free a moment ago, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _nth in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
