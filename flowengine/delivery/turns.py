"""Whose turn it is: the lanes of one action, served by a fixed pool of workers in the order in which their heads became ready.

A lane with something to do stands in one place: ready, in flight, asleep until its next attempt, held while the breaker is
open, or barred while a suspect runs alone. When the breaker opens, a single probe goes out at a time; when one gets through,
all lanes wake.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from flowengine.delivery.breaker import Breaker
from flowengine.delivery.lane import Lane
from flowengine.delivery.poison import Watch
from flowengine.delivery.width import Width

_HALT_WITHIN = 1.0
_LOOK = 0.01


class Turns:
    """Gives lanes their turns: `serve(lane, slot)` is awaited by a worker whose marks stand at `slot` (see `poison`);
    `emptied(lane)` hears of one that was held and has nothing to be tried any more.

    When its turn has come a lane is `flying`; whoever serves it says by `over`, `sleep` or `hold` what comes next.
    concurrency: how many may be under way at once. together: how many the action sends in one piece.
    """

    def __init__(
        self,
        serve: Callable[[Lane, int], Coroutine[Any, Any, None]],
        emptied: Callable[[Lane], None],
        concurrency: int,
        watch: Watch,
        together: int = 1,
    ) -> None:
        self.breaker = Breaker()
        self.ready: deque[Lane] = deque()
        self.flying: set[Lane] = set()
        self.held: deque[Lane] = deque()
        """Lanes that wait for the breaker to close."""
        self._serve = serve
        self._emptied = emptied
        self.width = Width(self.ready, concurrency, together, self._grown)
        self._watch = watch
        watch.reopened.append(self._reopened)
        self._barred: list[Lane] = []
        self._sleeping: list[tuple[float, int, Lane]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._probing: Lane | None = None
        self._probe_timer: asyncio.TimerHandle | None = None
        self._workers: list[asyncio.Task[None]] = []
        self._idle: list[asyncio.Future[None]] = []
        self._closing = False
        self._halted = False
        self._pauses = 0

    def busy(self) -> bool:
        """Whether attempts are under way, or could be; lanes that sleep until their next attempt do not count."""
        return bool(self.flying or self.ready)

    @property
    def paused(self) -> bool:
        """Whether a person moves or drops rows just now."""
        return bool(self._pauses)

    def free(self) -> bool:
        """Whether a message without others before it may be attempted at once."""
        return not self.breaker.open and len(self.flying) + len(self.ready) < self.width.now

    def anyone_waits(self) -> bool:
        """Whether some lane waits for another attempt."""
        return bool(self._sleeping or self.held)

    def wake(self, lane: Lane) -> None:
        """A lane's head is ready."""
        lane.queued = True
        lane.ready_at = time.monotonic()
        if self._closing and lane.storable:
            return
        if self.breaker.open and lane is not self._probing:
            self.held.append(lane)
            if self._probe_timer is None and self._probing is None:
                self._arm_probe(0.0)
            return
        if self.ready and _before(lane, self.ready[0]):
            self.ready.appendleft(lane)
        else:
            self.ready.append(lane)
        self._call_worker()

    def _call_worker(self) -> None:
        while self._idle and len(self.flying) < self.width.now:
            parked = self._idle.pop()
            if not parked.done():
                parked.set_result(None)
                return
        if len(self._workers) < self.width.now and not self._halted:
            self._workers.append(asyncio.get_running_loop().create_task(self._work(self._watch.slot())))
        else:
            self.width.look_soon()

    def _grown(self) -> None:
        for _ in range(min(len(self.ready), self.width.now - len(self.flying))):
            self._call_worker()

    def sleep(self, lane: Lane, seconds: float) -> None:
        """A lane's head is ready in so many seconds."""
        lane.queued = True
        heapq.heappush(self._sleeping, (time.monotonic() + seconds, next(self._numbers), lane))
        if self._sleeping[0][2] is lane:
            self._arm()

    def hold(self, lane: Lane, seconds: float) -> None:
        """A lane waits for the breaker, whose next probe goes out in so many seconds."""
        if self._probing is lane:
            self._probing = None
        lane.queued = True
        self.held.append(lane)
        self._arm_probe(seconds)

    def over(self, lane: Lane) -> None:
        """A lane's head has ended."""
        lane.queued = False
        lane.flying = False
        if self._probing is lane:
            self._probing = None
            if self.breaker.open and self._probe_timer is None:
                self._arm_probe(0.0)  # the probe heard no answer: the others must not wait for ever

    def went_through(self) -> None:
        """The far end answered after failures: if that closes the breaker, all lanes wake."""
        if self.breaker.worked():
            self.wake_all()

    def wake_all(self) -> None:
        """Whoever waits for another attempt has it now."""
        self._probing = None
        if self._probe_timer is not None:
            self._probe_timer.cancel()
            self._probe_timer = None
        lanes = [*self.held, *(lane for _due, _number, lane in sorted(self._sleeping))]
        self.held.clear()
        self._sleeping.clear()
        self._arm()
        for lane in lanes:
            self.wake(lane)

    def admit(self, lane: Lane, mark: bytes) -> None:
        """A message came to the end of a lane: where it is a suspect, it waits for those before it, and for no other."""
        if self._barred and lane in self._barred and not self._watch.bars(mark):
            self._barred.remove(lane)
            self.wake(lane)

    async def _work(self, slot: int) -> None:
        loop = asyncio.get_running_loop()
        while not self._halted:
            lane = self._next()
            if lane is None:
                if self.ready and not self._pauses:
                    self.width.look_soon()
                parked = loop.create_future()
                self._idle.append(parked)
                await parked
                continue
            self.flying.add(lane)
            lane.flying = True
            try:
                await self._serve(lane, slot)
            finally:
                lane.flying = False
                self.flying.discard(lane)

    def _next(self) -> Lane | None:
        """The lane whose turn it is; what must wait for a probe, or for a suspect, goes where it waits."""
        width = self.width
        while self.ready and not self._pauses and len(self.flying) < width.now:
            lane = self.ready.popleft()
            if width.now > width.least:
                width.turn_came(lane)
            if self.breaker.open and lane is not self._probing:
                self.held.append(lane)
            elif self._watch.closed and all(self._watch.bars(parcel.msg.outcome.mark) for parcel in lane.parcels):
                self._barred.append(lane)
            else:
                return lane
        return None

    def _reopened(self) -> None:
        """A suspect has ended: whoever waits may begin."""
        barred, self._barred = self._barred, []
        for lane in barred:
            self.wake(lane)

    def _arm(self) -> None:
        """One timer for all lanes that sleep, set to the first that is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sleeping:
            delay = max(0.0, self._sleeping[0][0] - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._rise)

    def _rise(self) -> None:
        now = time.monotonic()
        while self._sleeping and self._sleeping[0][0] <= now:
            self.wake(heapq.heappop(self._sleeping)[2])
        self._timer = None
        self._arm()

    def _arm_probe(self, seconds: float) -> None:
        if self._probe_timer is not None:
            self._probe_timer.cancel()
        self._probe_timer = asyncio.get_running_loop().call_later(seconds, self._probe)

    def _probe(self) -> None:
        self._probe_timer = None
        while self.held and self._probing is None:
            lane = self.held.popleft()
            if lane.parcels or lane.rows:
                self._probing = lane
                self.wake(lane)
            else:
                self._emptied(lane)

    # For a person

    @asynccontextmanager
    async def pause(self) -> AsyncIterator[None]:
        """Begin no attempt, and read no row, to the end of the block; attempts under way go on."""
        self._pauses += 1
        try:
            while any(not lane.parcels for lane in self.flying):  # it reads its next rows
                await asyncio.sleep(_LOOK)
            yield
        finally:
            self._pauses -= 1
            parked, self._idle = self._idle, []
            for future in parked:
                if not future.done():
                    future.set_result(None)

    def next_tries(self) -> dict[Any, float]:
        """In how many seconds each lane's next attempt is; 0 for those whose turn it is."""
        now = time.monotonic()
        times = {lane.key: 0.0 for lane in (*self.ready, *self.flying)}
        times.update((lane.key, max(0.0, due - now)) for due, _number, lane in self._sleeping)
        if self.held:
            timer = self._probe_timer
            probe = 0.0 if timer is None else max(0.0, timer.when() - asyncio.get_running_loop().time())
            times.update((lane.key, probe) for lane in self.held)
        return times

    # Stopping

    def close_door(self) -> None:
        """Give no turn any more to what can be stored."""
        self._closing = True
        left = [lane for lane in self.ready if not lane.storable]
        self.ready.clear()
        self.ready.extend(left)

    async def halt(self) -> None:
        """End all turns."""
        self._closing = self._halted = True
        self.width.stop()
        for timer in (self._timer, self._probe_timer):
            if timer is not None:
                timer.cancel()
        for worker in self._workers:
            worker.cancel()
        if self._workers:
            ended, _late = await asyncio.wait(self._workers, timeout=_HALT_WITHIN)
            await asyncio.gather(*ended, return_exceptions=True)


def _before(lane: Lane, other: Lane) -> bool:
    """Whether a lane's head is not on the disk and arrived before the other's: PUBACKs go out in the order of arrival, and those
    that came after wait for it. What the disk has does not push forward: live lanes would wait for all of a backlog."""
    if not lane.parcels or not other.parcels or lane.parcels[0].stored:
        return False
    return other.parcels[0].stored or lane.parcels[0].msg.outcome.arrived < other.parcels[0].msg.outcome.arrived
