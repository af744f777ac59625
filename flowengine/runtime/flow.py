"""One flow at work: its chains compiled, its sources running, its books."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from threading import get_ident
from typing import Any

import structlog

from flowengine.delivery.deadletters import DeadLetters
from flowengine.delivery.lane import Lane
from flowengine.delivery.lanes import Lanes
from flowengine.delivery.outbox import Outbox, Waiting
from flowengine.delivery.poison import NONE, Watch, mark_of, verdict
from flowengine.delivery.rows import Frames
from flowengine.delivery.settings import Delivery
from flowengine.errors import FAULTS, Busy, Reject, Stopping, cancelled, reason_of
from flowengine.flowfile.model import ChainDef, FlowDef, NodeDef
from flowengine.i18n import N_
from flowengine.logs import shorten
from flowengine.message import Budget, Failure, Message, Outcome, new_id
from flowengine.node import Action, Emit, Source, Step
from flowengine.runtime.books import Books
from flowengine.runtime.chain import TAKEN, Chain, StepCall, advance, fail

_SAY_EVERY = 1.0
_SOURCE_BACKOFF = (1.0, 60.0)
_STOP_WITHIN = 1.0
_ALONE_WITHIN = 2.0


class FlowRun:
    """A compiled flow. It settles its messages and keeps their books; the engine starts and stops it."""

    def __init__(
        self, flow: FlowDef, dead_letters: DeadLetters | None, budget: Budget, press: Callable[[], None], watch: Watch
    ) -> None:
        self.flow = flow
        self.books = Books()
        self.log: Any = structlog.get_logger(flow.name).bind(flow=flow.name)
        self.stopping = False
        self.failed_to_start = ""
        self.dead_letters = dead_letters
        self.budget = budget
        self.press = press
        self.watch = watch
        self.burying = 0
        self.lanes: list[Lanes] = []
        self.sources: list[tuple[Source, Chain]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._said: dict[str, tuple[float, int]] = {}
        self.chains = {name: Chain(name, self) for name in flow.chains}
        steps = (node.node for chain in flow.chains.values() for node in chain.nodes)
        self._comes_back = any(isinstance(step, Step) and step.comes_back for step in steps)
        for definition in flow.chains.values():
            self._compile(definition)
        self.places = {f"{flow.name}/{name}": (chain, 0) for name, chain in self.chains.items()}
        """Where a message comes in, by the durable identity of a node, or of a chain for its beginning."""
        for chain in self.chains.values():
            self.places.update((node.node.context.identity, (chain, at)) for at, node in enumerate(chain.nodes))

    def _compile(self, definition: ChainDef) -> None:
        chain = self.chains[definition.name]
        for node in definition.nodes:
            for route, _mark in node.routes:
                route.target = self.chains.get(route.text, route.text)
            if isinstance(node.node, Source):
                self.sources.append((node.node, chain))
                continue
            chain.nodes.append(node)
            chain.steps.append(self._step(chain, len(chain.steps), node))

    def _step(self, chain: Chain, at: int, node: NodeDef) -> StepCall:
        call: StepCall
        if isinstance(node.node, Action):
            call = self._action(chain, at, node)
        else:
            assert isinstance(node.node, Step)
            call = node.node.process
        if node.keys.when is None:
            return call
        test, inner = node.keys.when.test, call
        return lambda msg: inner(msg) if test(msg) else msg

    def _action(self, chain: Chain, at: int, node: NodeDef) -> StepCall:
        assert isinstance(node.node, Action)
        definition = self.flow.chains[chain.name]
        delivery = node.keys.delivery or Delivery()
        if delivery.expire_after is not None:
            node.node.expire_after = delivery.expire_after.seconds
        lanes = Lanes(
            node.node,
            delivery,
            taken=TAKEN,
            done=lambda msg: advance(chain, at + 1, msg),
            gave_up=lambda msg, error, attempts: fail(chain, at, msg, error, attempts),
            dropped=self.drop,
            bury=self.bury,
            settle_part=self._close,
            watch=self.watch,
            followed=node is not definition.nodes[-1] or node.keys.on_error is not None or self._comes_back,
        )
        self.lanes.append(lanes)
        return lanes.submit

    def replay(self, identity: str, msg: Message) -> bool:
        """Let a dead letter enter again at the node, or the chain, that gave it up; False if that is no more."""
        place = self.places.get(identity)
        if place is None or self.stopping or self.failed_to_start:
            return False
        self.books.replayed += 1
        advance(*place, msg)
        return True

    def pending(self) -> int:
        """How many messages lie somewhere in this flow: counted where they lie."""
        return sum(lanes.waiting() for lanes in self.lanes) + self.burying

    def keep(self, outbox: Outbox, waiting: dict[str, list[Waiting]]) -> None:
        """Let messages be stored, and take over what runs before have left; it is taken out of `waiting`."""
        frames = _Frames(self)
        for lanes in self.lanes:
            lanes.keep(outbox, frames)
            if lanes.keeper is not None:
                self.books.carried += lanes.keeper.take_over(waiting.pop(lanes.action.context.identity, ()))

    def in_memory(self) -> list[Lane]:
        """The lanes that may be stored and of which nothing is on the disk."""
        return [lane for lanes in self.lanes if lanes.keeper is not None for lane in lanes.keeper.in_memory()]

    def start_sources(self) -> None:
        """Run every source, each in a task of its own that is started again if it fails."""
        for source, chain in self.sources:
            self._tasks.append(asyncio.create_task(self._keep_running(source, Emitter(self, chain))))

    def leave_out(self) -> None:
        """Tell the sources of a flow that cannot start, so that what waits for them goes on waiting."""
        for source, _chain in self.sources:
            try:
                source.left_out()
            except FAULTS as error:
                source.log.error(N_("a source failed when it was left out"), exc_info=error)

    async def _keep_running(self, source: Source, emit: Emit) -> None:
        first, longest = _SOURCE_BACKOFF
        wait = first
        while True:
            began = time.monotonic()
            try:
                await source.run(emit)
                source.log.info(N_("a source has ended: nothing more comes from it"))
                return
            except FAULTS as error:
                if cancelled():
                    raise
                if time.monotonic() - began > longest:
                    wait = first
                source.log.error(N_("a source failed, it is started again"), wait=wait, exc_info=error)
            await asyncio.sleep(wait)
            wait = min(wait * 2, longest)

    async def stop_sources(self) -> None:
        """Take nothing new."""
        self.stopping = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            ended, _late = await asyncio.wait(self._tasks, timeout=_STOP_WITHIN)
            await asyncio.gather(*ended, return_exceptions=True)

    def busy(self) -> bool:
        """Whether messages are in flight or about to be."""
        return any(lanes.turns.busy() for lanes in self.lanes)

    def let_in(self, chain: Chain, msg: Message) -> None:
        """Take a message in; what has ended the process three times is dead. While the flow stops, it stays with its sender."""
        if self.stopping:
            return
        self.books.received += 1
        mark = msg.outcome.mark
        if self.watch.suspects and self.watch.is_dead(mark):
            self.watch.acquit(mark)
            self.bury(msg, Failure(f"{self.flow.name}/{chain.name}", verdict()))
            return
        self.watch.arrive(mark)
        advance(chain, 0, msg)

    async def let_in_alone(self, chain: Chain, msg: Message) -> None:
        """Take a suspect in, and wait until it is settled or stored: nothing else runs meanwhile."""
        if self.stopping:
            return
        self.let_in(chain, msg)
        self.watch.set(0, NONE)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ALONE_WITHIN):
                await msg.outcome

    def close_door(self) -> None:
        """Begin no attempt any more; what is not in flight is stored."""
        for lanes in self.lanes:
            lanes.close_door()

    async def halt(self) -> None:
        """End all attempts; what is not settled stays pending, and its sender keeps it."""
        await asyncio.gather(*(lanes.halt() for lanes in self.lanes))

    def finish(self, msg: Message) -> None:
        """A message is at the end of its chain: delivered if an action or log had it, else dropped."""
        if not msg.acted:
            self.drop(msg, "no action had it")
            return
        self.books.delivered += 1
        msg.outcome.delivered += 1
        self._close(msg)

    def drop(self, msg: Message, reason: str) -> None:
        """The flow said that this message ends here."""
        self.books.dropped += 1
        self.books.because(reason)
        msg.outcome.dropped += 1
        self._close(msg)

    def bury(self, msg: Message, failure: Failure) -> None:
        """Keep a message that was given up, with its reason; it is dead, and settled, when that is on the disk."""

        def kept() -> None:
            self.burying -= 1
            self.books.dead += 1
            self.books.because(failure.node)
            msg.outcome.dead += 1
            msg.outcome.reason = failure.reason
            self._close(msg)

        self.burying += 1
        if self.dead_letters is None:
            kept()
        else:
            self.dead_letters.put(self.flow.name, msg, failure, kept)

    def more(self, msg: Message, parts: int) -> None:
        """A message became `parts` more of itself."""
        self.books.received += parts
        msg.outcome.open += parts

    def _close(self, msg: Message) -> None:
        try:
            msg.outcome.close_part()
        except FAULTS as error:
            text = N_("a source failed when it was told what became of a message")
            self.log.error(text, id=msg.id, exc_info=error)

    def failed(self, node: NodeDef, msg: Message, error: BaseException) -> None:
        """Say that a node gave a message up: at most one line a second for each node, with the number of those not said."""
        now = time.monotonic()
        last, unsaid = self._said.get(node.node.context.identity, (0.0, 0))
        if now - last < _SAY_EVERY and last:
            self._said[node.node.context.identity] = (last, unsaid + 1)
            return
        self._said[node.node.context.identity] = (now, 0)
        about = {"id": msg.id, "payload": shorten(msg.payload), **({"and_before": unsaid} if unsaid else {})}
        if isinstance(error, Reject):
            node.node.log.warning(N_("a message failed"), reason=reason_of(error), **about)
        else:
            text = N_("a message failed: the node has a fault")
            node.node.log.error(text, reason=reason_of(error), exc_info=error, **about)


class Emitter:
    """The way in for one source: `flowengine.Emit`."""

    __slots__ = ("_chain", "_run", "_thread")

    def __init__(self, run: FlowRun, chain: Chain) -> None:
        self._run = run
        self._chain = chain
        self._thread = get_ident()

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
        run = self._run
        if run.stopping:
            raise Stopping(run.flow.name)
        if get_ident() != self._thread:  # asyncio.get_running_loop() would tell as well, but asks the kernel for it
            raise RuntimeError(
                "a message may come only from the event loop: in another thread the books would go wrong"
            )
        budget = run.budget
        size = size or (len(payload) if type(payload) is bytes or type(payload) is str else 0)
        if budget.used * 2 > budget.bound:
            run.press()
        if budget.used + size > budget.bound and budget.used:
            if not expendable:
                raise Busy(run.flow.name)
            return self._no_room(settled)
        mark = mark_of(payload)
        outcome = Outcome(settled, storable=store, size=size, budget=budget, mark=mark)
        budget.used += size
        watch = run.watch
        msg = Message(payload, meta, new_id(), time.time(), outcome)
        if watch.closed or watch.held or (watch.suspects and mark in watch.suspects):
            chain = self._chain
            watch.hold(mark, lambda: run.let_in(chain, msg), lambda: run.let_in_alone(chain, msg))
        else:
            run.books.received += 1
            watch.arrive(mark)
            advance(self._chain, 0, msg)
        return outcome

    def press(self) -> None:
        """Have what is unsettled stored soon."""
        self._run.press()

    def _no_room(self, settled: Callable[[Outcome], None] | None) -> Outcome:
        """Drop an expendable message, and count it."""
        outcome = Outcome(settled)
        self._run.books.received += 1
        self._run.drop(Message(None, {}, "", time.time(), outcome), "no room in memory")
        return outcome


class _Frames(Frames):
    """The way back out of `run` chains, by the durable identity of the nodes that wait."""

    def __init__(self, run: FlowRun) -> None:
        self._places = {identity: (chain, at + 1) for identity, (chain, at) in run.places.items()}
        self._log = run.log

    def write(self, msg: Message) -> list[str]:
        return [chain.nodes[at - 1].node.context.identity for chain, at in msg.frames]

    def read(self, names: list[str]) -> tuple[tuple[Any, int], ...]:
        gone = [name for name in names if name not in self._places]
        if gone:
            self._log.warning(N_("a stored message was to come back to nodes that are no more"), nodes=gone)
        return tuple(self._places[name] for name in names if name in self._places)
