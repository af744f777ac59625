"""A chain at work: plain calls, one loop, one `try`. No task, queue or copy per node.

`advance` carries a message through its chain until it has ended or an action has taken it, and after it, in order, the parts
that it was split into. It never raises: what a node raises is that message's own affair, and `on_error` has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from msgspec.structs import replace

from flowengine.errors import FAULTS, reason_of
from flowengine.flowfile.model import NodeDef
from flowengine.i18n import _
from flowengine.message import Failure, Message, Outcome
from flowengine.node import Drop, StepResult
from flowengine.options import Route, Routed

TAKEN: Any = object()
"""What an action's place in the chain returns when the message waits there for its turn."""

StepCall = Callable[[Message], StepResult]


class Ledger(Protocol):
    """Who keeps the books of a chain's flow and settles its messages. Nothing here raises."""

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


Place = tuple[Chain, int, Message]
"""A message and the node it comes to next."""


def advance(chain: Chain, at: int, msg: Message) -> None:
    """Carry `msg` on from the node at place `at`."""
    waiting: list[tuple[Chain, int, Message | Routed]] = []  # the parts whose turn has not come, the first one last
    while True:
        out: Any = msg
        steps, outcome, end = chain.steps, msg.outcome, len(chain.steps)
        try:
            while at < end:
                out = steps[at](msg)
                if type(out) is Message and out.outcome is outcome:
                    msg = out
                    at += 1
                    continue
                if type(out) is not Routed or not _leaves(out, outcome):
                    out = _read(out, msg)
                    break
                chain, at, msg = out.route.target, 0, out.msg
                out, steps, end = msg, chain.steps, len(chain.steps)
        except FAULTS as error:
            out = _on_error(chain, at, msg, error)
        place = None if out is TAKEN else _after(chain, at, msg, out, waiting)
        while place is None:
            if not waiting:
                return
            chain, at, part = waiting.pop()
            place = _follow(chain, at, part) if type(part) is Routed else (chain, at + 1, part)  # type: ignore[assignment]
        chain, at, msg = place


def _leaves(routed: Routed, outcome: Outcome) -> bool:
    """Whether it is what nearly every route is: the message, on its way to the beginning of another chain for good."""
    msg = routed.msg
    to_chain = type(routed.route.target) is Chain and not routed.comes_back
    return to_chain and type(msg) is Message and msg.outcome is outcome and not msg.frames


def fail(chain: Chain, at: int, msg: Message, error: BaseException, attempts: int = 0) -> None:
    """The node at place `at` has given `msg` up: on with it, once, where its `on_error` says."""
    onward = _follow(chain, at, _on_error(chain, at, msg, error, attempts))
    if onward is not None:
        advance(*onward)


_DEAD = Route("dead")


def _on_error(chain: Chain, at: int, msg: Message, error: BaseException, attempts: int = 0) -> Routed:
    node = chain.nodes[at]
    chain.ledger.failed(node, msg, error)
    failure = Failure(node.node.context.identity, reason_of(error), getattr(error, "status", None), attempts)
    return (node.keys.on_error or _DEAD).to(replace(msg, error=failure))


def _after(
    chain: Chain, at: int, msg: Message, out: Any, waiting: list[tuple[Chain, int, Message | Routed]]
) -> Place | None:
    """Where it goes on after what the node at place `at` gave, or, if that is a Message, after the end of the chain."""
    if type(out) is Routed:
        return _follow(chain, at, out)
    if type(out) is Message:
        if msg.frames:  # back to the chain that ran this one
            back, next_at = msg.frames[-1]
            return back, next_at, replace(msg, frames=msg.frames[:-1])
        chain.ledger.finish(msg)
    elif type(out) is list and out:
        if len(out) > 1:
            chain.ledger.more(msg, len(out) - 1)
        waiting += [(chain, at, part) for part in reversed(out)]
    else:
        chain.ledger.drop(msg, out.reason if type(out) is Drop else chain.nodes[at].name)
    return None


def _follow(chain: Chain, at: int, routed: Routed) -> Place | None:
    """Where a routed message goes on, or None where it has ended."""
    target, msg = routed.route.target, routed.msg
    if type(target) is Chain:
        if routed.comes_back:
            msg = replace(msg, frames=(*msg.frames, (chain, at + 1)))
        elif msg.frames:
            msg = replace(msg, frames=())  # a route leaves and does not come back, also not to whoever ran this chain
        return target, 0, msg
    if target == "next":
        return chain, at + 1, msg
    node = chain.nodes[at]
    if target == "drop":
        chain.ledger.drop(msg, node.name)
        return None
    failure = msg.error
    if failure is None or failure.node != node.node.context.identity:  # an error of before is not why it ends here
        reason = _("the flow sends it to the dead letters") if target == "dead" else _("there is no chain '{name}'")
        failure = Failure(node.node.context.identity, reason.format(name=target))
    chain.ledger.bury(msg, failure)
    return None


def _read(out: Any, msg: Message) -> Any:
    """What a node gave that is not simply the next message; an iterable as a list, each part with a number of its own."""
    if out is None or out is TAKEN or type(out) is Drop:
        return out
    if type(out) is Routed or type(out) is Message:
        return _checked(out, msg)
    if type(out) is not list and (isinstance(out, str | bytes | Mapping) or not isinstance(out, Iterable)):
        raise TypeError(_("process() returned {type}, which is no message").format(type=type(out).__name__))
    parts: list[Message | Routed] = []
    for number, part in enumerate(out):
        place = f"{msg.part}.{number}" if msg.part else str(number)
        if (type(part) is not Message or part.outcome is not msg.outcome) and type(_checked(part, msg)) is Routed:
            parts.append(Routed(part.route, replace(part.msg, part=place), part.comes_back))
        else:
            parts.append(replace(part, part=place))
    return parts


def _checked(out: Any, msg: Message) -> Any:
    """`out`, if it is made from `msg`: another message would be settled twice, and this one never."""
    made = out.msg if type(out) is Routed else out
    if type(made) is not Message:
        raise TypeError(_("process() gave {type}, which is no message").format(type=type(made).__name__))
    if made.outcome is not msg.outcome:
        raise TypeError(_("process() gave another message: make it with msg.with_payload() or msg.with_meta()"))
    return out
