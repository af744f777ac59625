"""What a node is: one class, one docstring, one options struct. Derive from `Step`, `Action`, `Source` or `Connection`.

From the class come validation, defaults, the JSON schema, `flowengine nodes TYPE` and the docs page. The docstring begins with
one line that says what the node does, and has the sections `Guarantees:` and `Example:` (YAML).
"""

from __future__ import annotations

import builtins
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from pathlib import Path as FilePath
from typing import Any, ClassVar, Protocol

import msgspec
import structlog

from flowengine.message import Message, Outcome, Result
from flowengine.options import Routed

_FROZEN: dict[str, Any] = {"frozen": True}
"""Not written out below, since a type checker would then ask every node's Options to say it again."""


class NodeOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, **_FROZEN):
    """Base of all options structs; also of structs inside one. They are frozen: options never change.

    bare: the option that may stand alone, as in `filter: CONDITION`.
    """

    bare: ClassVar[str] = ""


class Context(msgspec.Struct, frozen=True):
    """What the engine tells a node or connection about its place.

    identity: durable, `flow/chain/name` (a connection: `flow/name`). flow: the flow's name. state: its folder for
    what must outlive a restart (None where nothing may be written, as in `check`).
    """

    identity: str = "test/test/test"
    flow: str = "test"
    name: str = "test"
    state: FilePath | None = None


class Problem(msgspec.Struct, frozen=True):
    """Something wrong that only the node can see: the option's name (dots lead inside; empty for the node) and one sentence."""

    option: str
    text: str


class Drop(msgspec.Struct, frozen=True):
    """A step returns `Drop(reason)` to end a message; it is counted under the reason."""

    reason: str


StepResult = Message | Routed | Drop | Iterable[Message | Routed] | None


Answer = Result | Drop | None


class Part:
    """What nodes and connections have in common: a type, options, a place, a log of their own."""

    type: ClassVar[str]
    Options: ClassVar[builtins.type[NodeOptions]] = NodeOptions
    origin: ClassVar[str] = ""

    def __init__(self, options: Any = None, context: Context | None = None) -> None:
        self.options: Any = options if options is not None else self.Options()
        self.context = context or Context()
        self.log: Any = structlog.get_logger(self.context.identity).bind(node=self.context.identity)
        self.setup()

    def setup(self) -> None:
        """Prepare what `options` ask for: called once, at load, also by `check`; does no I/O. Raise OptionError if they clash."""

    def check(self) -> Iterable[Problem]:
        """Say what is wrong with the options together; called by `check` and `run` before anything starts."""
        return ()

    def claims(self) -> Iterable[tuple[Hashable, str]]:
        """What only one may have: pairs of a key and its words for the person who reads the error (`POST /`, a client id)."""
        return ()

    async def open(self) -> None:
        """Acquire what is needed; raises StartError with what to do. Called in the event loop before any message comes."""

    async def close(self) -> None:
        """Release it. Called once after the last message, also when `open` failed."""


class Node(Part):
    """Base of the three kinds of node."""

    def metadata(self) -> Iterable[str]:
        """The names that messages know (`{name}`) after this node and not before it."""
        return ()


class Step(Node):
    """A node that only computes: a message in, a message, several, none or a route out. Most nodes are steps.

    comes_back: the messages it routes come back to its chain (`Route.call`).
    """

    comes_back: ClassVar[bool] = False

    def process(self, msg: Message) -> StepResult:
        """Return the message or a new one, an iterable of them, None or `Drop(reason)`, or `route.to(msg)`.

        Called in the event loop: never block. An exception fails this message alone, and `on_error` has it; raise
        `Reject(reason)` for what is wrong with the message itself.
        """
        raise TypeError(f"{type(self).__name__} has no process()")

    def passes_on(self) -> bool:
        """Whether a message can reach the next node of the chain (checked at load)."""
        return True


