from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowengine import Message
from flowengine.testing import FlowError, make, message, process
from flowengine_nodes.cmd_filter import CmdFilter

ROUTES = """
routes: {heartU: heartbeat, 0: zero, 1: one, 2.50: half, 007: bond, true: yes, null: nothing}
otherwise: other
"""


def target(node: CmdFilter, payload: Any) -> str:
    """Where the message went: the route's text, or `next`."""
    msg = message(payload, device="d1")
    (made,) = process(node, msg)
    if isinstance(made, Message):
        assert made is msg
        return "next"
    assert made.msg is msg and not made.comes_back
    return str(made.route.text)


@pytest.mark.parametrize(
    ("value", "goes"),
    [
        ("heartU", "heartbeat"),
        ("heartu", "other"),
        ("heartU ", "other"),
        ("0", "zero"),
        (0, "zero"),
        (0.0, "zero"),
        ("0.0", "other"),
        (1, "one"),
        ("1", "one"),
        (2.5, "half"),
        ("2.50", "half"),
        ("007", "bond"),
        (7, "other"),
        (True, "yes"),
        ("true", "yes"),
        (False, "other"),
        (None, "nothing"),
        ("null", "nothing"),
        ([], "other"),
        (["heartU"], "other"),
        ({"heartU": 1}, "other"),
        (10**30, "other"),
    ],
)
def test_a_value_goes_where_its_text_leads(value: Any, goes: str) -> None:
    assert target(make(CmdFilter, ROUTES), {"cmd": value}) == goes


def test_true_is_not_one_and_false_is_not_zero() -> None:
    node = make(CmdFilter, "{routes: {1: one, 0: zero}, otherwise: other}")
    assert target(node, {"cmd": True}) == target(node, {"cmd": False}) == "other"


@pytest.mark.parametrize("payload", [{}, {"data": 1}, [], ["heartU"], "heartU", b"\xff", 12, None])
def test_a_payload_without_the_field_goes_to_otherwise(payload: Any) -> None:
    assert target(make(CmdFilter, ROUTES), payload) == "other"


def test_a_missing_field_is_not_null() -> None:
    node = make(CmdFilter, "{routes: {null: nothing}, otherwise: other}")
    assert target(node, {}) == "other"
    assert target(node, {"cmd": None}) == "nothing"


def test_the_field_may_lie_deep_and_in_a_list() -> None:
    node = make(CmdFilter, "{field: body.0.type, routes: {a: chain-a}, otherwise: drop}")
    assert target(node, {"body": [{"type": "a"}]}) == "chain-a"
    assert target(node, {"body": []}) == "drop"
    first = make(CmdFilter, '{field: "0", routes: {a: chain-a}, otherwise: drop}')
    assert target(first, ["a"]) == "chain-a"


def test_next_keeps_the_message_in_its_chain() -> None:
    node = make(CmdFilter, "{routes: {a: next}, otherwise: drop}")
    assert target(node, {"cmd": "a"}) == "next"
    assert target(node, {"cmd": "b"}) == "drop"


@pytest.mark.parametrize(
    ("routes", "otherwise", "passes"),
    [("{a: next}", "drop", True), ("{a: b}", "next", True), ("{a: b}", "drop", False), ("{}", "dead", False)],
)
def test_it_passes_on_only_if_some_route_stays(routes: str, otherwise: str, passes: bool) -> None:
    assert make(CmdFilter, f"{{routes: {routes}, otherwise: {otherwise}}}").passes_on() is passes


def test_otherwise_is_required() -> None:
    with pytest.raises(FlowError, match="option 'otherwise' is missing"):
        make(CmdFilter, "{routes: {a: drop}}")


def test_two_keys_that_are_one_number_are_refused() -> None:
    with pytest.raises(FlowError, match=r"cmd-filter: '1\.0' and '1' are the same number"):
        make(CmdFilter, "{routes: {1: drop, 1.0: dead}, otherwise: drop}")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda v: st.lists(v) | st.dictionaries(st.text(), v),
    )
)
def test_every_payload_takes_exactly_one_route(value: Any) -> None:
    node = make(CmdFilter, ROUTES)
    known = ("heartbeat", "zero", "one", "half", "bond", "yes", "nothing", "other")
    assert target(node, value) in known
    assert target(node, {"cmd": value}) in known
