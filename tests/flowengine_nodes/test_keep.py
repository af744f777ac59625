from __future__ import annotations

from typing import Any

import pytest

from flowengine import Message, Missing, Reject
from flowengine.testing import FlowError, make, message, process
from flowengine_nodes.keep import Keep


def kept(options: str, payload: Any, **meta: Any) -> Message:
    (made,) = process(make(Keep, options), message(payload, **meta))
    assert isinstance(made, Message)
    return made


def test_values_are_kept_beside_what_is_known_and_the_payload_stays() -> None:
    payload = {"num": 7, "place": {"door": "north"}}
    made = kept("{fields: {user_id: num, door: place.door}}", payload, device="d1")
    assert dict(made.meta) == {"device": "d1", "user_id": 7, "door": "north"}
    assert made.payload is payload


def test_the_message_itself_is_not_changed() -> None:
    msg = message({"num": 7}, device="d1")
    process(make(Keep, "{fields: {user_id: num}}"), msg)
    assert dict(msg.meta) == {"device": "d1"}


def test_constants_templates_defaults_and_casts_work_as_in_field_map() -> None:
    fields = 'a: {const: 1}, b: {template: "{device}-{payload.n}"}'
    fields += ", c: {path: x, default: 0}, d: {path: n, cast: int}"
    made = kept(f"{{fields: {{{fields}}}}}", {"n": "5"}, device="d1")
    assert dict(made.meta) == {"device": "d1", "a": 1, "b": "d1-5", "c": 0, "d": 5}


def test_a_name_that_is_there_gets_the_new_value() -> None:
    assert kept("{fields: {device: id}}", {"id": "d2"}, device="d1").meta["device"] == "d2"


def test_it_tells_the_checker_the_names_it_adds() -> None:
    assert list(make(Keep, "{fields: {user_id: num, door: x}}").metadata()) == ["user_id", "door"]


def test_a_missing_value_is_refused_with_its_path() -> None:
    with pytest.raises(Missing, match="'num' is missing"):
        kept("{fields: {user_id: num}}", {})
    with pytest.raises(Reject, match=r"'x' is not a whole number \(fields\.n from payload\.n\)"):
        kept("{fields: {n: {path: n, cast: int}}}", {"n": "x"})


@pytest.mark.parametrize(
    "name",
    [
        "payload",
        "result",
        "error",
        "message",
        "in",
        "and",
        "exists",
        "true",
        "a-b",
        "a.b",
        "7up",
        "''",
        "'a b'",
        "姓名",
    ],
)
def test_a_name_that_no_reference_could_mean_is_refused(name: str) -> None:
    with pytest.raises(FlowError, match="cannot be a name"):
        make(Keep, f"{{fields: {{{name}: num}}}}")


def test_a_value_has_exactly_one_source() -> None:
    with pytest.raises(FlowError, match="give exactly one of 'path', 'const' and 'template'"):
        make(Keep, "{fields: {a: {path: x, const: 1}}}")


def test_at_least_one_name_is_wanted() -> None:
    with pytest.raises(FlowError, match="name at least one field"):
        make(Keep, "{fields: {}}")