class Action(Node):
    """A node that speaks to the outside and hears yes or no.

    Order, concurrency, retry and dead letters are the engine's. `deliver` may be `async def`; a plain `def` runs in a
    thread, unless `inline` is true: then it is called on the spot, must not block, and may return an awaitable where
    it cannot answer at once.
    """

    inline: ClassVar[bool] = False
    expire_after: float | None = None
    """Seconds after its arrival from which a message is worthless, where the flow says so; the engine sets it at load."""

    alone: Callable[[], bool] = bool  # bool() is False
    """Whether the message handed over now goes alone, as a probe after failures or as what may have ended the process before: no
    other comes until it has its answer. The engine sets it at load."""

    def time_left(self, msg: Message) -> float | None:
        """How many seconds are left until the message is worthless, for a far end that can be told; None: it never is."""
        if self.expire_after is None:
            return None
        return self.expire_after - (time.monotonic() - msg.outcome.arrived)

    @property
    def at_once(self) -> int:
        """How many messages may be under way at once, where the flow does not say (`delivery: {concurrency: ...}`). So many are
        only where the far end takes long and messages wait for their turn."""
        return 128

    @property
    def together(self) -> int:
        """How many messages it sends in one piece: so many are under way at once also where the far end is fast."""
        return 1

    @property
    def confirming(self) -> bool:
        """Whether a yes means that the far end has the message."""
        return True

    def prepare(self, msg: Message) -> Any:
        """The body as it will be sent, where that is not the payload; None where it is. It is made when the message goes to
        the disk, and `deliver` finds it in `msg.body`, also after a restart with another flow file."""
        return None

    def deliver(self, msg: Message) -> Awaitable[Answer] | Answer:
        """Bring the message to the far end; return what it said, or None; `Drop(reason)` where the message is worthless now.

        Raises Retry(reason, after=seconds) for what may go better later, Reject(reason) for what never will. Network
        errors (OSError, TimeoutError) count as Retry; any other exception as Reject.
        """
        raise TypeError(f"{type(self).__name__} has no deliver()")


class Emit(Protocol):
    """How a source hands a message to its chain."""

    def __call__(
        self,
        payload: Any,
        meta: Mapping[str, Any],
        settled: Callable[[Outcome], None] | None = None,
        *,
        store: bool = True,
        expendable: bool = False,
        size: int = 0,
    ) -> Outcome:
        """Take a message in. Returns what will become of it; `settled` is called once, when all its parts are settled
        or stored.

        store: whether it may wait on the disk; not where somebody waits for the answer. expendable: when there is no
        room it may be dropped and counted, since its sender expects no yes. size: how many bytes it takes, where the
        payload is neither bytes nor a text. Raises Busy when there is no room, Stopping
        when the flow takes nothing new: whoever sent it must send it again.
        """

    def press(self) -> None:
        """Ask for room: what is unsettled is stored soon, so that its senders can be told yes."""


class Source(Node):
    """A node where messages come in; it stands first in its chain.

    It says yes to whoever sent a message only when the outcome is settled.
    """

    async def run(self, emit: Emit) -> None:
        """Hand each message to `emit` until cancelled. A source that listens through a connection registers there
        before its first await. If it raises, it is said in the log and run again, with backoff."""
        raise TypeError(f"{type(self).__name__} has no run()")

    def left_out(self) -> None:
        """The flow could not start, so `run` will not be called. Called before connections start: what waits for this source at a
        connection that serves other flows, too, must go on waiting."""


class Connection(Part):
    """Something shared that nodes talk through: an MQTT session, an HTTP listener.

    Order: `open` of all connections, then the sources, then `start` of all connections, so that nothing comes in before somebody
    listens. At the end: `stop` (take nothing new), what is under way settles, then `close`.
    """

    async def start(self) -> None:
        """Let messages in."""

    async def stop(self) -> None:
        """Take nothing new; what was taken may still be answered and acknowledged."""

    def ready(self) -> str | None:
        """What listens or is subscribed, for the `ready` line; None while it is not."""
        return ""
