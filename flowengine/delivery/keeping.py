"""When a message is stored, and how it comes back: the storing rule of one action.

A message goes to the disk when its delivery has not succeeded `store_after` from its first attempt, when it has waited
2 s for one, when an attempt failed, when the breaker is open, when its lane has rows already, or when the engine asks
for room. It is stored together with all that stand before it in its lane, and with the other parts of its arrival that
are not settled, in one transaction. From then on its sender may be told yes. What is stored stays in memory, too,
at the front of its lane and as far as there is room; the rest is let go, and read again a few rows at a time when its turn
comes. How a message becomes a row is in `rows`.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import sqlite3
import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from flowengine.delivery.lane import Lane, Parcel
from flowengine.delivery.outbox import SHOWN, Outbox, Row, Waiting, clean
from flowengine.delivery.poison import mark_of_row
from flowengine.delivery.rows import Frames, Rows, moment, unfit
from flowengine.i18n import N_
from flowengine.message import Failure, Outcome

if TYPE_CHECKING:
    from flowengine.delivery.lanes import Lanes

KEPT_BYTES = 8 << 20
"""How much of what is on the disk may stay in memory: a backlog of a moment is not read again."""
WAITED = 2.0
_SCAN_EVERY = 5
_ROWS = 16
_READ_AGAIN = 1.0


class Keeper:
    """Keeps the messages of one action."""

    def __init__(self, lanes: Lanes, outbox: Outbox, frames: Frames) -> None:
        self.lanes = lanes
        self.outbox = outbox
        self.rows = Rows(lanes.action, outbox, frames)
        self.action = lanes.action
        self.identity = lanes.action.context.identity
        self.store_after = lanes.settings.store_after.seconds
        self.ahead: dict[Any, list[Outcome]] = {}
        """Lane by lane: arrivals that have passed this action and are neither settled nor stored at the next."""
        self.watching = False
        """Whether it looks after what is in memory at every tick."""
        self._behind: set[Lane] = set()
        """Lanes with rows to whose end something came that is in memory only."""
        self._ticks = itertools.count(1)

    def take_over(self, waiting: Iterable[Waiting]) -> int:
        """Take the lanes that runs before have left; how many rows."""
        rows = 0
        for found in waiting:
            lane = Lane(self.lanes, found.lane, True)
            lane.on_disk = True
            lane.rows = found.rows
            lane.served = found.first_seq - 1
            rows += found.rows
            self.lanes.adopt(lane)
        return rows

    def watch(self) -> None:
        """Something is in memory: look after it at every tick."""
        if not self.watching:
            self.watching = True
            self.outbox.ticker.add(self._look)

    def _look(self, held_up: float) -> bool:
        """Store what is due. What the loop itself was held up is not the far end's delay."""
        now = time.monotonic()
        limit = now - self.store_after - held_up
        due = [
            lane for lane in self.lanes.turns.flying if lane.storable and not lane.on_disk and 0.0 < lane.first <= limit
        ]
        if next(self._ticks) % _SCAN_EVERY == 0:
            limit = now - WAITED
            due += [lane for lane in self.in_memory() if _arrived(lane) <= limit]
            self._forget_settled()
        behind, self._behind = self._behind, set()
        if due or behind:
            self.put(together([*due, *behind]))
        self.watching = bool(self.lanes.lanes or self.ahead)
        return self.watching

    def passes(self, lane: Lane, outcome: Outcome) -> None:
        """An arrival goes on to another action: what its lane stores from now on is stored together with it, or after. Else,
        after a kill, what came later would be at that action first."""
        self.ahead.setdefault(lane.key, []).append(outcome)
        self.watch()

    def _forget_settled(self) -> None:
        left = ((key, [outcome for outcome in outcomes if outcome.open]) for key, outcomes in self.ahead.items())
        self.ahead = {key: outcomes for key, outcomes in left if outcomes}

    def in_memory(self) -> list[Lane]:
        """The lanes of which something is in memory only: that stands at their end."""
        return [
            lane for lane in self.lanes.lanes.values() if lane.storable and lane.parcels and not lane.parcels[-1].seq
        ]

    def put_all(self) -> None:
        """Store everything that is in memory only."""
        lanes = self.in_memory()
        if lanes:
            self.put(together(lanes))

    def put(self, parcels: list[Parcel]) -> None:
        """Store these in one transaction, which also removes the rows of the journeys that this ends."""
        rows = []
        full: set[Lane] = set()
        for parcel in parcels:
            parcel.seq = self.outbox.number()
            lane = parcel.lane
            if not lane.on_disk:
                lane.on_disk = True
                lane.served = parcel.seq - 1  # a row of before, whose message went on to another action, is not its own
            row = lane.owner.keeper.rows.of(parcel)  # type: ignore[union-attr]
            rows.append(row)
            if lane in full or not self._keeps(parcel, row):
                full.add(lane)  # what comes after it in its lane stays behind it
        self.outbox.put(rows, parcels, _journeys_ended(parcels))

    def _keeps(self, parcel: Parcel, row: Row) -> bool:
        """Whether a message stays in memory, too, and if so, count it."""
        size = row.size()
        if parcel.newcomer or self.outbox.kept + size > KEPT_BYTES or SHOWN in (row.kind, row.body_kind):
            return False
        parcel.kept = size
        self.outbox.kept += size
        return True

    def wants_now(self, lane: Lane) -> bool:
        """Whether what comes to the end of a lane, and is to be stored, goes to the disk at once.

        Behind rows that are in memory, too, and go out well, it has to the next tick: mostly it is delivered by then, or
        before the disk is through with it. What stands behind rows that are on the disk alone cannot be in memory.
        """
        if self.lanes.turns.breaker.open or not self.store_after:
            return True
        last = lane.parcels[-1] if lane.parcels else None
        if last is None or lane.coming or lane.rows or (last.seq and not last.kept) or self._overdue(lane):
            return True
        self._behind.add(lane)
        return False

    def _overdue(self, lane: Lane) -> bool:
        return lane.first > 0.0 and time.monotonic() - lane.first > self.store_after

    def put_behind(self, parcel: Parcel) -> None:
        """Store a newcomer behind its lane's rows."""
        lane = parcel.lane
        before = [lane] if lane in self._behind else _unstored(_ahead(lane))
        parcel.newcomer = True
        lane.coming += 1
        self.put([*together(before), parcel])

    def failed(self, lane: Lane, reason: str) -> None:
        """The head failed and will be tried later: store the lane, or note it on the row and let the memory go."""
        if not lane.parcels[-1].seq:
            self.put(together([lane]))
        head = lane.parcels[0]
        if head.stored:
            first = time.time() - (time.monotonic() - lane.first)
            self.outbox.attempted(head.seq, first, lane.attempts, reason)
            if all(parcel.stored for parcel in lane.parcels):
                let_go(lane, list(lane.parcels))

    async def load(self, lane: Lane) -> None:
        """Take the next rows of a lane into memory."""
        expected = lane.rows  # there may be more: on the disk already, but still to be said and counted by `stored`
        try:
            rows = await self.outbox.rows(self.identity, clean(str(lane.key)), lane.served, min(expected, _ROWS))
        except sqlite3.Error as error:
            self.action.log.error(N_("the outbox cannot be read; trying again"), reason=str(error))
            await asyncio.sleep(_READ_AGAIN)
            return
        if not rows:
            lane.rows -= expected  # a person has moved or dropped them
            return
        for row in rows:
            lane.rows -= 1
            lane.served = row.seq
            reason = unfit(row)
            if reason:
                self.lanes.bury(self.rows.remains(row), Failure(self.identity, reason))
                if not lane.parcels:  # it was the head that was tried
                    lane.attempts, lane.first, lane.error = 0, 0.0, ""
                continue
            if not lane.parcels and not lane.attempts:
                self._age(lane, row)
            parcel = Parcel(lane, self.rows.message(row), time.monotonic())
            parcel.seq = row.seq
            parcel.stored = True
            lane.parcels.append(parcel)

    def _age(self, lane: Lane, head: Row) -> None:
        lane.attempts = head.attempts
        lane.error = head.error or ""
        if head.first is not None:
            lane.first = moment(head.first)


