"""What travels through a chain: the message, what an action heard, why a node failed, and what became of an arrival."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, Literal

import msgspec

_replace = msgspec.structs.replace
State = Literal["pending", "stored", "delivered", "dropped", "dead", "withdrawn"]


class Result(msgspec.Struct, frozen=True):
    """What the far end answered to an action; `{result.status}` and so on until the next action."""

    status: int | str | None = None
    headers: Mapping[str, str] = {}
    body: Any = None


class Failure(msgspec.Struct, frozen=True):
    """Why a node gave a message up; `{error.reason}` and so on in the chain that `on_error` names."""

    node: str
    reason: str
    status: int | str | None = None
    attempts: int = 0


class Reply(msgspec.Struct, frozen=True):
    """What a source should answer to whoever sent the message (see the node `http-reply`)."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = {}


class Budget:
    """How many bytes of messages may be in memory, neither settled nor stored, and how many are."""

    __slots__ = ("bound", "used")

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.used = 0


class Outcome(msgspec.Struct, eq=False):
    """What became of one arrival: it counts the parts that are still under way and says when the last is settled.

    A source gets it from `emit`. It may be awaited, or a callback given to `emit` is called once, in the event loop, when no part
    is left that is neither settled nor stored. `state` is then `dead` if any part is dead, else `stored` if any waits on the
    disk, else `delivered` if any was delivered, else `dropped`.
    """

    _settled: Callable[[Outcome], None] | None = None
    arrived: float = msgspec.field(default_factory=time.monotonic)
    """For ages within a run: a wall clock may be set while a message waits."""
    open: int = 1
    delivered: int = 0
    dropped: int = 0
    dead: int = 0
    stored: int = 0
    reason: str = ""
    reply: Reply | None = None
    withdrawn: bool = False
    storable: bool = True
    """Whether it may be stored; what somebody waits for may not."""
    size: int = 0
    budget: Budget | None = None
    mark: bytes = b"\0" * 16
    """What tells it again after a restart; see `delivery.poison`."""
    row: int = 0
    """The row of the outbox that it came from, if it did."""
    parcels: list[Any] | None = None
    """Where its parts lie, if there are several."""
    _waiter: asyncio.Future[None] | None = None

    @property
    def state(self) -> State:
        """`pending` while a part is under way, then the worst that a part came to."""
        if self.open:
            return "withdrawn" if self.withdrawn else "pending"
        if self.dead:
            return "dead"
        if self.stored:
            return "stored"
        return "delivered" if self.delivered else "dropped"

    def withdraw(self) -> None:
        """Nobody waits for this any more: parts not yet in flight are dropped when their turn comes."""
        self.withdrawn = True

    def close_part(self) -> None:
        """One part is settled or stored (the engine calls this, after it counted the part)."""
        self.open -= 1
        if self.open:
            return
        if self.budget is not None:
            self.budget.used -= self.size
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self._settled is not None:
            self._settled(self)

    def __await__(self) -> Generator[Any, None, Outcome]:
        if self.open:
            if self._waiter is None:
                self._waiter = asyncio.get_running_loop().create_future()
            yield from asyncio.shield(self._waiter)  # one who waits no longer does not end it for the others
        return self


class Message(msgspec.Struct, frozen=True):
    """One message. Nodes never change it: `with_payload` and `with_meta` return a new one.

    payload: what the message says; bytes as they came, or whatever the last step made of them.
    meta: what is known about it by name (`topic`, `device`, `qos`, what `keep` stored).
    id: minted at arrival (UUIDv7, RFC 9562 section 5.7), or made from content by `delivery: {id_from: ...}`.
    time: arrival, in seconds since the epoch.
    part: tells the parts of one arrival apart: the places in the splits it went through, "0", "0.2".
    result, error: see `Result`, `Failure`.
    outcome: what becomes of the whole arrival.
    body: what `Action.prepare` made of it, where it waited on the disk.
    """

    payload: Any
    meta: Mapping[str, Any]
    id: str
    time: float
    outcome: Outcome
    part: str = ""
    result: Result | None = None
    error: Failure | None = None
    acted: bool = False
    frames: tuple[tuple[Any, int], ...] = ()
    body: Any = None

    def with_payload(self, payload: Any) -> Message:
        """The same message with another payload."""
        return _replace(self, payload=payload, body=None)

    def with_meta(self, **names: Any) -> Message:
        """The same message that also knows `names`."""
        return _replace(self, meta={**self.meta, **names})


_seed = int.from_bytes(os.urandom(8), "big") >> 2  # the 62 bits of rand_b
_rest = f"{0x8000 | _seed >> 48:04x}-"
_count = _seed & 0x7FFF_FFFF_FFFF
_last_ms = 0
_head = ""


def new_id() -> str:
    """A UUIDv7 (RFC 9562 section 5.7, method 2 of 6.2: a counter seeded at random in place of the random bits)."""
    global _count, _last_ms, _head
    now = time.time_ns() // 1_000_000
    if now > _last_ms:  # a clock that goes back does not take the ids with it
        _last_ms = now
        _head = f"{now >> 16:08x}-{now & 0xFFFF:04x}-7000-{_rest}"
    _count += 1  # from below 2**47: no run makes so many messages that it would need more than 48 bits
    return f"{_head}{_count:012x}"
