"""Option types that need no message: paths, durations, secrets, routes, refs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowengine import Duration, Missing, OptionError, Path, Ref, Route, Secret

keys = st.text(min_size=1, max_size=6).filter(lambda k: '"' not in k)


def written(segments: list[str]) -> str:
    """A path as a person writes it: keys with a dot in quotes."""
    return ".".join(f'"{s}"' if "." in s else s for s in segments)


@given(st.lists(keys, max_size=5), st.integers())
def test_a_path_leads_to_the_value_that_stands_there(segments: list[str], value: int) -> None:
    payload: Any = value
    for segment in reversed(segments):
        payload = {segment: payload, "other": None}
    path = Path(written(segments))
    assert path.segments == tuple(segments)
    assert path.get(payload) == value
    assert path.find(payload) == value


@given(st.lists(st.integers(), min_size=1), st.data())
def test_a_number_in_a_path_is_a_place_in_a_list(items: list[int], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(items) - 1))
    assert Path(f"a.{place}").get({"a": items}) == items[place]
    with pytest.raises(Missing):
        Path(f"a.{len(items)}").get({"a": items})


@given(st.text(max_size=20))
def test_any_text_is_a_path_or_an_option_error_inside_it(text: str) -> None:
    try:
        Path(text)
    except OptionError as error:
        assert error.offset is not None
        assert 0 <= error.offset <= len(text)


def test_the_empty_path_is_the_whole_payload() -> None:
    assert Path("").get([1]) == [1]


@pytest.mark.parametrize(
    ("path", "payload", "words"),
    [
        ("a", {}, "'a' is missing: the payload is an object without it"),
        ("a.b", {"a": "x"}, "'a.b' is missing: 'a' is a text"),
        ("a.1", {"a": [0]}, "'a.1' is missing: 'a' is a list of 1"),
        ("a.b.c", {"a": {"b": None}}, "'a.b.c' is missing: 'a.b' is nothing"),
        ("a", b"{}", "'a' is missing: the payload is bytes (put json-parse before this node)"),
    ],
)
def test_a_path_that_leads_nowhere_says_how_far_it_leads(path: str, payload: Any, words: str) -> None:
    with pytest.raises(Missing) as caught:
        Path(path).get(payload)
    assert caught.value.reason == words


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("50ms", 0.05), ("10s", 10), ("5m", 300), ("5 min", 300), ("72h", 259200), ("7d", 604800), (3, 3), ("1.5", 1.5)],
)
def test_a_duration_is_read_in_seconds(text: str | float, seconds: float) -> None:
    assert Duration(text).seconds == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "x", "5x", "-1s", "1h30m", "s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="write it as 50ms"):
        Duration(text)


@given(st.text(min_size=4))
def test_a_secret_does_not_show_itself(value: str) -> None:
    secret = Secret(value)
    assert secret.value == value
    assert value not in {repr(secret), str(secret), secret.text}
    assert bool(secret) and not Secret("")


def test_a_ref_is_bound_once_the_flow_is_loaded() -> None:
    ref: Ref[Any] = Ref("gate")
    with pytest.raises(RuntimeError, match="'gate' is not bound yet"):
        _ = ref.target
    ref.bind("target")
    assert ref.target == "target"


def test_only_next_stays() -> None:
    assert [Route(end).stays for end in ("next", "drop", "dead", "chain")] == [True, False, False, False]
