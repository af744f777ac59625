"""When a message is stored, and how it comes back: the storing rule of one action.

A message goes to the disk when its delivery has not succeeded `store_after` from its first attempt, when it has waited
2 s for one, when an attempt failed, when the breaker is open, when its lane has rows already, or when the engine asks
for room. It is stored together with all that stand before it in its lane, and with the other parts of its arrival that
are not settled, in one transaction. From then on its sender may be told yes. What is stored stays in memory, too,
at the front of its lane and as far as there is room; the rest is let go, and read again a few rows at a time when its turn
comes.
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

import msgspec
from msgspec.structs import replace

from flowengine.delivery.lane import Lane, Parcel
from flowengine.delivery.outbox import SHOWN, Outbox, Remains, Row, Waiting, clean, packed, packed_names, unpacked
from flowengine.delivery.poison import mark_of_row
from flowengine.errors import FAULTS
from flowengine.i18n import N_, _
from flowengine.message import Failure, Message, Outcome, Result

if TYPE_CHECKING:
    from flowengine.delivery.lanes import Lanes

KEPT_BYTES = 8 << 20
"""How much of what is on the disk may stay in memory: a backlog of a moment is not read again."""
WAITED = 2.0
_SCAN_EVERY = 5
_ROWS = 16
_READ_AGAIN = 1.0
_ZERO = time.time() - time.monotonic()
"""What the wall clock showed at zero of the monotonic one when the process began. Ages are reckoned by it: a wall clock
that is set while messages wait makes none of them older or younger."""
_SAME = 1.0


class Frames:
    """How a message's way back out of `run` chains is written into a row, and read again. The runtime knows; see
    `runtime.flow`."""

    def write(self, msg: Message) -> list[str]:
        """The durable identities of the nodes that wait for the message to come back."""
        return []

    def read(self, names: list[str]) -> tuple[tuple[Any, int], ...]:
        """The places again; those that are no more are left out."""
        return ()


class Keeper:
    """Keeps the messages of one action."""

    def __init__(self, lanes: Lanes, outbox: Outbox, frames: Frames) -> None:
        self.lanes = lanes
        self.outbox = outbox
        self.frames = frames
        self.action = lanes.action
        self.identity = lanes.action.context.identity
        self.store_after = lanes.settings.store_after.seconds
        self.ahead: dict[Any, list[Outcome]] = {}
        """Lane by lane: arrivals that have passed this action and are neither settled nor stored at the next."""
        self.watching = False
        """Whether it looks after what is in memory at every tick."""
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
        if due:
            self.put(together(due))
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
            row = lane.owner.keeper._row(parcel)  # type: ignore[union-attr]
            rows.append(row)
            if lane in full or not self._keeps(parcel, row):
                full.add(lane)  # what comes after it in its lane stays behind it
        self.outbox.put(rows, parcels, lambda new: _stored(parcels, new), _journeys_ended(parcels))

    def _keeps(self, parcel: Parcel, row: Row) -> bool:
        """Whether a message stays in memory, too, and if so, count it."""
        size = row.size()
        if parcel.newcomer or self.outbox.kept + size > KEPT_BYTES or SHOWN in (row.kind, row.body_kind):
            return False
        parcel.kept = size
        self.outbox.kept += size
        return True

    def put_behind(self, parcel: Parcel) -> None:
        """Store a newcomer behind its lane's rows."""
        parcel.newcomer = True
        parcel.lane.coming += 1
        self.put([*together(_unstored(_ahead(parcel.lane))), parcel])

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
        expected = lane.rows  # there may be more: on the disk already, but still to be said and counted by `_stored`
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
            unfit = _unfit(row)
            if unfit:
                self._bury(row, unfit)
                if not lane.parcels:  # it was the head that was tried
                    lane.attempts, lane.first, lane.error = 0, 0.0, ""
                continue
            if not lane.parcels and not lane.attempts:
                self._age(lane, row)
            parcel = Parcel(lane, self._message(row), time.monotonic())
            parcel.seq = row.seq
            parcel.stored = True
            lane.parcels.append(parcel)

    def _bury(self, row: Row, reason: str) -> None:
        """What is not the message any more is never sent, also not by a replay."""
        msg = Message(Remains(row.payload), _meta(row), row.id, row.arrived, journey(self.outbox, row.seq), row.part)
        self.lanes.bury(msg, Failure(self.identity, reason))

    def _age(self, lane: Lane, head: Row) -> None:
        lane.attempts = head.attempts
        lane.error = head.error or ""
        if head.first is not None:
            lane.first = _moment(head.first)

    def _row(self, parcel: Parcel) -> Row:
        msg, lane = parcel.msg, parcel.lane
        payload, kind = packed(msg.payload)
        body, body_kind = None, None
        try:
            prepared = msg.body if msg.body is not None else self.action.prepare(msg)
            if prepared is not None:
                body, body_kind = packed(prepared)
        except FAULTS:
            body = None  # what is wrong with it, its attempt will say
        since = _ZERO + msg.outcome.arrived
        clock_was_set = abs(since - msg.time) > _SAME
        more = {
            "since": since if clock_was_set else None,
            "result": msg.result,
            "error": msg.error,
            "acted": msg.acted,
            "frames": self.frames.write(msg),
        }
        extra = packed_names({k: v for k, v in more.items() if v}) if any(more.values()) else None
        meta = packed_names(dict(msg.meta))
        head = lane.parcels[0] if lane.parcels else None
        tried = parcel is head and lane.first > 0
        first = time.time() - (time.monotonic() - lane.first) if tried else None
        return Row(
            parcel.seq, self.identity, clean(str(lane.key)), clean(msg.id), msg.part, msg.time, first,
            lane.attempts if tried else 0, clean(lane.error) or None, payload, kind, body, body_kind, meta, extra,
        )  # fmt: skip

    def _message(self, row: Row) -> Message:
        """The message that a row holds, on a journey of its own that ends with the row's removal."""
        outcome = journey(self.outbox, row.seq)
        outcome.mark = mark_of_row(row.action, row.id, row.part)
        more = msgspec.json.decode(row.more) if row.more else {}
        of_this_run = row.seq >= self.outbox.first
        outcome.arrived = _moment(more.get("since", row.arrived) if of_this_run else row.arrived)
        body = unpacked(row.body, row.body_kind or 0) if row.body is not None else None
        return Message(
            unpacked(row.payload, row.kind),
            msgspec.json.decode(row.meta),
            row.id,
            row.arrived,
            outcome,
            row.part,
            result=msgspec.convert(more["result"], Result) if more.get("result") else None,
            error=msgspec.convert(more["error"], Failure) if more.get("error") else None,
            acted=bool(more.get("acted")),
            frames=self.frames.read(more.get("frames", [])),
            body=body,
        )


