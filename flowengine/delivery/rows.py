"""How a message becomes a row of the outbox, and how it comes back."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from flowengine.delivery.lane import Parcel
from flowengine.delivery.outbox import SHOWN, Outbox, Remains, Row, clean, packed, packed_names, unpacked
from flowengine.delivery.poison import mark_of_row
from flowengine.errors import FAULTS
from flowengine.i18n import _
from flowengine.message import Failure, Message, Outcome, Result
from flowengine.node import Action

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


class Rows:
    """The rows of one action."""

    def __init__(self, action: Action, outbox: Outbox, frames: Frames) -> None:
        self.action = action
        self.identity = action.context.identity
        self.outbox = outbox
        self.frames = frames

    def of(self, parcel: Parcel) -> Row:
        """The row that holds a message, as it stands in its lane now."""
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

    def message(self, row: Row) -> Message:
        """The message that a row holds, on a journey of its own that ends with the row's removal."""
        outcome = self.journey(row.seq)
        outcome.mark = mark_of_row(row.action, row.id, row.part)
        more = msgspec.json.decode(row.more) if row.more else {}
        of_this_run = row.seq >= self.outbox.first
        outcome.arrived = moment(more.get("since", row.arrived) if of_this_run else row.arrived)
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

    def remains(self, row: Row) -> Message:
        """What is left of a message whose row is unfit: for a person to see, never to be sent."""
        return Message(Remains(row.payload), _known(row), row.id, row.arrived, self.journey(row.seq), row.part)

    def journey(self, seq: int) -> Outcome:
        """The outcome of a stored message: when all that comes of it is settled or stored, its row goes."""
        outbox = self.outbox
        outcome = Outcome(lambda _outcome: outbox.remove(seq))
        outcome.row = seq
        return outcome


def unfit(row: Row) -> str:
    """Why a row is not the message any more, or nothing."""
    if row.checksum != row.sum():
        return _("its row in the outbox is damaged: the checksum does not fit")
    if (row.kind if row.body is None else row.body_kind) == SHOWN:
        return _("its payload could not be stored: it can be written neither as it is nor as JSON")
    return ""


def _known(row: Row) -> dict[str, Any]:
    """What is known of a message whose row may be damaged."""
    try:
        return msgspec.json.decode(row.meta, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


def moment(wall: float) -> float:
    """When that was, in seconds of `time.monotonic()`; no age is negative."""
    return min(wall - _ZERO, time.monotonic())
