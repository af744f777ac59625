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
from typing import Any

from msgspec.structs import replace

from flowengine.delivery import retry
from flowengine.delivery.settings import Delivery
from flowengine.delivery.threads import Threads
from flowengine.errors import FAULTS, Reject, Retry, cancelled, reason_of
from flowengine.i18n import N_, _
from flowengine.message import Message, Result
from flowengine.node import Action, Answer, Drop
from flowengine.template import as_text

Done = Callable[[Message], None]
GaveUp = Callable[[Message, BaseException, int], None]
Dropped = Callable[[Message, str], None]
NO_ORDER = "none"
_HALT_WITHIN = 1.0
_NO_RESULT = Result()


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
    """All lanes of one action. `submit` is its place in the chain; `done`, `gave_up`, `dropped` say what became of it."""

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
        self._threads: Threads | None = None
        self._halted = False
        self._deliver = self._way()
        self._key = self._order()

    def waiting(self) -> int:
        """How many messages lie here, those in flight included."""
        return sum(map(len, self.lanes.values()))

    def busy(self) -> bool:
        """Whether attempts are under way or could be; lanes that sleep until their next attempt do not count."""
        return bool(self.in_flight or self.ready)

    def submit(self, msg: Message) -> Any:
        """Take a message: returns it with its `result` where the action answered on the spot, a Drop, else TAKEN.

        Raises Reject where `id_from` or `order_by` cannot be made from the message, and what the action raised on the spot if
        that is not worth another attempt.
        """
        if self.settings.id_from is not None:
            msg = replace(msg, id=self.settings.id_from.render(msg))
        key = self._key(msg)
        lane = self.lanes.get(key)
        if lane is not None:
            if lane.rest is None:
                lane.rest = deque()
            lane.rest.append(msg)
            return self.taken
        lane = Lane(key, msg)
        if self.action.inline and self.in_flight + len(self.ready) < self.settings.concurrency:
            worthless = self._worthless(msg)
            if worthless:
                return Drop(worthless)
            try:
                made = self.action.deliver(msg)
                if made is None or type(made) is Result:
                    return replace(msg, result=made or _NO_RESULT, acted=True)
                if not inspect.isawaitable(made):
                    return _answer(made)
            except FAULTS as error:
                again = _as_retry(error)
                if again is None:
                    raise
                self.lanes[key] = lane
                self._again(lane, again)
                return self.taken
            lane.under_way = made
        self.lanes[key] = lane
        self._wake(lane)
        return self.taken

    def _order(self) -> Callable[[Message], Any]:
        order_by = self.settings.order_by
        if order_by is None:

            def by_device(msg: Message) -> Any:
                key = msg.meta.get("device") or msg.meta.get("topic")
                if type(key) is str:
                    return key
                return next(self._numbers) if key is None else as_text(key)

            return by_device
        if order_by.text == NO_ORDER:
            return lambda msg: next(self._numbers)
        return order_by.render

    def _way(self) -> Callable[[Message], Awaitable[Answer]]:
        deliver: Any = self.action.deliver
        if self.action.inline:

            async def on_the_spot(msg: Message) -> Answer:
                return await _awaited(deliver(msg))

            return on_the_spot
        if inspect.iscoroutinefunction(deliver):
            return deliver  # type: ignore[no-any-return]
        threads = self._threads = Threads(self.action.context.identity)

        async def in_a_thread(msg: Message) -> Answer:
            return await _awaited(await threads.call(deliver, msg))

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
        while not self._halted:
            if not self.ready:
                parked = loop.create_future()
                self._idle.append(parked)
                await parked
                continue
            self.in_flight += 1
            try:
                await self._attempt(self.ready.popleft())
            finally:
                self.in_flight -= 1

    async def _attempt(self, lane: Lane) -> None:
        msg = lane.head
        under_way, lane.under_way = lane.under_way, None
        worthless = self._worthless(msg) if under_way is None else ""
        if worthless:
            self._next(lane)
            self.dropped(msg, worthless)
            return
        if not lane.attempts:
            lane.since = time.monotonic()
        lane.attempts += 1
        try:
            answer = _answer(await (self._deliver(msg) if under_way is None else under_way))
        except FAULTS as error:
            if cancelled():
                raise
            failure: BaseException | None = error
        else:
            failure = None
        if failure is not None:
            again = _as_retry(failure)
            if again is None:
                self._give_up(lane, failure)
            else:
                self._again(lane, again)
            return
        if self.trouble:
            self.action.log.info(N_("delivering again"), after_failures=self.trouble)
            self.trouble = 0
        self._next(lane)
        if type(answer) is Drop:
            self.dropped(msg, answer.reason)
        else:
            self.done(replace(msg, result=answer, acted=True))

    def _worthless(self, msg: Message) -> str:
        """Why a message need not be attempted any more, or nothing."""
        if msg.outcome.withdrawn:
            return "withdrawn"
        limit = self.settings.expire_after
        return "expired" if limit is not None and time.monotonic() - msg.outcome.arrived > limit.seconds else ""

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
                N_("delivery failed, it is tried again"),
                reason=error.reason,
                attempts=lane.attempts,
                next_try_in=round(seconds, 1),
            )
        heapq.heappush(self._sleeping, (time.monotonic() + seconds, next(self._numbers), lane))
        if self._sleeping[0][2] is lane:
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

    async def halt(self) -> None:
        """Stop at once: what was in flight or waited stays pending, and its sender keeps it."""
        self._halted = True
        if self._timer is not None:
            self._timer.cancel()
        for worker in self._workers:
            worker.cancel()
        if self._workers:
            ended, _late = await asyncio.wait(self._workers, timeout=_HALT_WITHIN)
            await asyncio.gather(*ended, return_exceptions=True)
        for lane in self.lanes.values():
            if isinstance(lane.under_way, asyncio.Future):
                lane.under_way.cancel()
            elif inspect.iscoroutine(lane.under_way):
                lane.under_way.close()
        if self._threads is not None:
            self._threads.close()


async def _awaited(made: Any) -> Answer:
    answer: Answer = await made if inspect.isawaitable(made) else made
    return answer


def _answer(made: Any) -> Result | Drop:
    """What `deliver` returned. TypeError for what is no answer: a False that was meant as a no must not count as delivered."""
    if made is None:
        return _NO_RESULT
    if type(made) is Result or type(made) is Drop:
        return made
    raise TypeError(_("deliver() returned {type}, not a Result, a Drop or None").format(type=type(made).__name__))


def _as_retry(error: BaseException) -> Retry | None:
    """What `deliver` raised as a reason to try again, or None where it never will go better."""
    if isinstance(error, Retry):
        return error
    if isinstance(error, OSError | asyncio.CancelledError):  # a TimeoutError is an OSError
        return Retry(reason_of(error))
    return None
