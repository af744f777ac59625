"""Dead letters that enter their flows again, each at the node that gave it up, as the same message.

A letter goes when its message is settled or stored, so a fault in between leaves it, and its message may arrive twice, with the
same Idempotency-Key. What was under way when the process was killed is not begun again by itself: it may have been the cause.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from flowengine.delivery import desk
from flowengine.delivery.desk import BEGUN, WANTED, Chosen, Return
from flowengine.delivery.outbox import SHOWN
from flowengine.i18n import N_, _
from flowengine.message import Outcome
from flowengine.runtime.requests import Refused, Replayed

if TYPE_CHECKING:
    from flowengine.runtime.desk import LiveDesk
    from flowengine.runtime.flow import FlowRun

_TOGETHER = 100
_ROOM = 4 << 20
"""Bytes of payload of the letters that enter together."""
_PATIENCE = 30.0
"""Seconds without an end of any of them after which no more are let in."""
_READY_WITHIN = 30.0
_LOOK = 1.0
log: Any = structlog.get_logger("flowengine.desk")


class Replays:
    """The letters of one engine that are under way."""

    def __init__(self, at: LiveDesk) -> None:
        self._desk = at
        self._under_way: set[int] = set()
        self._ended: list[int] = []

    async def replay(self, chosen: Chosen) -> AsyncIterator[Replayed]:
        """Let letters enter again, a hundred at a time; the next ones when these are settled or stored."""
        after = 0
        while found := await self._desk.read(
            partial(desk.returns, chosen=chosen, after=after, limit=_TOGETHER, room=_ROOM)
        ):
            after = found[-1].number
            replayed, ended = await self._enter(found)
            yield replayed
            if not ended:
                raise Refused(_("the flow neither settles nor stores them: those that were not begun stay as they are"))

    async def _enter(self, found: list[Return]) -> tuple[Replayed, bool]:
        """Let these enter; what became of them, and whether all ended in time."""
        replayed = Replayed()
        runs = {run.flow.name: run for run in self._desk.engine.running()}
        todo: list[tuple[FlowRun, Return]] = []
        for letter in found:
            run = runs.get(letter.flow)
            if letter.number in self._under_way:
                replayed.under_way += 1
            elif run is None or letter.node not in run.places:
                replayed.no_node.append((letter.number, letter.node))
            elif letter.kind == SHOWN:
                replayed.unfit.append(letter.number)
            else:
                todo.append((run, letter))
        numbers = [letter.number for _run, letter in todo]
        if not numbers:
            return replayed, True
        self._under_way.update(numbers)
        there: set[int] = set()
        try:
            there = await self._desk.change(lambda db: desk.mark(db, numbers, BEGUN))
        finally:
            self._under_way.difference_update(set(numbers) - there)
        some_ended = asyncio.Event()
        open_ones = 0

        def settled(number: int, outcome: Outcome) -> None:
            nonlocal open_ones
            open_ones -= 1
            state = outcome.state
            if state in ("delivered", "stored", "dropped", "dead"):
                setattr(replayed, state, getattr(replayed, state) + 1)
            self._end(number)
            some_ended.set()

        for run, letter in todo:
            if letter.number not in there:
                continue
            open_ones += 1
            run.replay(letter.node, letter.message(Outcome(partial(settled, letter.number))))
        while open_ones:
            some_ended.clear()
            try:
                async with asyncio.timeout(_PATIENCE):
                    await some_ended.wait()
            except TimeoutError:
                break
        replayed.under_way += open_ones
        return msgspec.structs.replace(replayed), not open_ones  # a copy: what ends later is not counted in it

    def _end(self, number: int) -> None:
        """A replayed letter has ended or is in the outbox: it goes. Those of one turn of the loop are one change."""
        if not self._ended:
            asyncio.get_running_loop().call_soon(self._remove)
        self._ended.append(number)

    def _remove(self) -> None:
        ended, self._ended = self._ended, []
        gone = partial(self._under_way.difference_update, ended)
        self._desk.store.change(lambda database: desk.remove(database, ended), lambda _result: gone())

    async def replay_marked(self) -> None:
        """Replay what a person marked while the engine was stopped, and what was under way when it was stopped in order. After an
        unclean end the latter stays: it may have been the cause."""
        begun = await self._desk.read(lambda db: desk.marked(db, BEGUN))
        if begun and not self._desk.store.clean:
            await self._desk.change(lambda db: desk.mark(db, begun, 0))
            log.warning(
                N_("dead letters were being replayed when the engine was killed; they stay, replay them again"),
                letters=len(begun),
            )
            begun = []
        numbers = sorted([*begun, *await self._desk.read(lambda db: desk.marked(db, WANTED))])
        if not numbers:
            return
        try:
            async with asyncio.timeout(_READY_WITHIN):
                await self._desk.engine.until_ready()
        except TimeoutError:
            log.warning(N_("dead letters are replayed though not every connection is ready"), letters=len(numbers))
        total = Counter[str]()
        for at in range(0, len(numbers), _TOGETHER):
            chosen = Chosen(numbers=numbers[at : at + _TOGETHER])
            async for some in self._patiently(chosen):
                total.update({k: len(v) if isinstance(v, list) else v for k, v in msgspec.structs.asdict(some).items()})
                if some.unfit:
                    await self._desk.change(partial(desk.mark, numbers=some.unfit, value=0))
                    log.error(
                        N_("dead letters cannot be replayed: what is left of them is not what came"), letters=some.unfit
                    )
                if some.no_node:
                    missing = [number for number, _node in some.no_node]
                    await self._desk.change(partial(desk.mark, numbers=missing, value=0))
                    nodes = sorted({node for _number, node in some.no_node})
                    log.error(
                        N_("dead letters cannot be replayed: their node is no more"), letters=missing, nodes=nodes
                    )
        log.info(N_("dead letters replayed"), **{name: n for name, n in total.items() if n})

    async def _patiently(self, chosen: Chosen) -> AsyncIterator[Replayed]:
        """Replay; what does not end waits for its flow, and those behind it for them."""
        after = 0
        while found := await self._desk.read(
            partial(desk.returns, chosen=chosen, after=after, limit=_TOGETHER, room=_ROOM)
        ):
            after = found[-1].number
            yield (await self._enter(found))[0]
            while len(self._under_way) > _TOGETHER:
                await asyncio.sleep(_LOOK)
