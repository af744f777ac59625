"""A chain at work: plain calls, one loop, one `try`. No task, queue or copy per node.

`advance` carries a message through its chain until it ends, an action has taken it, or it was split into parts that went on by
themselves. It never raises: what a node raises is that message's own affair, and `on_error` has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from flowengine.errors import Reject
from flowengine.flowfile.model import NodeDef
from flowengine.i18n import _
from flowengine.message import Failure, Message
from flowengine.node import Drop, StepResult
from flowengine.options import Route, Routed

TAKEN: Any = object()
"""What an action's place in the chain returns when the message waits there for its turn."""

StepCall = Callable[[Message], StepResult]


class Ledger(Protocol):
    """Who keeps the books of a chain's flow and settles its messages."""

    def finish(self, msg: Message) -> None: ...
    def drop(self, msg: Message, reason: str) -> None: ...
    def bury(self, msg: Message, failure: Failure) -> None: ...
    def more(self, msg: Message, parts: int) -> None: ...
    def failed(self, node: NodeDef, msg: Message, error: BaseException) -> None: ...


class Chain:
    """One compiled chain: a call per node, and the nodes for what has to be said about them."""

    __slots__ = ("ledger", "name", "nodes", "steps")

    def __init__(self, name: str, ledger: Ledger) -> None:
        self.name = name
        self.ledger = ledger
        self.nodes: list[NodeDef] = []
        self.steps: list[StepCall] = []


def advance(chain: Chain, at: int, msg: Message) -> None:
    """Carry `msg` on from the node at place `at`."""
    while True:
        try:
            out: Any = msg
            while at < len(chain.steps):
                out = chain.steps[at](msg)
                if type(out) is not Message:
                    break
                msg = out
                at += 1
            if out is TAKEN:
                return
            if at == len(chain.steps):
                if not msg.frames:
                    chain.ledger.finish(msg)
                    return
                chain, at = msg.frames[-1]
                msg = msg._but(frames=msg.frames[:-1])
                continue
            if type(out) is not Routed and out is not None and type(out) is not Drop:
                out = _parts(out, msg)
        except Exception as error:
            out = _on_error(chain, at, msg, error)
        if type(out) is Routed:
            onward = _follow(chain, at, out)
            if onward is None:
                return
            chain, at, msg = onward
        elif type(out) is list:
            _fan_out(chain, at, msg, out)
            return
        else:
            chain.ledger.drop(msg, out.reason if type(out) is Drop else chain.nodes[at].name)
            return


def fail(chain: Chain, at: int, msg: Message, error: BaseException, attempts: int = 0) -> None:
    """The node at place `at` has given `msg` up: on with it, once, where its `on_error` says."""
    onward = _follow(chain, at, _on_error(chain, at, msg, error, attempts))
    if onward is not None:
        advance(*onward)


_DEAD = Route("dead")


def _on_error(chain: Chain, at: int, msg: Message, error: BaseException, attempts: int = 0) -> Routed:
    node = chain.nodes[at]
    chain.ledger.failed(node, msg, error)
    expected = isinstance(error, Reject)
    reason = str(error) if expected else f"{type(error).__name__}: {error}"
    status = getattr(error, "status", None)
    failure = Failure(node.node.context.identity, reason, status, attempts)
    return (node.keys.on_error or _DEAD).to(msg._but(error=failure))


def _follow(chain: Chain, at: int, routed: Routed) -> tuple[Chain, int, Message] | None:
    """Where a routed message goes on, or None where it has ended."""
    target, msg = routed.route.target, routed.msg
    if type(target) is Chain:
        if routed.comes_back:
            msg = msg._but(frames=(*msg.frames, (chain, at + 1)))
        elif msg.frames:
            msg = msg._but(frames=())  # a route leaves and does not come back, also not to whoever ran this chain
        return target, 0, msg
    if target == "next":
        return chain, at + 1, msg
    node = chain.nodes[at]
    if target == "dead":
        chain.ledger.bury(
            msg, msg.error or Failure(node.node.context.identity, _("the flow sends it to the dead letters"))
        )
    else:
        chain.ledger.drop(msg, msg.error.reason if msg.error else node.name)
    return None


def _parts(out: Any, msg: Message) -> list[Message | Routed]:
    """What an iterable gives, each part with a number of its own."""
    parts: list[Message | Routed] = []
    for number, part in enumerate(out):
        place = f"{msg.part}.{number}" if msg.part else str(number)
        if type(part) is Message:
            parts.append(part._but(part=place))
        elif type(part) is Routed:
            parts.append(Routed(part.route, part.msg._but(part=place), part.comes_back))
        else:
            raise TypeError(f"process() gave {type(part).__name__}, not a message or a route")
    return parts


def _fan_out(chain: Chain, at: int, msg: Message, parts: list[Message | Routed]) -> None:
    """Send each part on by itself; none at all means that the message is dropped."""
    if not parts:
        chain.ledger.drop(msg, chain.nodes[at].name)
        return
    chain.ledger.more(msg, len(parts) - 1)
    for part in parts:
        if type(part) is Routed:
            onward = _follow(chain, at, part)
            if onward is not None:
                advance(*onward)
        else:
            advance(chain, at + 1, part)  # type: ignore[arg-type]
