"""The lanes of one action: in order within a lane, one in flight; lanes go side by side.

A message that comes in stands at the end of its lane. The head is attempted; while it waits for its next attempt, those
behind it wait too, and no other lane does. When it is delivered, or given up, the next one is the head. A lane exists
as long as it holds a message. Whose turn it is, and what the breaker has to say to that, is in `turns`; when a message
goes to the disk, in `keeping`: without a keeper none does, and what is not settled stays with its sender.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

from msgspec.structs import replace

from flowengine.delivery import retry
from flowengine.delivery.calling import answer_of, as_retry, way_of
from flowengine.delivery.keeping import Keeper
from flowengine.delivery.lane import Lane, Parcel, key_of
from flowengine.delivery.outbox import Outbox
from flowengine.delivery.poison import NONE, Watch, verdict
from flowengine.delivery.rows import Frames
from flowengine.delivery.settings import Delivery
from flowengine.delivery.turns import Turns
from flowengine.errors import FAULTS, Reject, Retry, cancelled
from flowengine.i18n import N_, _
from flowengine.message import Failure, Message, Result
from flowengine.node import Action, Drop

Done = Callable[[Message], None]
GaveUp = Callable[[Message, BaseException, int], None]
Dropped = Callable[[Message, str], None]
Bury = Callable[[Message, Failure], None]
STUCK_ATTEMPTS = 12
STUCK_SECONDS = 3600.0
_JITTER = 1.0
_SAY_EVERY = 10.0
"""Seconds between two warnings of what only a person can mend."""


class Lanes:
    """All lanes of one action. `submit` is its place in the chain; `done`, `gave_up`, `dropped` say what came of it.

    followed: whether a message may come to another action after this one.
    """

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
        followed: bool,
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
        self.followed = followed
        self.keeper: Keeper | None = None
        at_once = action.at_once if settings.concurrency is None else settings.concurrency
        self.turns = Turns(self._serve, self._turn_over, at_once, watch, action.together)
        action.alone = lambda: self.turns.breaker.open or watch.closed
        self.lanes: dict[Any, Lane] = {}
        self.twins = 0
        self.trouble = 0
        self._said = 0.0
        self._worked = 0.0
        self._by_id: dict[tuple[str, str], Parcel] = {}
        self._deliver, self._threads = way_of(action)
        self._key = key_of(settings.order_by)
        self._expires = settings.expire_after is not None
        self._id_of = None if settings.id_from is None else settings.id_from.render

    def keep(self, outbox: Outbox, frames: Frames) -> None:
        """Let messages be stored, where the far end confirms and the flow wants it."""
        if self.action.confirming and not self.settings.store_after.never:
            self.keeper = Keeper(self, outbox, frames)

    def waiting(self) -> int:
        """How many messages lie here, in memory or on the disk, those in flight included."""
        return sum(map(len, self.lanes.values())) + self.twins

    def submit(self, msg: Message) -> Any:
        """Take a message: returns it with its `result` where the action answered on the spot, a Drop, else TAKEN.

        Raises Reject where `id_from` or `order_by` cannot be made from the message, and what the action raised on the
        spot if that is not worth another attempt.
        """
        if self._id_of is not None:
            msg = replace(msg, id=self._id_of(msg))
            if self._by_id and self._joins(msg):
                return self.taken
        outcome, keeper, turns = msg.outcome, self.keeper, self.turns
        keeps = keeper is not None and outcome.storable
        key = self._key(msg)
        if not keeps and keeper is not None:
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
        if self._id_of is not None:
            self._by_id[msg.id, msg.part] = parcel
        if outcome.open > 1 or msg.acted:
            outcome.parcels = [*(outcome.parcels or ()), parcel]
        if keeps and keeper is not None:
            if (lane.on_disk or turns.breaker.open or not keeper.store_after) and keeper.wants_now(lane):
                keeper.put_behind(parcel)
                return self.taken
            if not keeper.watching:
                keeper.watch()
        lane.parcels.append(parcel)
        if refusal is not None:
            self._again(lane, parcel, refusal)
        elif not lane.queued:
            turns.wake(lane)
        elif self.watch.closed:
            turns.admit(lane, outcome.mark)
        return self.taken

    def _may_begin(self, msg: Message) -> bool:
        """Whether a message without others before it may be attempted at once."""
        return self.turns.free() and not self.watch.bars(msg.outcome.mark)

    def _on_the_spot(self, lane: Lane, msg: Message) -> Any:
        """Have an inline action answer at once: its answer, the Retry it raised, or None where it has none yet."""
        worthless = self._worthless(msg)
        if worthless:
            return Drop(worthless)
        try:
            made = self.action.deliver(msg)
            if made is None or type(made) is Result or not inspect.isawaitable(made):
                answer = answer_of(made)
                if self.trouble:
                    self._went_through()
                if self.followed:
                    self._passes(lane, msg)
                return answer if type(answer) is Drop else replace(msg, result=answer, acted=True)
        except FAULTS as error:
            again = as_retry(error)
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
        if self._id_of is not None:
            self._by_id.pop((parcel.msg.id, parcel.msg.part), None)
        if parcel.kept and self.keeper is not None:
            self.keeper.outbox.kept -= parcel.kept
            parcel.kept = 0
        twins, parcel.twins = parcel.twins, None
        for twin in twins or ():
            self.twins -= 1
            self.dropped(twin, "duplicate")

    def adopt(self, lane: Lane) -> None:
        """Take a lane that a run before has left: it is due, with jitter."""
        self.lanes[lane.key] = lane
        self.turns.sleep(lane, random.uniform(0.0, _JITTER))

    def rouse(self, lane: Lane) -> None:
        """Something of a lane reached the disk: see that its turn comes, or that it ends."""
        if lane.queued or lane.flying:
            return
        if lane.parcels or lane.rows:
            self.turns.wake(lane)
        elif not lane.coming:
            self.lanes.pop(lane.key, None)

    # A turn

    def _serve(self, lane: Lane, slot: int) -> Coroutine[Any, Any, None]:
        if lane.parcels and not self.watch.suspects:
            return self._attempt(lane, lane.parcels[0], slot)
        return self._look_first(lane, slot)

    async def _look_first(self, lane: Lane, slot: int) -> None:
        """Serve a lane whose head may have to be read from the disk, or may be a suspect."""
        if not lane.parcels and lane.rows > 0 and self.keeper is not None:
            await self.keeper.load(lane)
        if not lane.parcels:
            self._turn_over(lane)
            return
        parcel = lane.parcels[0]
        outcome = parcel.msg.outcome
        if outcome.row and outcome.mark in self.watch.suspects:
            await self._suspect(lane, parcel)
        else:
            await self._attempt(lane, parcel, slot)

    async def _suspect(self, lane: Lane, parcel: Parcel) -> None:
        """What may have ended the process runs alone; what has done so three times is dead."""
        mark = parcel.msg.outcome.mark
        if self.watch.is_dead(mark):
            self.watch.acquit(mark)
            self._end(lane, parcel)
            self.bury(parcel.msg, Failure(self.action.context.identity, verdict(), attempts=lane.attempts))
            return
        async with self.watch.alone(mark):
            await self._attempt(lane, parcel, 0)

    def _turn_over(self, lane: Lane) -> None:
        """The head is gone: the next one's turn comes, or the lane rests, or ends."""
        self.turns.over(lane)
        self.rouse(lane)

    # An attempt and what comes of it

    async def _attempt(self, lane: Lane, parcel: Parcel, slot: int) -> None:
        """Try the head once; its mark stands at `slot` until what comes of it has come."""
        watch, msg = self.watch, parcel.msg
        watch.set(slot, msg.outcome.mark)
        watch.active += 1
        try:
            under_way, lane.under_way = lane.under_way, None
            if under_way is None and (self._expires or msg.outcome.withdrawn):
                worthless = self._worthless(msg)
                if worthless:
                    self._end(lane, parcel)
                    self.dropped(parcel.msg, worthless)
                    return
            if not lane.first:
                lane.first = time.monotonic()
            lane.attempts += 1
            try:
                answer = await (self._deliver(msg) if under_way is None else under_way)
                if type(answer) is not Result:
                    answer = answer_of(answer)
            except FAULTS as error:
                if cancelled():
                    raise
                self._failed(lane, parcel, error)
                return
            self._went_through()
            self._end(lane, parcel)
            msg = parcel.msg  # if it was stored meanwhile, it ends with its row
            if type(answer) is Drop:
                self.dropped(msg, answer.reason)
            else:
                self.done(replace(msg, result=answer, acted=True, body=None))
        finally:
            watch.active -= 1
            watch.set(slot, NONE)

    def _went_through(self) -> None:
        self._worked = time.monotonic()
        if self.turns.breaker.failures:
            self.turns.went_through()
        if self.trouble and not self.turns.anyone_waits():  # nobody waits for another attempt any more
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
        if self.followed:
            self._passes(lane, parcel.msg)
        self._turn_over(lane)

    def _passes(self, lane: Lane, msg: Message) -> None:
        """What goes on to another action stands before all that its lane stores until it is settled or stored there."""
        if self.keeper is not None and lane.storable and not msg.outcome.row:
            self.keeper.passes(lane, msg.outcome)

    def _failed(self, lane: Lane, parcel: Parcel, error: BaseException) -> None:
        """An attempt raised: it is tried again, or given up."""
        again = as_retry(error)
        if again is not None:
            self._again(lane, parcel, again)
            return
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
        breaker = self.turns.breaker
        opened = breaker.failed()
        if self.keeper is not None and lane.storable:
            self.keeper.failed(lane, error.reason)
        if opened:
            text = N_("the action fails for everybody: one probe at a time from now on")
            self.action.log.error(text, reason=error.reason)
            if self.keeper is not None:
                self.keeper.put_all()
        if breaker.open:
            self.turns.hold(lane, breaker.wait(error))
        else:
            self.turns.sleep(lane, retry.wait(error, lane.attempts))

    def _say(self, error: Retry, lane: Lane) -> None:
        self.trouble += 1
        now = time.monotonic()
        if self.trouble == 1 or (error.slow and now - self._said > _SAY_EVERY):
            self._said = now
            self.action.log.warning(
                N_("delivery failed, it is tried again"), reason=error.reason, attempts=lane.attempts
            )

    # Stopping

    def close_door(self) -> None:
        """Store what is not in flight and attempt it no more; what may not be stored goes on until `halt`."""
        self.turns.close_door()
        if self.keeper is not None:
            self.keeper.put_all()

    async def halt(self) -> None:
        """Stop at once: what was in flight or waited is stored, or stays with its sender."""
        await self.turns.halt()
        for lane in self.lanes.values():
            if isinstance(lane.under_way, asyncio.Future):
                lane.under_way.cancel()
            elif inspect.iscoroutine(lane.under_way):
                lane.under_way.close()
        if self.keeper is not None:
            self.keeper.put_all()
        if self._threads is not None:
            self._threads.close()
