"""A session with its ledger, watched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import structlog
from structlog.typing import EventDict

from flowengine_mqtt.acks import AckLedger, Entry
from flowengine_mqtt.reader import DUP, RETAIN
from flowengine_mqtt.session import Session
from flowengine_mqtt.settings import Patience, SessionSettings
from flowengine_mqtt.state import SessionState

#: As patient as a test is.
QUICK = Patience(connect=5.0, first=0.01, longest=0.05, stable=0.5, slow=(0.2, 0.3), resubscribe=0.1)


async def until(condition: Callable[[], bool], what: str, within: float = 10.0) -> None:
    """Return once `condition()` is true; AssertionError naming `what` if that takes over `within` seconds."""
    deadline = asyncio.get_running_loop().time() + within
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {within:g} s: {what}")
        await asyncio.sleep(0.005)


class Watched:
    """A session wired to a ledger as a connection does it. `messages` are settled at once if `settling`."""

    def __init__(self, settings: SessionSettings, folder: Path, filters: dict[str, int]) -> None:
        loop = asyncio.get_running_loop()
        self.settling = True
        self.messages: list[tuple[str, bytes]] = []
        self.flags: list[tuple[int, int, bool, bool]] = []
        self.entries: list[Entry] = []
        self.ups: list[tuple[int, bool]] = []
        self.downs: list[str] = []
        self.state = SessionState(folder, "flow", "gate")
        self.ledger = AckLedger(lambda *sent: self.session.acknowledge(*sent), loop.call_soon)
        self.session = Session(settings, on_message=self._message, on_up=self._up, on_down=self._down, state=self.state)
        self.session.set_filters(filters)

    async def ready(self) -> None:
        await asyncio.wait_for(self.session.wait_ready(), 10)

    async def close(self) -> None:
        self.ledger.flush()
        await self.session.disconnect()

    def payloads(self) -> list[bytes]:
        return [payload for _topic, payload in self.messages]

    def _up(self, generation: int, session_present: bool) -> None:
        self.ledger.connected(generation, session_present)
        self.ups.append((generation, session_present))

    def _down(self, generation: int, reason: str) -> None:
        self.ledger.disconnected()
        self.downs.append(reason)

    def _message(self, generation: int, flags: int, mid: int, topic: bytes, payload: bytes) -> None:
        qos, retain, dup = flags >> 1 & 3, bool(flags & RETAIN), bool(flags & DUP)
        text = topic.decode()
        entry = self.ledger.received(generation, mid, topic, payload, dup) if qos else None
        if qos and entry is None:
            return
        self.messages.append((text, payload))
        self.flags.append((mid, qos, retain, dup))
        if entry is not None:
            self.entries.append(entry)
            if self.settling:
                entry.settle()


OpenSession = Callable[..., Watched]


@pytest.fixture
async def open_session(tmp_path: Path) -> AsyncIterator[OpenSession]:
    """Makes started sessions; those of one `folder` share their state. All are closed at the end."""
    opened: list[Watched] = []

    def open_(
        url: str, filters: dict[str, int] | None = None, *, folder: str = "state", start: bool = True, **changes: object
    ) -> Watched:
        settings = SessionSettings.from_url(url).replace(patience=QUICK).replace(**changes)
        watched = Watched(settings, tmp_path / folder, filters or {})
        if start:
            watched.session.start()
        opened.append(watched)
        return watched

    yield open_
    for watched in opened:
        await watched.close()


@pytest.fixture
def logs() -> Iterator[list[EventDict]]:
    """What is logged during the test."""
    with structlog.testing.capture_logs() as captured:
        yield captured
