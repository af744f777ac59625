"""One lane, a message in it, and which lane a message stands in."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from flowengine.message import Message
from flowengine.node import Answer
from flowengine.template import Template, as_text

if TYPE_CHECKING:  # a lane knows whose it is
    from flowengine.delivery.lanes import Lanes


NO_ORDER = "none"


class Parcel:
    """A message while it is in a lane's memory.

    seq: its row's number once it was put into the outbox, else 0. stored: that row is on the disk. kept: bytes for which it
    stays in memory all the same. ended: it was delivered or given up. twins: messages of the same id that came meanwhile, and
    end with it.
    """

    __slots__ = ("arrived", "ended", "kept", "lane", "msg", "newcomer", "seq", "stored", "twins")

    def __init__(self, lane: Lane, msg: Message, arrived: float) -> None:
        self.lane = lane
        self.msg = msg
        self.arrived = arrived
        self.seq = 0
        self.newcomer = False
        """It went to the disk at once and was never in the lane's memory."""
        self.stored = False
        self.kept = 0
        self.ended = False
        self.twins: list[Message] | None = None


class Lane:
    """The messages of one device on their way to one action.

    parcels: those in memory, the head first. coming: put into the outbox and not yet on the disk. rows: on the disk and
    not in memory, behind the parcels. served: the number of the last row that was taken into memory. Once something was
    put, all that follow are put behind it, until the lane is empty and ceases to be. attempts, first, error: the head's
    (first: monotonic seconds).
    """

    __slots__ = (
        "attempts", "coming", "error", "first", "flying", "key", "on_disk", "owner", "parcels", "queued", "ready_at", "rows",
        "served", "storable", "under_way",
    )  # fmt: skip

    def __init__(self, owner: Lanes, key: Any, storable: bool) -> None:
        self.owner = owner
        self.key = key
        self.storable = storable
        self.parcels: deque[Parcel] = deque()
        self.coming = 0
        self.rows = 0
        self.served = 0
        self.on_disk = False
        self.queued = False
        """It stands among the ready ones, is in flight, or sleeps."""
        self.flying = False
        self.ready_at = 0.0
        self.attempts = 0
        self.first = 0.0
        self.error = ""
        self.under_way: Awaitable[Answer] | None = None

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