def together(lanes: Iterable[Lane]) -> list[Parcel]:
    """What must be stored in one transaction so that these lanes are: all of each lane, in order, and the lanes where lies,
    not yet stored, what has passed it before, or another part of an arrival among them."""
    todo = list(dict.fromkeys(lanes))
    seen = set(todo)
    found: list[Parcel] = []
    for lane in todo:
        parcels = [parcel for parcel in lane.parcels if not parcel.seq]
        found += parcels
        outcomes = [parcel.msg.outcome for parcel in parcels] + _ahead(lane)
        others = [other for other in _unstored(outcomes) if other not in seen]
        seen.update(others)
        todo += dict.fromkeys(others)
    return found


def store_oldest(lanes: list[Lane]) -> int:
    """Store the quarter of these lanes whose heads have waited longest: those that come after wait for them to be acknowledged,
    and if that does not make room, somebody asks again. How many messages that is."""
    oldest = heapq.nsmallest(-(-len(lanes) // 4), lanes, key=_arrived)
    parcels = together(oldest)
    if parcels and oldest[0].owner.keeper is not None:
        oldest[0].owner.keeper.put(parcels)
    return len(parcels)


def first_unstored(lane: Lane) -> Parcel | None:
    """The first message of a lane that was not put into the outbox."""
    return next((parcel for parcel in lane.parcels if not parcel.seq), None)


def _arrived(lane: Lane) -> float:
    """When that came to its lane."""
    parcel = first_unstored(lane)
    return math.inf if parcel is None else parcel.arrived


def _ahead(lane: Lane) -> list[Outcome]:
    keeper = lane.owner.keeper
    return [] if keeper is None else keeper.ahead.get(lane.key, [])


def _unstored(outcomes: Iterable[Outcome]) -> list[Lane]:
    """The lanes where parts of these arrivals lie that may be stored and are not."""
    parcels = (parcel for outcome in outcomes for parcel in outcome.parcels or ())
    return [parcel.lane for parcel in parcels if parcel.lane.storable and not parcel.ended and not parcel.seq]


def _journeys_ended(parcels: list[Parcel]) -> list[int]:
    """The rows whose journeys end when these parcels are stored."""
    counts: dict[Outcome, int] = {}
    for parcel in parcels:
        if parcel.msg.outcome.row:
            counts[parcel.msg.outcome] = counts.get(parcel.msg.outcome, 0) + 1
    return [outcome.row for outcome, count in counts.items() if outcome.open == count]


def stored(parcels: list[Parcel], new: list[bool]) -> None:
    """The transaction is on the disk: tell the senders, and let the memory go."""
    lanes: dict[Lane, list[Parcel]] = {}
    for parcel, fresh in zip(parcels, new, strict=True):
        lane = parcel.lane
        resident = not parcel.newcomer
        lane.coming -= parcel.newcomer
        if parcel.ended:
            continue
        lanes.setdefault(lane, [])
        if not fresh:
            _leaves(parcel, resident, "duplicate")
            continue
        if parcel.msg.outcome.withdrawn:  # while it waited for the disk its sender was told no
            lane.owner.keeper.outbox.remove(parcel.seq)  # type: ignore[union-attr]
            _leaves(parcel, resident, "withdrawn")
            continue
        parcel.stored = True
        msg = parcel.msg
        if parcel.kept or (lane.flying and resident and lane.parcels[0] is parcel):
            outcome = lane.owner.keeper.rows.journey(parcel.seq)  # type: ignore[union-attr]
            outcome.arrived = msg.outcome.arrived
            outcome.mark = mark_of_row(lane.owner.action.context.identity, clean(msg.id), msg.part)
            parcel.msg = replace(msg, outcome=outcome)
        elif resident:
            lanes[lane].append(parcel)
        else:
            lane.rows += 1
            lane.owner.forget(parcel)
        msg.outcome.stored += 1
        lane.owner.settle_part(msg)
    for lane, resident_ones in lanes.items():
        let_go(lane, resident_ones)
        lane.owner.rouse(lane)


def let_go(lane: Lane, parcels: list[Parcel]) -> None:
    """Take stored parcels out of the memory; they are read again when their turn comes."""
    if not parcels:
        return
    lane.served = parcels[0].seq - 1
    lane.rows += len(parcels)
    for parcel in parcels:
        lane.owner.forget(parcel)
    gone = set(parcels)
    lane.parcels = deque(parcel for parcel in lane.parcels if parcel not in gone)


def _leaves(parcel: Parcel, resident: bool, reason: str) -> None:
    """It is not to be stored after all: a row of the same id was there already, or nobody waits for it any more. It
    ends here, unless it is in flight and ends by itself."""
    lane = parcel.lane
    if resident and lane.flying and lane.parcels[0] is parcel:
        parcel.seq = 0
        return
    if resident:
        lane.parcels.remove(parcel)
    parcel.ended = True
    lane.owner.forget(parcel)
    lane.owner.dropped(parcel.msg, reason)
