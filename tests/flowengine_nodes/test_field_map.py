from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowengine import Message, Missing, Reject
from flowengine.testing import FlowError, make, message, process
from flowengine_nodes.field_map import FieldMap

RECORD = {
    "num": "1001",
    "name": "张三",
    "liveImageBase64": "/9j/" * 75_000,
    "verifiedCode": 0,
    "time": "2024-05-01 08:00:00",
    "personType": "1",
}


def mapped(fields: str, payload: Any, **meta: Any) -> Any:
    (made,) = process(make(FieldMap, f"{{fields: {{{fields}}}}}"), message(payload, **meta))
    assert isinstance(made, Message)
    return made.payload


def reason(fields: str, payload: Any) -> str:
    with pytest.raises(Reject) as caught:
        mapped(fields, payload)
    return caught.value.reason


def errors(fields: str) -> list[str]:
    with pytest.raises(FlowError) as caught:
        make(FieldMap, f"{{fields: {{{fields}}}}}")
    return [line for line in str(caught.value).splitlines() if line.startswith("test.yaml:")]


def test_the_seeds_record_becomes_the_seeds_body_in_its_order() -> None:
    fields = "user_id: num, name: name, img: liveImageBase64"
    fields += ", verifiedCode: verifiedCode, bot_time: time, personType: personType"
    made = mapped(fields, {**RECORD, "extra": 1})
    assert list(made.items()) == [
        ("user_id", "1001"),
        ("name", "张三"),
        ("img", RECORD["liveImageBase64"]),
        ("verifiedCode", 0),
        ("bot_time", "2024-05-01 08:00:00"),
        ("personType", "1"),
    ]
    assert made["img"] is RECORD["liveImageBase64"], "an image is passed on, not copied"


def test_the_old_payload_id_and_metadata_stay() -> None:
    msg = message({"a": 1}, device="d1")
    (made,) = process(make(FieldMap, "{fields: {b: a}}"), msg)
    assert isinstance(made, Message)
    assert msg.payload == {"a": 1}
    assert (made.id, made.meta, made.outcome) == (msg.id, msg.meta, msg.outcome)


def test_paths_lead_into_objects_and_lists_and_the_empty_one_is_all() -> None:
    payload = {"data": [{"num": 7}], "a.b": 1}
    assert mapped("n: data.0.num, all: {path: ''}, dotted: '\"a.b\"'", payload) == {
        "n": 7,
        "all": payload,
        "dotted": 1,
    }
    assert mapped("first: '0'", ["x"]) == {"first": "x"}


def test_dots_in_a_name_make_objects_inside_in_the_order_of_the_file() -> None:
    made = mapped("user.name: name, id: num, user.tag.kind: {const: x}, '\"a.b\"': num", {"name": "n", "num": 1})
    assert made == {"user": {"name": "n", "tag": {"kind": "x"}}, "id": 1, "a.b": 1}
    assert list(made) == ["user", "id", "a.b"]


@pytest.mark.parametrize(
    ("yaml", "value"),
    [
        ("facegate", "facegate"),
        ("1", 1),
        ("null", None),
        ("[1, {a: b}]", [1, {"a": "b"}]),
        ("'{device}'", "{device}"),
    ],
)
def test_a_constant_is_what_stands_there(yaml: str, value: Any) -> None:
    assert mapped(f"a: {{const: {yaml}}}", {}) == {"a": value}


def test_a_template_is_a_text_or_a_tree_and_a_lone_reference_keeps_its_type() -> None:
    fields = 'key: {template: "{device}/{payload.num}"}, n: {template: "{payload.num}"}'
    fields += ', t: {template: {a: ["{device}", 1]}}'
    assert mapped(fields, {"num": 7}, device="d1") == {"key": "d1/7", "n": 7, "t": {"a": ["d1", 1]}}


def test_a_missing_field_is_refused_with_its_path() -> None:
    with pytest.raises(Missing, match="'num' is missing: the payload is an object without it"):
        mapped("user_id: num", {})
    with pytest.raises(Missing, match=r"'a\.b\.c' is missing: 'a\.b' is a list of 2"):
        mapped("x: a.b.c", {"a": {"b": [1, 2]}})


@pytest.mark.parametrize("payload", [b"{}", "text", [], 7, None])
def test_a_payload_that_is_no_object_is_refused_with_what_it_is(payload: Any) -> None:
    assert reason("a: num", payload).startswith("'num' is missing: the payload is ")


@pytest.mark.parametrize(
    "spec", ["path: age", "path: age, cast: int", 'template: "{payload.age}"', 'template: "{age}"']
)
def test_a_default_stands_for_what_is_missing_and_is_not_cast(spec: str) -> None:
    assert mapped(f"age: {{{spec}, default: none}}", {}) == {"age": "none"}


def test_a_default_may_be_null_and_null_that_is_there_is_not_missing() -> None:
    assert mapped("a: {path: a, default: null}", {}) == {"a": None}
    assert mapped("a: {path: a, default: 5}", {"a": None}) == {"a": None}


