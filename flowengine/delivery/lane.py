"""One lane, a message in it, and which lane a message stands in."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from flowengine.message import Message
from flowengine.node import Answer
from flowengine.template import Template, as_text

if TYPE_CHECKING:  # a lane knows whose it is
    from flowengine.delivery.lanes import Lanes


NO_ORDER = "none"


class Parcel(msgspec.Struct, eq=False):
    """A message while it is in a lane's memory.

    seq: its row's number once it was put into the outbox, else 0. newcomer: it went to the disk at once and was never in the
    lane's memory. stored: that row is on the disk. kept: bytes for which it stays in memory all the same. ended: it was delivered
    or given up. twins: messages of the same id that came meanwhile, and end with it.
    """

    lane: Lane
    msg: Message
    arrived: float
    seq: int = 0
    newcomer: bool = False
    stored: bool = False
    kept: int = 0
    ended: bool = False
    twins: list[Message] | None = None


class Lane(msgspec.Struct, eq=False):
    """The messages of one device on their way to one action.

    parcels: those in memory, the head first. coming: put into the outbox and not yet on the disk. rows: on the disk and
    not in memory, behind the parcels. served: the number of the last row that was taken into memory. on_disk: once something
    was put, all that follow are put behind it, at once or at the next tick, until the lane is empty and ceases to be. queued: it
    stands among the ready ones, is in flight, or sleeps. attempts, first, error: the head's (first: monotonic seconds).
    """

    owner: Lanes
    key: Any
    storable: bool
    parcels: deque[Parcel] = msgspec.field(default_factory=deque)
    coming: int = 0
    rows: int = 0
    served: int = 0
    on_disk: bool = False
    queued: bool = False
    flying: bool = False
    ready_at: float = 0.0
    attempts: int = 0
    first: float = 0.0
    error: str = ""
    under_way: Awaitable[Answer] | None = None

    def __len__(self) -> int:
        return len(self.parcels) + self.coming + self.rows


def key_of(order_by: Template | None) -> Callable[[Message], Any]:
    """What tells a message's lane: by default its device, else its topic; what has neither has a lane of its own."""
    if order_by is None:
        return _by_device
    return _own_lane if order_by.text == NO_ORDER else order_by.render


def _by_device(msg: Message) -> Any:
    key = msg.meta.get("device") or msg.meta.get("topic")
    if type(key) is str:
        return key
    return _own_lane(msg) if key is None else as_text(key)


def _own_lane(msg: Message) -> str:
    return f"#{msg.id}/{msg.part}"
