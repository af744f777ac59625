"""Face terminals on MQTT that report at a steady rate and check what comes back."""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import msgspec

from flowengine import _
from flowengine_simulate.connection import MOST_UNACKNOWLEDGED, TerminalConnection
from flowengine_simulate.payloads import DEFAULT_MIX, TIME_FORMAT, Kind, Report, Terminal

FIRST_DEVICE = 123456789  # the number in the script that flowengine replaces
REPLY_WITHIN_S = 5.0
_MOST_CONNECTIONS = 50


def device_ids(count: int) -> list[str]:
    """The numbers of the first `count` terminals."""
    return [str(FIRST_DEVICE + n) for n in range(count)]


@dataclass(slots=True)
class TerminalCounts:
    """What was sent and what came back. `heartbeats = replies + replies_missed +` those still waited for."""

    heartbeats: int = 0
    strangers: int = 0
    record_messages: int = 0
    records: int = 0
    """entries in the record messages"""
    acknowledged: int = 0
    """messages confirmed by the broker (at QoS 0: written to the socket)"""
    replies: int = 0
    """heartbeats answered in time, in the right form, on the terminal's own downlink"""
    replies_missed: int = 0
    replies_unasked: int = 0
    """replies too late, or with no heartbeat to answer"""
    replies_malformed: int = 0
    """replies whose `time` is not like 2024-11-30 08:15:30"""
    commands: int = 0
    """any other message on a terminal's downlink"""
    connections_lost: int = 0

    @property
    def sent(self) -> int:
        """Messages sent, of all kinds."""
        return self.heartbeats + self.strangers + self.record_messages


