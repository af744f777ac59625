from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowengine import Drop, Message, Missing, Reject
from flowengine.testing import make, message, process
from flowengine_nodes.split import Split


def parts(options: str, payload: Any) -> list[Any]:
    made = process(make(Split, options), message(payload))
    assert all(isinstance(m, Message) for m in made)
    return [m.payload for m in made if isinstance(m, Message)]


@given(
    st.lists(
        st.none() | st.integers() | st.text() | st.lists(st.integers()) | st.dictionaries(st.text(), st.integers())
    )
)
def test_each_element_is_sent_on_in_order(items: list[Any]) -> None:
    assert parts("data", {"cmd": "verifiedRecordU", "data": items}) == items


def test_the_payload_itself_may_be_the_list() -> None:
    assert parts("", [1, 2]) == [1, 2]


def test_the_list_may_lie_deep() -> None:
    assert parts("{path: body.0.records}", {"body": [{"records": ["a"]}]}) == ["a"]


def test_an_empty_list_is_dropped_as_split() -> None:
    assert make(Split, "data").process(message({"data": []})) == Drop("split")


def test_the_parts_keep_id_and_metadata_and_share_the_elements() -> None:
    record = {"liveImageBase64": "x" * 300_000}
    msg = message({"data": [record]}, device="d1")
    (part,) = process(make(Split, "data"), msg)
    assert isinstance(part, Message)
    assert part.payload is record
    assert (part.id, part.time, part.meta, part.outcome) == (msg.id, msg.time, msg.meta, msg.outcome)


def test_a_missing_list_is_refused_with_its_path() -> None:
    with pytest.raises(Missing, match=r"'body\.data' is missing: 'body' is an object without it"):
        parts("body.data", {"body": {}})
    with pytest.raises(Missing, match="put json-parse before"):
        parts("data", b'{"data": []}')


@pytest.mark.parametrize(
    ("value", "found"),
    [({"a": 1}, '{"a":1}'), ("text", "'text'"), (7, "7"), (None, "null"), (True, "true")],
)
def test_what_is_no_list_is_refused_with_path_and_finding(value: Any, found: str) -> None:
    with pytest.raises(Reject) as caught:
        parts("data", {"data": value})
    assert caught.value.reason == f"'data' is no list to split: it is {found}"


def test_a_payload_that_is_no_list_is_refused_briefly() -> None:
    with pytest.raises(Reject) as caught:
        parts("", {"img": "x" * 300_000})
    assert caught.value.reason.startswith("the payload is no list to split: it is ")
    assert len(caught.value.reason) < 200
