"""Lanes: the messages of one device on their way to one action. In order within a lane, one in flight; lanes go side by side.

A message that comes in stands at the end of its lane. The head is attempted; while it waits for its next attempt, those behind it
wait too, and no other lane does. When it is delivered, or given up, the next one is the head. A lane exists as long as it holds a
message. A fixed pool of workers serves all lanes of an action, in the order in which their heads became ready.

Nothing here is on disk: what is not settled is not acknowledged, and its sender keeps it. The outbox stands at `_again`, where a
message is known not to go through now.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flowengine.delivery import retry
from flowengine.delivery.settings import Delivery
from flowengine.errors import Reject, Retry
from flowengine.i18n import _
from flowengine.message import Message, Result
from flowengine.node import Action, Answer, Drop

Done = Callable[[Message], None]
GaveUp = Callable[[Message, BaseException, int], None]
Dropped = Callable[[Message, str], None]
NO_ORDER = "none"
_NETWORK = (OSError, TimeoutError, ConnectionError)


class Lane:
    """One lane. attempts and since are those of the head: how often it was tried, and since when (monotonic seconds)."""

    __slots__ = ("attempts", "head", "key", "rest", "since", "under_way")

    def __init__(self, key: Any, head: Message) -> None:
        self.key = key
        self.head = head
        self.rest: deque[Message] | None = None
        self.attempts = 0
        self.since = 0.0
        self.under_way: Awaitable[Answer] | None = None

    def __len__(self) -> int:
        return 1 + (len(self.rest) if self.rest else 0)


class Lanes:
    """All lanes of one action. `submit` is its place in the chain; `done`, `gave_up` and `dropped` say what became of a message."""

    def __init__(
        self, action: Action, settings: Delivery, *, taken: Any, done: Done, gave_up: GaveUp, dropped: Dropped
    ) -> None:
        self.action = action
        self.settings = settings
        self.taken = taken
        self.done = done
        self.gave_up = gave_up
        self.dropped = dropped
        self.lanes: dict[Any, Lane] = {}
        self.ready: deque[Lane] = deque()
        self.in_flight = 0
        self.trouble = 0
        self._sleeping: list[tuple[float, int, Lane]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._workers: list[asyncio.Task[None]] = []
        self._idle: list[asyncio.Future[None]] = []
        self._quiet: asyncio.Future[None] | None = None
        self._deliver = self._way()
        self._key = self._order()

    def waiting(self) -> int:
        """How many messages lie here, those in flight included."""
        return sum(map(len, self.lanes.values()))

    def submit(self, msg: Message) -> Any:
        """Take a message: returns it with its `result` where the action answered on the spot, else TAKEN.

        Raises Reject where `id_from` or `order_by` cannot be made from the message, or the action refused it on the spot.
        """
        if self.settings.id_from is not None:
            msg = msg._but(id=self.settings.id_from.render(msg))
        key = self._key(msg)
        lane = self.lanes.get(key)
        if lane is not None:
            if lane.rest is None:
                lane.rest = deque()
            lane.rest.append(msg)
            return self.taken
        lane = Lane(key, msg)
        if self.action.inline:
            try:
                made = self.action.deliver(msg)
            except Retry as error:
                self.lanes[key] = lane
                self._again(lane, error)
                return self.taken
            if type(made) is Drop:
                return made
            if not inspect.isawaitable(made):
                return msg._but(result=made or Result(), acted=True)
            lane.under_way = made
        self.lanes[key] = lane
        self._wake(lane)
        return self.taken

    def _order(self) -> Callable[[Message], Any]:
        order_by = self.settings.order_by
        if order_by is None:

            def by_device(msg: Message) -> Any:
                key = msg.meta.get("device") or msg.meta.get("topic")
                return next(self._numbers) if key is None else key

            return by_device
        if order_by.text == NO_ORDER:
            return lambda msg: next(self._numbers)
        return order_by.render

    def _way(self) -> Callable[[Message], Awaitable[Answer]]:
        deliver: Any = self.action.deliver
        if self.action.inline:

            async def on_the_spot(msg: Message) -> Answer:
                made = deliver(msg)
                return await made if inspect.isawaitable(made) else made

            return on_the_spot
        if inspect.iscoroutinefunction(deliver):
            return deliver  # type: ignore[no-any-return]
        threads = ThreadPoolExecutor(self.settings.concurrency, thread_name_prefix=self.action.context.identity)

        async def in_a_thread(msg: Message) -> Answer:
            return await asyncio.get_running_loop().run_in_executor(threads, deliver, msg)

        return in_a_thread

    def _wake(self, lane: Lane) -> None:
        self.ready.append(lane)
        while self._idle:
            parked = self._idle.pop()
            if not parked.done():
                parked.set_result(None)
                return
        if len(self._workers) < self.settings.concurrency:
            self._workers.append(asyncio.get_running_loop().create_task(self._work()))

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while self.ready:
                lane = self.ready.popleft()
                self.in_flight += 1
                try:
                    await self._attempt(lane)
                finally:
                    self.in_flight -= 1
            if self._quiet is not None and not self.in_flight and not self._quiet.done():
                self._quiet.set_result(None)
            parked = loop.create_future()
            self._idle.append(parked)
            await parked

    async def _attempt(self, lane: Lane) -> None:
        msg = lane.head
        expired = self._worthless(msg)
        if expired:
            self._next(lane)
            self.dropped(msg, expired)
            return
        if not lane.attempts:
            lane.since = time.monotonic()
        lane.attempts += 1
        made, lane.under_way = lane.under_way, None
        try:
            result = await (made if made is not None else self._deliver(msg))
        except Retry as error:
            self._again(lane, error)
        except _NETWORK as error:
            self._again(lane, Retry(f"{type(error).__name__}: {error}"))
        except Exception as error:
            self._give_up(lane, error)
        else:
            if self.trouble:
                self.action.log.info("delivering again", after_failures=self.trouble)
                self.trouble = 0
            self._next(lane)
            if isinstance(result, Drop):
                self.dropped(msg, result.reason)
            else:
                self.done(msg._but(result=result or Result(), acted=True))

    def _worthless(self, msg: Message) -> str:
        """Why a message need not be attempted any more, or nothing."""
        if msg.outcome.withdrawn:
            return "withdrawn"
        limit = self.settings.expire_after
        return "expired" if limit is not None and time.time() - msg.time > limit.seconds else ""

    def _next(self, lane: Lane) -> None:
        """The head is gone: the one behind it is the head, or the lane is no more."""
        lane.attempts = 0
        if lane.rest:
            lane.head = lane.rest.popleft()
            self._wake(lane)
        else:
            del self.lanes[lane.key]

    def _give_up(self, lane: Lane, error: BaseException) -> None:
        msg, attempts = lane.head, lane.attempts
        self._next(lane)
        self.gave_up(msg, error, attempts)

    def _again(self, lane: Lane, error: Retry) -> None:
        if not lane.attempts:
            lane.attempts = 1
            lane.since = time.monotonic()
        if time.monotonic() - lane.since >= self.settings.give_up_after.seconds:
            text = _("given up after {attempts} attempts: {reason}").format(attempts=lane.attempts, reason=error.reason)
            self._give_up(lane, Reject(text, status=error.status))
            return
        seconds = retry.wait(error, lane.attempts)
        self.trouble += 1
        if self.trouble == 1 or error.slow:
            self.action.log.warning(
                "delivery failed, it is tried again",
                reason=error.reason,
                attempts=lane.attempts,
                next_try_in=round(seconds, 1),
            )
        heapq.heappush(self._sleeping, (time.monotonic() + seconds, next(self._numbers), lane))
        self._arm()

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
            self._wake(heapq.heappop(self._sleeping)[2])
        self._timer = None
        self._arm()

    async def drain(self, seconds: float) -> None:
        """Let attempts under way and messages that are ready go through, for so long; then stop. What is left stays pending."""
        if self.ready or self.in_flight:
            self._quiet = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._quiet], timeout=seconds)
        if self._timer is not None:
            self._timer.cancel()
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        for lane in self.lanes.values():
            if inspect.iscoroutine(lane.under_way):
                lane.under_way.close()
