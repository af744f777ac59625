"""The books balance at every moment, and every arrival is settled once, when all its parts are."""

from __future__ import annotations

import asyncio
import io
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flowengine import Drop, Outcome, Result, logs
from flowengine.delivery import retry
from flowengine.runtime.books import Books
from flowengine.testing import RunningFlow, running
from tests.flowengine.runtime.nodes import SCRIPTED, Told, failure

FLOW = """
flow: f
chains:
  main:
    - test-in
    - fan: {{one: side}}
      on_error: {0}
    - copy-to: copies
    - run: detour
    - filter: payload != 7
    - scripted: {{}}
      delivery: {{concurrency: {1}, give_up_after: {2}}}
      on_error: {3}
    - fan: {{one: side}}
      name: again
      on_error: {4}
    - inline: {{}}
      delivery: {{concurrency: {1}, order_by: {5}}}
      on_error: {6}
  detour:
    - fan: {{one: copies}}
      on_error: {4}
    - inline: {{}}
      when: payload != 0
      on_error: repair
  side:
    - scripted: {{}}
      delivery: {{concurrency: 2}}
      on_error: {0}
  copies:
    - inline: {{}}
      on_error: {6}
  repair:
    - cmd-filter: {{field: "", routes: {{"8": next}}, otherwise: {7}}}
    - inline: {{}}
"""
ON_ERROR = st.sampled_from(["dead", "drop", "next", "repair", "[scripted]"])
WORDS = ["retry", "reject", "network", "fault", "exit", "cancelled", "gate", "drop", "result", "garbage"]
PAYLOADS = st.recursive(st.integers(0, 8), lambda inner: st.lists(inner, max_size=4), max_leaves=12)


class BooksOfAFlow(RuleBasedStateMachine):
    """A flow in which nearly everything can happen, and does."""

    def __init__(self) -> None:
        super().__init__()
        self.constants = retry.FIRST, retry.SHORTEST_AFTER
        retry.FIRST = retry.SHORTEST_AFTER = 0.0
        logs.configure("error", stream=io.StringIO())
        self.loop = asyncio.new_event_loop()
        self.flow: RunningFlow
        self.started = False
        self.outcomes: list[Outcome] = []
        self.told: list[Outcome] = []
        self.gates: list[asyncio.Future[Any]] = []

    @initialize(
        on_error=st.tuples(*[ON_ERROR] * 4),
        concurrency=st.integers(1, 3),
        give_up=st.sampled_from(["0s", "72h"]),
        order=st.sampled_from(["none", '"{device}"']),
        otherwise=st.sampled_from(["next", "drop", "dead"]),
    )
    def start(self, on_error: tuple[str, ...], concurrency: int, give_up: str, order: str, otherwise: str) -> None:
        first, second, third, fourth = on_error
        text = FLOW.format(first, concurrency, give_up, second, third, order, fourth, otherwise)
        self.context = running(text, plugins=SCRIPTED)
        self.flow = self.loop.run_until_complete(self.context.__aenter__())
        self.nodes = [lanes.action for lanes in self.flow.engine.flows[0].lanes]
        [self.source] = self.flow._ins.values()
        self.started = True

    @rule(payload=PAYLOADS, device=st.sampled_from(["1", "2", "3"]))
    def send(self, payload: Any, device: str) -> None:
        async def emit() -> None:
            assert self.source.emit is not None
            self.outcomes.append(self.source.emit(payload, {"device": device}, self.told.append))

        self.loop.run_until_complete(emit())

    @rule(place=st.integers(0, 20), words=st.lists(st.sampled_from(WORDS), max_size=4))
    def script(self, place: int, words: list[str]) -> None:
        node = self.nodes[place % len(self.nodes)]
        assert isinstance(node, Told)
        for word in words:
            node.answers.append(self.answer(word))

    def answer(self, word: str) -> Any:
        if word == "gate":
            self.gates.append(self.loop.create_future())
            return self.gates[-1]
        answers = {"drop": Drop("worthless"), "result": Result(status=200), "garbage": "ok"}
        return answers[word] if word in answers else failure(word)

    @precondition(lambda self: self.gates)
    @rule(place=st.integers(0, 20), word=st.sampled_from(["result", "retry", "reject", "drop", "cancel"]))
    def answer_what_is_in_flight(self, place: int, word: str) -> None:
        gate = self.gates.pop(place % len(self.gates))
        if word == "cancel":
            gate.cancel()
        else:
            gate.set_result(self.answer(word))

    @precondition(lambda self: self.outcomes)
    @rule(place=st.integers(0, 20))
    def withdraw(self, place: int) -> None:
        self.outcomes[place % len(self.outcomes)].withdraw()

    @rule(turns=st.integers(1, 5))
    def turn(self, turns: int) -> None:
        for _ in range(turns):
            self.loop.run_until_complete(asyncio.sleep(0))

    @invariant()
    def the_books_balance(self) -> None:
        if not self.started:
            return
        books, pending = self.flow.engine.books(), self.flow.engine.pending()
        assert books.balance(pending), books.lines(pending)
        assert books.received == len(self.outcomes) + sum(
            o.delivered + o.dropped + o.dead + o.open - 1 for o in self.outcomes
        )
        assert pending == sum(outcome.open for outcome in self.outcomes)

    @invariant()
    def who_is_settled_was_told_once(self) -> None:
        assert sorted(map(id, self.told)) == sorted(id(outcome) for outcome in self.outcomes if not outcome.open)

    def teardown(self) -> None:
        try:
            if self.started:
                self.loop.run_until_complete(self.finish())
                self.the_books_balance()
                self.who_is_settled_was_told_once()
                assert not any(outcome.open for outcome in self.outcomes)
                self.loop.run_until_complete(self.context.__aexit__(None, None, None))
        finally:
            retry.FIRST, retry.SHORTEST_AFTER = self.constants
            self.loop.close()

    async def finish(self) -> None:
        """Everything in flight succeeds, and nothing fails any more."""
        for node in self.nodes:
            assert isinstance(node, Told)
            node.answers.clear()
        for gate in self.gates:
            gate.set_result(None)
        await self.flow.until(lambda: not self.flow.engine.pending(), within=2.0)


TestBooks = BooksOfAFlow.TestCase
TestBooks.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


def test_reasons_that_nodes_make_from_messages_do_not_grow_without_bound() -> None:
    books = Books()
    for number in range(10_000):
        books.because(f"no {number}")
    books.because("no 5")
    assert len(books.reasons) == 101
    assert books.reasons["no 5"] == 2 and books.reasons["…"] == 9900


def test_the_books_of_flows_add_up() -> None:
    total = Books(received=1, delivered=1)
    total.add(Books(carried=2, received=3, replayed=4, delivered=1, dropped=2, dead=3))
    assert total.balance(pending=3) and not total.balance(pending=2)
    assert total.lines(3) == {
        "carried": 2, "received": 4, "replayed": 4, "delivered": 2, "dropped": 2, "dead": 3, "pending": 3,
    }  # fmt: skip
