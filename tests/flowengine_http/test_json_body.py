"""What is posted as JSON. What is read is in test_http_in.py."""

import dataclasses
import decimal
import math
import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowengine_http.json_body import encode

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_a_value_is_written_as_msgspec_means_it(value: Any) -> None:
    """The texts differ in the sign of large exponents alone: 1e+16 and 1e16 are one number (RFC 8259 section 6)."""
    try:
        expected = msgspec.json.encode(value)
    except Exception as refused:
        with pytest.raises(type(refused)):
            encode(value)
    else:
        assert msgspec.json.decode(encode(value)) == msgspec.json.decode(expected)


@dataclasses.dataclass
class Point:
    x: datetime


class Text(str):
    pass


@pytest.mark.parametrize(
    "value",
    [
        {"n": 2**64, "m": -(2**63) - 1},
        [math.nan, -math.inf],
        {1: 2, 1.5: 3},
        b"\x00\xff",
        datetime(2024, 1, 1, 8, tzinfo=UTC),
        datetime(2024, 1, 1, 8),
        date(2024, 1, 1),
        timedelta(seconds=90),
        decimal.Decimal("1.50"),
        uuid.UUID(int=1),
        {3},
        (1, "2"),
        Point(datetime(2024, 1, 1, tzinfo=UTC)),
        msgspec.Raw(b"[1, 2]"),
        '\x7f\x00\u2028/<"',
    ],
)
def test_what_a_node_may_put_in_a_payload_is_written_as_ever(value: Any) -> None:
    assert encode({"v": value}) == msgspec.json.encode({"v": value})


@pytest.mark.parametrize("value", [object(), "half \ud800", Text("x"), {None: 1}, {(1, 2): 3}])
def test_what_json_cannot_hold_is_refused_as_ever(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as ever:
        msgspec.json.encode({"v": value})
    with pytest.raises(ever.type):
        encode({"v": value})


def test_a_circle_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(RecursionError):
        encode(circle)