class Terminals:
    """Some terminals behind one broker.

        async with Terminals("mqtt://127.0.0.1:1883", device_ids(5), rate=2, count=1000) as terminals:
            await terminals.finished()              # all 1000 are sent
        terminals.counts                            # leaving has waited for the PUBACKs and replies still due

    A real terminal is a client of its own, so up to 50 terminals have a connection each; more share these 50,
    because each costs a thread. All counting happens in the event loop, so `counts` can be read there at any
    time.

    While its connection is down a terminal reports nothing; nor while 1000 of the connection's messages are
    unacknowledged. What was sent at QoS 1 is sent again until it is acknowledged.

    ValueError if `url` is not a broker's or a device's number cannot stand in a topic.

    - `rate`: messages a second from each terminal
    - `count`: how many messages to send, all terminals together; None goes on until `stop()`
    - `mix`: relative shares of heartbeat, record and stranger
    - `seed`: makes the reports repeatable but for their times
    - `reply_within`: seconds a heartbeat's reply may take
    - `on_report`, `on_command`, `on_notice`: called with each report as it is sent, with the device and text
      of each command, and with what a person should know about the connections
    """

    def __init__(
        self,
        url: str,
        devices: Sequence[str],
        *,
        rate: float = 1.0,
        count: int | None = None,
        mix: Mapping[Kind, float] = DEFAULT_MIX,
        qos: int = 1,
        seed: int | None = None,
        reply_within: float = REPLY_WITHIN_S,
        on_report: Callable[[Report], None] = lambda report: None,
        on_command: Callable[[str, str], None] = lambda device, text: None,
        on_notice: Callable[[str], None] = lambda text: None,
        clock: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.counts = TerminalCounts()
        self._devices = list(dict.fromkeys(devices))
        if not self._devices or not all(re.fullmatch(r"[^/+#\x00]+", device) for device in self._devices):
            raise ValueError(_("a terminal's number cannot be empty or hold / + #"))
        self._interval = 1.0 / (rate * len(self._devices))
        self._count = count
        self._qos = qos
        self._reply_within = reply_within
        self._on_report = on_report
        self._on_command = on_command
        self._on_notice = on_notice
        self._notices: set[str] = set()
        self._terminals = [Terminal(device, mix=mix, seed=seed, clock=clock) for device in self._devices]
        self._awaited: dict[str, deque[float]] = {device: deque() for device in self._devices}
        shares = min(len(self._devices), _MOST_CONNECTIONS)
        self._connections = [TerminalConnection(self, url, self._devices[n::shares]) for n in range(shares)]
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def replies_awaited(self) -> int:
        """Heartbeats whose reply is neither here nor overdue."""
        return sum(map(len, self._awaited.values()))

    @property
    def unacknowledged(self) -> int:
        """Messages the broker has not confirmed."""
        return self.counts.sent - self.counts.acknowledged

    @property
    def connected(self) -> int:
        """How many terminals are connected and subscribed."""
        return sum(len(connection.devices) for connection in self._connections if connection.ready)

    async def start(self) -> None:
        """Connect, for as long as it takes and in the background, and begin to report."""
        loop = asyncio.get_running_loop()
        for connection in self._connections:
            connection.start(loop)
        self._tasks = [asyncio.create_task(self._report()), asyncio.create_task(self._watch_replies())]

    async def finished(self) -> None:
        """Return once `count` messages are sent."""
        await _ended(self._tasks[0])

    async def pause(self) -> None:
        """Report no more, but stay connected and go on counting what comes."""
        if self._tasks:
            await _cancel(self._tasks[0])

    async def stop(self, *, wait: float | None = None) -> None:
        """Report no more, wait for PUBACKs and replies, disconnect.

        It waits `wait` seconds at most, by default a second longer than replies may take.
        """
        if not self._tasks:
            return
        await self.pause()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._reply_within + 1 if wait is None else wait):
                await self._settled()
        await _cancel(self._tasks[1])
        self._tasks = []
        for connection in self._connections:
            connection.disconnect()
        await asyncio.gather(*(asyncio.to_thread(connection.join) for connection in self._connections))
        await asyncio.sleep(0)  # what the threads handed over before they ended

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def _report(self) -> None:
        """Let the terminals report in turn. A turn lost while a connection is down is not made up for."""
        start, turn = time.monotonic(), 0
        while self._count is None or self.counts.sent < self._count:
            await asyncio.sleep(max(0.0, start + turn * self._interval - time.monotonic()))
            nth = turn % len(self._terminals)
            connection = self._connections[nth % len(self._connections)]
            if connection.ready and connection.unacknowledged < MOST_UNACKNOWLEDGED:
                self._send(connection, self._terminals[nth].report())
            turn += 1

    def _send(self, connection: TerminalConnection, report: Report) -> None:
        topic = f"fungxi_{report.device}_upLink"
        if not connection.publish(topic, msgspec.json.encode(report.payload), self._qos):
            return
        if report.kind == "heartbeat":
            self.counts.heartbeats += 1
            self._awaited[report.device].append(time.monotonic())
        elif report.kind == "stranger":
            self.counts.strangers += 1
        else:
            self.counts.record_messages += 1
            self.counts.records += len(report.records)
        self._on_report(report)

    async def _watch_replies(self) -> None:
        while True:
            overdue = time.monotonic() - self._reply_within
            for awaited in self._awaited.values():
                while awaited and awaited[0] < overdue:
                    awaited.popleft()
                    self.counts.replies_missed += 1
                    self._changed.set()
            await asyncio.sleep(0.1)

    async def _settled(self) -> None:
        while self.unacknowledged or self.replies_awaited:
            self._changed.clear()
            await self._changed.wait()

    def downlink(self, device: str, payload: bytes) -> None:
        """A message came for `device`."""
        try:
            message = msgspec.json.decode(payload)
        except msgspec.DecodeError:
            message = None
        if isinstance(message, dict) and message.get("cmd") == "heartD":
            self._reply(device, message.get("time"))
        else:
            self.counts.commands += 1
            self._on_command(device, payload.decode("utf-8", "replace"))
        self._changed.set()

    def _reply(self, device: str, stamp: Any) -> None:
        try:
            well_formed = datetime.strptime(stamp, TIME_FORMAT).strftime(TIME_FORMAT) == stamp
        except (TypeError, ValueError):
            well_formed = False
        if not well_formed:
            self.counts.replies_malformed += 1
        elif self._awaited[device]:
            self._awaited[device].popleft()
            self.counts.replies += 1
        else:
            self.counts.replies_unasked += 1

    def acknowledged(self) -> None:
        """A message is confirmed."""
        self.counts.acknowledged += 1
        self._changed.set()

    def ready(self) -> None:
        """A connection is there. Once all are, a new trouble is news again."""
        if self._notices and all(connection.ready for connection in self._connections):
            self._notices.clear()
            self._on_notice(_("all terminals are connected"))

    def lost(self) -> None:
        """A connection is gone."""
        self.counts.connections_lost += 1

    def notice(self, text: str) -> None:
        """Say `text` once, not once for each connection."""
        if text not in self._notices:
            self._notices.add(text)
            self._on_notice(text)


async def _ended(task: asyncio.Task[None]) -> None:
    """Wait for `task`; raises what it raised, unless it was cancelled."""
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await _ended(task)
