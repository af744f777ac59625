"""What every node and connection has, and what it must bring itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from flowengine import Action, Connection, Context, Node, NodeOptions, Outcome, Source, Step
from flowengine.testing import message


class Bare(NodeOptions):
    number: int = 3


class Counting(Step):
    """A step."""

    type = "counting"
    Options = Bare

    def setup(self) -> None:
        self.seen = self.options.number


class Nowhere:
    """Takes every message, and nothing comes of it."""

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
        return Outcome(settled)

    def press(self) -> None:
        """There is always room."""


def test_a_part_has_default_options_a_place_and_a_log_before_setup() -> None:
    node = Counting()
    assert (node.seen, node.options, node.context) == (3, Bare(), Context())
    assert Counting(Bare(number=5), Context(identity="f/c/n")).seen == 5


def test_options_never_change() -> None:
    with pytest.raises(AttributeError):
        Counting().options.number = 4


def test_a_node_asks_for_nothing_and_adds_nothing_unless_it_says_so() -> None:
    node = Counting()
    assert (list(node.check()), list(node.claims()), list(node.metadata()), node.passes_on()) == ([], [], [], True)


async def test_open_close_start_and_stop_do_nothing_unless_a_part_has_something_to_do() -> None:
    connection = Connection()
    for do in (connection.open, connection.start, connection.stop, connection.close, Node().open, Node().close):
        await do()
    assert connection.ready() == ""


async def test_a_class_that_forgot_its_work_says_which() -> None:
    class Idle(Step):
        """Nothing."""

    with pytest.raises(TypeError, match=r"Idle has no process\(\)"):
        Idle().process(message())
    with pytest.raises(TypeError, match=r"Action has no deliver\(\)"):
        Action().deliver(message())
    with pytest.raises(TypeError, match=r"Source has no run\(\)"):
        await Source().run(Nowhere())


def test_an_action_confirms_and_waits_for_its_turn_unless_it_says_otherwise() -> None:
    assert Action().confirming and not Action.inline
