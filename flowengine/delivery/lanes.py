"""The lanes of one action: in order within a lane, one in flight; lanes go side by side.

A message that comes in stands at the end of its lane. The head is attempted; while it waits for its next attempt, those
behind it wait too, and no other lane does. When it is delivered, or given up, the next one is the head. A lane exists
as long as it holds a message. A fixed pool of workers serves all lanes of an action, in the order in which their heads
became ready. When the action fails for everybody, the breaker opens: a single probe goes out until one is delivered,
and then all lanes wake.

When a message goes to the disk is said in `keeping`; without a keeper nothing does, and what is not settled stays with
its sender.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import itertools
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from msgspec.structs import replace

from flowengine.delivery import retry
from flowengine.delivery.breaker import Breaker
from flowengine.delivery.keeping import Frames, Keeper
from flowengine.delivery.lane import Lane, Parcel
from flowengine.delivery.outbox import Outbox
from flowengine.delivery.poison import NONE, Watch, verdict
from flowengine.delivery.settings import Delivery
from flowengine.delivery.threads import Threads
from flowengine.errors import FAULTS, Reject, Retry, cancelled, reason_of
from flowengine.i18n import N_, _
from flowengine.message import Failure, Message, Result
from flowengine.node import Action, Answer, Drop
from flowengine.template import as_text

Done = Callable[[Message], None]
GaveUp = Callable[[Message, BaseException, int], None]
Dropped = Callable[[Message, str], None]
Bury = Callable[[Message, Failure], None]
NO_ORDER = "none"
STUCK_ATTEMPTS = 12
STUCK_SECONDS = 3600.0
_JITTER = 1.0
_HALT_WITHIN = 1.0
_SAY_EVERY = 10.0
"""Seconds between two warnings of what only a person can mend."""
_LOOK = 0.01
_NO_RESULT = Result()


class Lanes:
    """All lanes of one action. `submit` is its place in the chain; `done`, `gave_up`, `dropped` say what came of it."""

    def __init__(
        self,
        action: Action,
        settings: Delivery,
        *,
        taken: Any,
        done: Done,
        gave_up: GaveUp,
        dropped: Dropped,
        bury: Bury,
        settle_part: Done,
        watch: Watch,
    ) -> None:
        self.action = action
        self.settings = settings
        self.taken = taken
        self.done = done
        self.gave_up = gave_up
        self.dropped = dropped
        self.bury = bury
        self.settle_part = settle_part
        self.watch = watch
        watch.reopened.append(self._reopened)
        self.keeper: Keeper | None = None
        self.breaker = Breaker()
        self.lanes: dict[Any, Lane] = {}
        self.ready: deque[Lane] = deque()
        self.flying: set[Lane] = set()
        self.held: deque[Lane] = deque()
        """Lanes that wait for the breaker to close."""
        self._barred: list[Lane] = []
        self.trouble = 0
        self._said = 0.0
        self.closing = False
        self._halted = False
        self.pauses = 0
        self.twins = 0
        self._by_id: dict[tuple[str, str], Parcel] = {}
        self._worked = 0.0
        self._probing: Lane | None = None
        self._probe_timer: asyncio.TimerHandle | None = None
        self._sleeping: list[tuple[float, int, Lane]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._workers: list[asyncio.Task[None]] = []
        self._idle: list[asyncio.Future[None]] = []
        self._threads: Threads | None = None
        self._deliver = self._way()
        self._key = self._order()

    def keep(self, outbox: Outbox, frames: Frames) -> None:
        """Let messages be stored, where the far end confirms and the flow wants it."""
        if self.action.confirming and not self.settings.store_after.never:
            self.keeper = Keeper(self, outbox, frames)

    def waiting(self) -> int:
        """How many messages lie here, in memory or on the disk, those in flight included."""
        return sum(map(len, self.lanes.values())) + self.twins

    def busy(self) -> bool:
        """Whether attempts are under way, or could be; lanes that sleep until their next attempt do not count."""
        return bool(self.flying or self.ready)

    def submit(self, msg: Message) -> Any:
        """Take a message: returns it with its `result` where the action answered on the spot, a Drop, else TAKEN.

        Raises Reject where `id_from` or `order_by` cannot be made from the message, and what the action raised on the
        spot if that is not worth another attempt.
        """
        if self.settings.id_from is not None:
            msg = replace(msg, id=self.settings.id_from.render(msg))
            if self._joins(msg):
                return self.taken
        keeps = self.keeper is not None and msg.outcome.storable
        key = self._key(msg)
        if not keeps and self.keeper is not None:
            key = ("in memory", key)  # what may not be stored does not stand in the way of what must be
        lane = self.lanes.get(key)
        refusal: Retry | None = None
        if lane is None:
            lane = Lane(self, key, keeps)
            if self.action.inline and self._may_begin(msg):
                answer = self._on_the_spot(lane, msg)
                if isinstance(answer, Retry):
                    refusal = answer
                elif answer is not None:
                    return answer
            self.lanes[key] = lane
        parcel = Parcel(lane, msg, time.monotonic())
        if self.settings.id_from is not None:
            self._by_id[msg.id, msg.part] = parcel
        if msg.outcome.open > 1:
            msg.outcome.parcels = [*(msg.outcome.parcels or ()), parcel]
        if keeps and self.keeper is not None:
            if lane.on_disk or self.breaker.open or not self.keeper.store_after:
                self.keeper.put_behind(parcel)
                return self.taken
            self.keeper.watch()
        lane.parcels.append(parcel)
        if refusal is not None:
            self._again(lane, parcel, refusal)
        elif not lane.queued:
            self._wake(lane)
        elif self._barred and lane in self._barred and not self.watch.bars(msg.outcome.mark):
            self._barred.remove(lane)  # a suspect waits for those before it
            self._wake(lane)
        return self.taken

    def _may_begin(self, msg: Message) -> bool:
        """Whether a message without others before it may be attempted at once."""
        room = len(self.flying) + len(self.ready) < self.settings.concurrency
        return room and not self.breaker.open and not self.watch.bars(msg.outcome.mark)

    def _on_the_spot(self, lane: Lane, msg: Message) -> Any:
        """Have an inline action answer at once: its answer, the Retry it raised, or None where it has none yet."""
        worthless = self._worthless(msg)
        if worthless:
            return Drop(worthless)
        try:
            made = self.action.deliver(msg)
            if made is None or type(made) is Result or not inspect.isawaitable(made):
                answer = _answer(made)
                if self.trouble:
                    self._went_through()
                return answer if type(answer) is Drop else replace(msg, result=answer, acted=True)
        except FAULTS as error:
            again = _as_retry(error)
            if again is None:
                if self.trouble and isinstance(error, Reject):
                    self._went_through()
                raise
            lane.attempts, lane.first = 1, time.monotonic()
            return again
        lane.under_way = made
        return None

    def _joins(self, msg: Message) -> bool:
        """Whether a message of this id is under way already: then this one ends with it."""
        pending = self._by_id.get((msg.id, msg.part))
        if pending is None:
            return False
        pending.twins = [*(pending.twins or ()), msg]
        self.twins += 1
        return True

    def forget(self, parcel: Parcel) -> None:
        """A message leaves the memory, or has ended: those that joined it end with it."""
        if self.settings.id_from is not None:
            self._by_id.pop((parcel.msg.id, parcel.msg.part), None)
        twins, parcel.twins = parcel.twins, None
        for twin in twins or ():
            self.twins -= 1
            self.dropped(twin, "duplicate")

    def adopt(self, lane: Lane) -> None:
        """Take a lane that a run before has left: it is due, with jitter."""
        self.lanes[lane.key] = lane
        self._sleep(lane, random.uniform(0.0, _JITTER))

    def rouse(self, lane: Lane) -> None:
        """Something of a lane reached the disk: see that its turn comes, or that it ends."""
        if lane.queued or lane.flying:
            return
        if lane.parcels or lane.rows:
            self._wake(lane)
        elif not lane.coming:
            self.lanes.pop(lane.key, None)

    def _order(self) -> Callable[[Message], Any]:
        order_by = self.settings.order_by
        if order_by is None:

            def by_device(msg: Message) -> Any:
                key = msg.meta.get("device") or msg.meta.get("topic")
                if type(key) is str:
                    return key
                return _own_lane(msg) if key is None else as_text(key)

            return by_device
        return _own_lane if order_by.text == NO_ORDER else order_by.render

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

    # Whose turn it is

    def _wake(self, lane: Lane) -> None:
        lane.queued = True
        if self.closing and lane.storable:
            return
        if self.breaker.open and lane is not self._probing:
            self.held.append(lane)
            if self._probe_timer is None and self._probing is None:
                self._arm_probe(0.0)
            return
        self.ready.append(lane)
        while self._idle:
            parked = self._idle.pop()
            if not parked.done():
                parked.set_result(None)
                return
        if len(self._workers) < self.settings.concurrency and not self._halted:
            self._workers.append(asyncio.get_running_loop().create_task(self._work(self.watch.slot())))

    async def _work(self, slot: int) -> None:
        loop = asyncio.get_running_loop()
        while not self._halted:
            if self.ready and not self.pauses:
                await self._turn(self.ready.popleft(), slot)
                continue
            parked = loop.create_future()
            self._idle.append(parked)
            await parked

    async def _turn(self, lane: Lane, slot: int) -> None:
        """A lane's turn has come, unless everything but a probe, or but a suspect, must wait."""
        if self.breaker.open and lane is not self._probing:
            self.held.append(lane)
            return
        if self.watch.closed and all(self.watch.bars(parcel.msg.outcome.mark) for parcel in lane.parcels):
            self._barred.append(lane)
            return
        self.flying.add(lane)
        lane.flying = True
        try:
            await self._serve(lane, slot)
        finally:
            lane.flying = False
            self.flying.discard(lane)

    def _reopened(self) -> None:
        """A suspect has ended: whoever waits may begin."""
        barred, self._barred = self._barred, []
        for lane in barred:
            self._wake(lane)

    async def _serve(self, lane: Lane, slot: int) -> None:
        if not lane.parcels and lane.rows > 0 and self.keeper is not None:
            await self.keeper.load(lane)
        if not lane.parcels:
            self._turn_over(lane)
            return
        parcel = lane.parcels[0]
        outcome = parcel.msg.outcome
        if self.watch.suspects and outcome.row and outcome.mark in self.watch.suspects:
            await self._suspect(lane, parcel)
            return
        self.watch.set(slot, outcome.mark)
        self.watch.active += 1
        try:
            await self._attempt(lane, parcel)
        finally:
            self.watch.active -= 1
            self.watch.set(slot, NONE)

    async def _suspect(self, lane: Lane, parcel: Parcel) -> None:
        """What may have ended the process runs alone; what has done so three times is dead."""
        mark = parcel.msg.outcome.mark
        if self.watch.is_dead(mark):
            self.watch.acquit(mark)
            self._end(lane, parcel)
            self.bury(parcel.msg, Failure(self.action.context.identity, verdict(), attempts=lane.attempts))
            return
        async with self.watch.alone(mark):
            self.watch.set(0, mark)
            try:
                await self._attempt(lane, parcel)
            finally:
                self.watch.set(0, NONE)

    def _turn_over(self, lane: Lane) -> None:
        """The head is gone: the next one's turn comes, or the lane rests, or ends."""
        lane.queued = False
        lane.flying = False
        if self._probing is lane:
            self._probing = None
            if self.breaker.open and self._probe_timer is None:
                self._arm_probe(0.0)  # the probe heard no answer: the others must not wait for ever
        self.rouse(lane)

    def _sleep(self, lane: Lane, seconds: float) -> None:
        lane.queued = True
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

    # The breaker

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
                self._wake(lane)
            else:
                self._turn_over(lane)

    def _recovered(self) -> None:
        """The breaker closed: all lanes wake."""
        if self._probe_timer is not None:
            self._probe_timer.cancel()
            self._probe_timer = None
        lanes = [*self.held, *(entry[2] for entry in sorted(self._sleeping)[: len(self._sleeping)])]
        self.held.clear()
        self._sleeping.clear()
        self._arm()
        for lane in lanes:
            self._wake(lane)

    # An attempt and what comes of it

    async def _attempt(self, lane: Lane, parcel: Parcel) -> None:
        under_way, lane.under_way = lane.under_way, None
        worthless = self._worthless(parcel.msg) if under_way is None else ""
        if worthless:
            self._end(lane, parcel)
            self.dropped(parcel.msg, worthless)
            return
        if not lane.first:
            lane.first = time.monotonic()
        lane.attempts += 1
        try:
            answer = _answer(await (self._deliver(parcel.msg) if under_way is None else under_way))
        except FAULTS as error:
            if cancelled():
                raise
            again = _as_retry(error)
            if again is not None:
                self._again(lane, parcel, again)
            else:
                self._give_up(lane, parcel, error)
            return
        self._went_through()
        self._end(lane, parcel)
        if type(answer) is Drop:
            self.dropped(parcel.msg, answer.reason)
        else:
            self.done(replace(parcel.msg, result=answer, acted=True, body=None))

    def _went_through(self) -> None:
        self._worked = time.monotonic()
        if self.breaker.worked():
            self._probing = None
            self._recovered()
        if self.trouble and not self._sleeping and not self.held:  # nobody waits for another attempt any more
            self.action.log.info(N_("delivering again"), after_failures=self.trouble)
            self.trouble = 0

    def _worthless(self, msg: Message) -> str:
        """Why a message need not be attempted any more, or nothing."""
        if msg.outcome.withdrawn:
            return "withdrawn"
        limit = self.settings.expire_after
        return "expired" if limit is not None and time.monotonic() - msg.outcome.arrived > limit.seconds else ""

    def _end(self, lane: Lane, parcel: Parcel) -> None:
        """The head has ended, whichever way."""
        lane.parcels.popleft()
        parcel.ended = True
        if parcel.seq:
            lane.served = max(lane.served, parcel.seq)
            if not parcel.stored and self.keeper is not None:
                self.keeper.outbox.remove(parcel.seq)  # it may be on its way to the disk
        lane.attempts, lane.first, lane.error = 0, 0.0, ""
        self.forget(parcel)
        self._turn_over(lane)

    def _give_up(self, lane: Lane, parcel: Parcel, error: BaseException) -> None:
        attempts = lane.attempts
        if isinstance(error, Reject):
            self._went_through()  # the far end answered: it is the message that is wrong
        self._end(lane, parcel)
        self.gave_up(parcel.msg, error, attempts)

    def _again(self, lane: Lane, parcel: Parcel, error: Retry) -> None:
        lasted = time.monotonic() - lane.first
        stuck = lane.attempts >= STUCK_ATTEMPTS and lasted >= STUCK_SECONDS and self._worked > lane.first
        if stuck or lasted >= self.settings.give_up_after.seconds:
            why = (
                _("stuck: failed {attempts} times while others went through: {reason}")
                if stuck
                else _("given up after {attempts} attempts: {reason}")
            )
            attempts = lane.attempts
            self._end(lane, parcel)
            text = why.format(attempts=attempts, reason=error.reason)
            self.gave_up(parcel.msg, Reject(text, status=error.status), attempts)
            return
        lane.error = error.reason
        self._say(error, lane)
        opened = self.breaker.failed()
        if self.keeper is not None and lane.storable:
            self.keeper.failed(lane, error.reason)
        if opened:
            text = N_("the action fails for everybody: one probe at a time from now on")
            self.action.log.error(text, reason=error.reason)
            if self.keeper is not None:
                self.keeper.put_all()
        if self.breaker.open:
            if self._probing is lane:
                self._probing = None
            lane.queued = True
            self.held.append(lane)
            self._arm_probe(self.breaker.wait(error))
        else:
            self._sleep(lane, retry.wait(error, lane.attempts))

    def _say(self, error: Retry, lane: Lane) -> None:
        self.trouble += 1
        now = time.monotonic()
        if self.trouble == 1 or (error.slow and now - self._said > _SAY_EVERY):
            self._said = now
            self.action.log.warning(
                N_("delivery failed, it is tried again"), reason=error.reason, attempts=lane.attempts
            )

    # For a person

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Begin no attempt, and read no row, to the end of the block; attempts under way go on."""
        self.pauses += 1
        try:
            while any(not lane.parcels for lane in self.flying):  # it reads its next rows
                await asyncio.sleep(_LOOK)
            yield
        finally:
            self.pauses -= 1
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
        """Store what is not in flight and attempt it no more; what may not be stored goes on until `halt`."""
        self.closing = True
        self.ready = deque(lane for lane in self.ready if not lane.storable)
        if self.keeper is not None:
            self.keeper.put_all()

    async def halt(self) -> None:
        """Stop at once: what was in flight or waited is stored, or stays with its sender."""
        self.closing = self._halted = True
        for timer in (self._timer, self._probe_timer):
            if timer is not None:
                timer.cancel()
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
        if self.keeper is not None:
            self.keeper.put_all()
        if self._threads is not None:
            self._threads.close()


def _own_lane(msg: Message) -> str:
    return f"#{msg.id}/{msg.part}"


async def _awaited(made: Any) -> Answer:
    answer: Answer = await made if inspect.isawaitable(made) else made
    return answer


def _answer(made: Any) -> Result | Drop:
    """What `deliver` returned. TypeError for what is no answer: a False that was meant as a no is no delivery."""
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