def _unfit(row: Row) -> str:
    """Why a row is not the message any more, or nothing."""
    if row.checksum != row.sum():
        return _("its row in the outbox is damaged: the checksum does not fit")
    if (row.kind if row.body is None else row.body_kind) == SHOWN:
        return _("its payload could not be stored: it can be written neither as it is nor as JSON")
    return ""


def _meta(row: Row) -> dict[str, Any]:
    """What is known of a message whose row may be damaged."""
    try:
        return msgspec.json.decode(row.meta, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


def _moment(wall: float) -> float:
    """When that was, in seconds of `time.monotonic()`; no age is negative."""
    return min(wall - _ZERO, time.monotonic())


def journey(outbox: Outbox, seq: int) -> Outcome:
    """The outcome of a stored message: when all that comes of it is settled or stored, its row goes."""
    outcome = Outcome(lambda _outcome: outbox.remove(seq))
    outcome.row = seq
    return outcome


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


def store_oldest(lanes: list[Lane]) -> None:
    """Store the quarter of these lanes whose heads have waited longest: those that come after wait for them to be acknowledged,
    and if that does not make room, somebody asks again."""
    oldest = heapq.nsmallest(-(-len(lanes) // 4), lanes, key=_arrived)
    if oldest and oldest[0].owner.keeper is not None:
        oldest[0].owner.keeper.put(together(oldest))


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


def _stored(parcels: list[Parcel], new: list[bool]) -> None:
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
            outcome = journey(lane.owner.keeper.outbox, parcel.seq)  # type: ignore[union-attr]
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