def test_a_default_does_not_hide_what_cannot_be_cast() -> None:
    assert (
        reason("a: {path: a, cast: int, default: 0}", {"a": "x"})
        == "'x' is not a whole number (fields.a from payload.a)"
    )


@pytest.mark.parametrize(
    ("cast", "value", "result"),
    [
        ("text", "a", "a"),
        ("text", 1, "1"),
        ("text", 1.5, "1.5"),
        ("text", True, "true"),
        ("text", {"a": [1]}, '{"a":[1]}'),
        ("text", None, None),
        ("int", 3, 3),
        ("int", 3.0, 3),
        ("int", "3", 3),
        ("int", " 0012 ", 12),
        ("int", "-3.0", -3),
        ("int", "1e3", 1000),
        ("int", True, 1),
        ("int", "12345678901234567890123", 12345678901234567890123),
        ("int", None, None),
        ("number", 3, 3),
        ("number", 3.5, 3.5),
        ("number", "3", 3),
        ("number", "+3.5", 3.5),
        ("number", ".5", 0.5),
        ("number", "1e-3", 0.001),
        ("number", False, 0),
        ("bool", True, True),
        ("bool", 0, False),
        ("bool", 1.0, True),
        ("bool", "1", True),
        ("bool", "False", False),
        ("bool", "YES", True),
        ("bool", " off ", False),
        ("bool", None, None),
    ],
)
def test_a_cast_gives_the_value_and_its_type(cast: str, value: Any, result: Any) -> None:
    made = mapped(f"a: {{path: v, cast: {cast}}}", {"v": value})["a"]
    assert (made, type(made)) == (result, type(result))


@pytest.mark.parametrize(
    ("cast", "value", "words"),
    [
        ("int", "abc", "'abc' is not a whole number"),
        ("int", 3.5, "3.5 is not a whole number"),
        ("int", "3.5", "'3.5' is not a whole number"),
        ("int", "", "'' is not a whole number"),
        ("int", "1_000", "'1_000' is not a whole number"),
        ("int", "١٢", "'١٢' is not a whole number"),
        ("int", "9" * 5000, "is not a whole number"),
        ("int", [1], "[1] is not a whole number"),
        ("number", "1e999", "'1e999' is not a number"),
        ("number", "nan", "'nan' is not a number"),
        ("number", "0x10", "'0x10' is not a number"),
        ("number", {}, "{} is not a number"),
        ("bool", 2, "2 is not true or false"),
        ("bool", "maybe", "'maybe' is not true or false"),
        ("bool", [], "[] is not true or false"),
    ],
)
def test_what_cannot_be_cast_is_refused_by_field_and_path(cast: str, value: Any, words: str) -> None:
    said = reason(f"out.age: {{path: person.age, cast: {cast}}}", {"person": {"age": value}})
    assert words in said
    assert said.endswith(" (fields.out.age from payload.person.age)")
    assert len(said) < 200


@given(st.integers(-(10**15), 10**15))
def test_a_whole_number_survives_every_way_of_writing_it(number: int) -> None:
    fields = "a: {path: a, cast: int}, b: {path: b, cast: int}, c: {path: c, cast: int}"
    assert set(mapped(fields, {"a": number, "b": str(number), "c": float(number)}).values()) == {number}


@pytest.mark.parametrize("spec", ["{}", "{path: a, const: 1}", "{path: a, template: b}", "{default: 1}"])
def test_a_field_has_exactly_one_source(spec: str) -> None:
    assert errors(f"x: {spec}") == ["test.yaml:1:14: field-map: give exactly one of 'path', 'const' and 'template'"]


@pytest.mark.parametrize("spec", ["{const: 1, cast: int}", "{const: 1, default: 2}"])
def test_a_constant_needs_no_cast_and_no_default(spec: str) -> None:
    assert "'const' is taken as it is" in errors(f"x: {spec}")[0]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("a: x, a.b: y", "'a.b' would lie inside a field that is a value"),
        ("a.b: x, a: y", "'a' is in the new payload already"),
        ("a.b: x, a.b.c: y", "'a.b.c' would lie inside a field that is a value"),
        ("a: x, '\"a\"': y", "is in the new payload already"),
        ("'': x", "'' is no name for a field"),
        ("a..b: x", "'a..b' is no name for a field"),
        ("", "name at least one field"),
    ],
)
def test_names_that_clash_or_are_none_are_refused(fields: str, words: str) -> None:
    assert [words in line for line in errors(fields)] == [True]


def test_every_wrong_field_is_said_at_once() -> None:
    assert len(errors("a: {}, b: c, d: {const: 1, cast: int}, b.c: d")) == 3


def test_an_unknown_cast_is_refused_with_a_near_one() -> None:
    assert "did you mean 'int'?" in errors("a: {path: b, cast: integer}")[0]
