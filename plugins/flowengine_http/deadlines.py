"""Deadlines of many exchanges with one timer."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowengine_http.wire import Wire


class Deadlines:
    """Connections that are in use, and until when; one past its deadline is aborted, so that whoever waits for it hears that it
    is lost.

    None arms a timer of its own (`asyncio.timeout` costs a POST some 8 %). The one timer is set to the earliest deadline; when
    it rings, that exchange is mostly long done, and it is set to what is the earliest by then: about once per timeout.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: dict[Wire, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf

    def begin(self, connection: Wire, due: float) -> None:
        """The connection is in use, until `due` in the loop's time at the latest."""
        self._due[connection] = due
        if due < self._rings_at:
            self._set(due)

    def end(self, connection: Wire) -> bool:
        """The connection is no longer in use; whether it was still in time."""
        return self._due.pop(connection, None) is not None

    async def cut_off_all(self) -> None:
        """Abort all connections that are in use, and wait until they are closed."""
        closed = [connection.closed for connection in self._due]
        self._cut_off(list(self._due))
        self._set(math.inf)
        if closed:
            await asyncio.wait(closed)

    def _set(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = at
        self._timer = None if at == math.inf else self._loop.call_at(at, self._ring)

    def _ring(self) -> None:
        now = self._loop.time()
        self._cut_off([connection for connection, due in self._due.items() if due <= now])
        self._set(min(self._due.values(), default=math.inf))

    def _cut_off(self, connections: list[Wire]) -> None:
        for connection in connections:
            del self._due[connection]
            connection.abort()
