"""The condition language, against a small oracle that evaluates the same tree of operators in plain Python."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flowengine import Condition, OptionError
from flowengine.condition import as_number, equal
from flowengine.testing import message

FIELDS = ("a", "b", "c")
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False, allow_infinity=False, width=16)
    | st.sampled_from(["1", "1.0", "01", "-2", "x", "", "a b", "'\"\\", "真", "1e1"])
)
Node = tuple[Any, ...]


def number(value: Any) -> Any:
    """A text that JSON reads as a number, as that number."""
    if isinstance(value, str):
        try:
            read = json.loads(value)
        except ValueError:
            return value
        return read if type(read) in (int, float) else value
    return value


def same(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if a is None or b is None:
        return a is b
    if isinstance(a, str) and isinstance(b, str):
        return a == b
    return bool(number(a) == number(b))


def oracle(node: Node, payload: dict[str, Any]) -> Any:
    """What the condition that `written` writes should give."""
    kind, *parts = node
    if kind == "value":
        return parts[0]
    if kind == "field":
        return payload.get(parts[0])
    if kind == "exists":
        return payload.get(parts[0]) is not None
    if kind == "not":
        return not oracle(parts[0], payload)
    left = oracle(parts[0], payload)
    if kind == "and":
        return left and oracle(parts[1], payload)
    if kind == "or":
        return left or oracle(parts[1], payload)
    right = [oracle(p, payload) for p in parts[1]] if kind in ("in", "not in") else oracle(parts[1], payload)
    if kind in ("==", "!="):
        return same(left, right) == (kind == "==")
    if kind in ("in", "not in"):
        return any(same(left, item) for item in right) == (kind == "in")
    a, b = number(left), number(right)
    if None in (a, b) or bool in (type(a), type(b)) or isinstance(a, str) != isinstance(b, str):
        return False
    return bool({"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[kind])


def written(node: Node) -> str:
    kind, *parts = node
    if kind == "value":
        return json.dumps(parts[0], ensure_ascii=False)
    if kind == "field":
        return f"payload.{parts[0]}"
    if kind == "exists":
        return f"exists( payload.{parts[0]} )"
    if kind == "not":
        return f"not {written(parts[0])}" if parts[0][0] in ("not", "exists") else f"not ({written(parts[0])})"
    if kind in ("in", "not in"):
        return f"{written(parts[0])} {kind} [{', '.join(map(written, parts[1]))}]"
    left, right = (f"({written(p)})" if p[0] in ("and", "or", "not") else written(p) for p in parts)
    return f"{left} {kind} {right}"


operands = st.tuples(st.just("value"), VALUES) | st.tuples(st.just("field"), st.sampled_from(FIELDS))
comparisons = (
    st.tuples(st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), operands, operands)
    | st.tuples(st.sampled_from(["in", "not in"]), operands, st.lists(operands, max_size=3))
    | st.tuples(st.just("exists"), st.sampled_from(FIELDS))
)
conditions = st.recursive(
    comparisons,
    lambda inner: st.tuples(st.just("not"), inner) | st.tuples(st.sampled_from(["and", "or"]), inner, inner),
    max_leaves=6,
)


@given(conditions, st.dictionaries(st.sampled_from(FIELDS), VALUES))
def test_a_condition_means_what_it_says(node: Node, payload: dict[str, Any]) -> None:
    assert Condition(written(node)).test(message(payload)) == bool(oracle(node, payload)), written(node)


@given(st.text(max_size=40))
def test_any_text_is_a_condition_or_an_option_error_inside_it(text: str) -> None:
    try:
        condition = Condition(text)
    except OptionError as error:
        assert error.offset is not None
        assert 0 <= error.offset <= len(text)
    else:
        assert condition.test(message({"a": 1})) in (True, False)


@given(st.text(max_size=20), st.sampled_from(["payload.a == {}", 'payload.a == "{}"', "payload.a == '{}'"]))
def test_a_substituted_text_means_only_itself(value: str, shape: str) -> None:
    before, after = shape.split("{}")
    assume(after or value not in ("true", "false", "null"))  # without quotes, these are JSON's own
    condition = Condition(before + Condition.literal(value, before) + after)
    assert condition.test(message({"a": value}))
    assert not condition.test(message({"a": value + "x"}))


@pytest.mark.parametrize(
    ("text", "payload", "meta", "expected"),
    [
        ('payload.personType == "1" and payload.verifiedCode == 0', {"personType": 1, "verifiedCode": "0"}, {}, True),
        ("not payload.a and payload.b", {"a": False, "b": 1}, {}, True),
        ("payload.a or payload.b and payload.c", {"a": 1}, {}, True),
        ("(payload.a or payload.b) and payload.c", {"a": 1}, {}, False),
        ('"door" in payload.name', {"name": "the door"}, {}, True),
        ("payload.n in payload.list", {"n": 1, "list": ["1"]}, {}, True),
        ("payload.n not in payload.n", {"n": 5}, {}, True),
        ("device == '0012'", {}, {"device": "0012"}, True),
        ("device == 12", {}, {"device": "0012"}, False),
        ("payload.data.0.num > 9", {"data": [{"num": "10"}]}, {}, True),
        ('payload."a.b" == 1', {"a.b": 1}, {}, True),
        ("payload.姓名 == '王'", {"姓名": "王"}, {}, True),
        ("payload.content-type == 'x'", {"content-type": "x"}, {}, True),
        ("nothing == null", {}, {}, True),
        ("payload.a < 'b'", {"a": "a"}, {}, True),
        ("payload.a < 1", {"a": "a"}, {}, False),
        ("payload.a == 1", {"a": True}, {}, False),
        ("true", {}, {}, True),
    ],
)
def test_what_devices_send_compares_as_people_mean_it(
    text: str, payload: Any, meta: dict[str, Any], expected: bool
) -> None:
    assert Condition(text).test(message(payload, **meta)) is expected


def test_a_condition_of_any_length_is_one_flat_walk() -> None:
    assert Condition(" or ".join(["payload.a == 1"] * 5000)).test(message({"a": 1}))
    assert Condition(" and ".join(["payload.a == 1"] * 5000)).test(message({"a": 1}))


@pytest.mark.parametrize("text", ["(" * 5000 + "true" + ")" * 5000, "not " * 5000 + "true", "true in " + "[" * 5000])
def test_depth_without_end_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="nested more than 50 levels deep"):
        Condition(text)


def test_a_text_of_ten_thousand_digits_is_no_number_and_no_failure() -> None:
    digits = "9" * 10_000
    assert as_number(digits) == digits
    assert not Condition("payload.a > 1").test(message({"a": digits}))
    assert equal(digits, digits)
