from __future__ import annotations

from typing import Any

import pytest

from flowengine import Drop
from flowengine.testing import FlowError, make, message, process
from flowengine_nodes.filter import Filter

VERIFIED = 'payload.personType == "1" and payload.verifiedCode == 0'


@pytest.mark.parametrize(
    ("payload", "passes"),
    [
        ({"personType": "1", "verifiedCode": 0}, True),
        ({"personType": 1, "verifiedCode": "0"}, True),
        ({"personType": "2", "verifiedCode": 0}, False),
        ({"personType": "1", "verifiedCode": 1}, False),
        ({"personType": "1"}, False),
        ({}, False),
        ([], False),
        (b"\xff", False),
        (None, False),
    ],
)
def test_only_what_meets_the_condition_goes_on_and_as_it_came(payload: Any, passes: bool) -> None:
    msg = message(payload)
    assert process(make(Filter, VERIFIED), msg) == ([msg] if passes else [])


def test_what_is_dropped_is_counted_as_filter() -> None:
    assert make(Filter, "payload.a == 1").process(message({})) == Drop("filter")


def test_the_condition_may_ask_for_metadata() -> None:
    node = make(Filter, """{condition: 'device in ["d1", "d2"]'}""")
    assert process(node, message({}, device="d1"))
    assert not process(node, message({}, device="d3"))


def test_a_bad_condition_is_refused_at_its_place() -> None:
    with pytest.raises(FlowError, match=r"test\.yaml:1:11: filter: .*write == to compare"):
        make(Filter, "payload.a = 1")


def test_the_condition_is_required() -> None:
    with pytest.raises(FlowError, match="option 'condition' is missing"):
        make(Filter)
