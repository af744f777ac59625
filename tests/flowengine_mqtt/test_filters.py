"""Topic filters: matching as paho does, covering, overlapping, and a union that brings each message once."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from flowengine_mqtt.filters import check_filter, check_topic, covers, matches, merge, overlaps

_level = st.sampled_from(["a", "b", "", "$s"])
topics = st.lists(_level, min_size=1, max_size=4).map("/".join).filter(bool)


@st.composite
def _filter(draw: st.DrawFn) -> str:
    levels = draw(st.lists(st.sampled_from(["a", "b", "", "$s", "+", "+"]), min_size=0, max_size=4))
    if draw(st.booleans()) or not "/".join(levels):
        levels.append("#")
    return "/".join(levels)


filters = _filter()


@given(filters, topics)
def test_matching_agrees_with_paho(topic_filter: str, topic: str) -> None:
    assert matches(topic_filter, topic) == topic_matches_sub(topic_filter, topic)


@given(filters, filters, topics)
def test_a_filter_that_covers_another_matches_all_that_it_matches(outer: str, inner: str, topic: str) -> None:
    if covers(outer, inner) and topic_matches_sub(inner, topic):
        assert topic_matches_sub(outer, topic)


@given(filters, filters, topics)
def test_filters_that_share_a_topic_overlap(first: str, second: str, topic: str) -> None:
    if topic_matches_sub(first, topic) and topic_matches_sub(second, topic):
        assert overlaps(first, second)
        assert overlaps(second, first)


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        ("#", "a/+", True),
        ("#", "$SYS/a", False),
        ("+/a", "$SYS/a", False),
        ("$SYS/#", "$SYS/+", True),
        ("a/#", "a", True),
        ("a/+/#", "a/#", False),
        ("+/#", "#", True),
        ("#", "+/#", True),
        ("a/+", "a/b", True),
        ("a/b", "a/+", False),
        ("+/+", "a/#", False),
        ("a", "a/b", False),
    ],
)
def test_covering(outer: str, inner: str, expected: bool) -> None:
    assert covers(outer, inner) is expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("a/+", "+/b", True),
        ("a/#", "a", True),
        ("a/#", "b/#", False),
        ("#", "$SYS/#", False),
        ("a/+", "a", False),
        ("a/b/#", "+/+", True),
        ("+", "+/+", False),
    ],
)
def test_overlapping(first: str, second: str, expected: bool) -> None:
    assert overlaps(first, second) is expected


@pytest.mark.parametrize(
    ("asked", "merged"),
    [
        ({}, {}),
        ({"a": 0, "b": 1}, {"a": 0, "b": 1}),
        ({"a/+": 0, "a/b": 1}, {"a/+": 1}),
        ({"a/#": 0, "a": 1, "a/b/c": 0, "c": 0}, {"a/#": 1, "c": 0}),
        ({"a/+": 0, "+/b": 1}, {"+/+": 1}),
        ({"a/#": 1, "+/b": 0}, {"#": 1}),
        ({"a/+": 0, "+/b": 0, "x/y": 1}, {"+/+": 1}),
        ({"#": 0, "$SYS/#": 1}, {"#": 0, "$SYS/#": 1}),
    ],
)
def test_merging(asked: dict[str, int], merged: dict[str, int]) -> None:
    assert merge(asked) == merged


@given(st.dictionaries(filters | topics, st.sampled_from([0, 1]), max_size=6), topics)
@example({"+/#": 0, "#": 1}, "a")
def test_each_message_comes_by_exactly_one_merged_filter_at_the_qos_asked_for(
    asked: dict[str, int], topic: str
) -> None:
    merged = merge(asked)
    for topic_filter in merged:
        check_filter(topic_filter)
    wanted = [qos for topic_filter, qos in asked.items() if topic_matches_sub(topic_filter, topic)]
    given_by = [qos for topic_filter, qos in merged.items() if topic_matches_sub(topic_filter, topic)]
    assert len(given_by) <= 1
    if wanted:
        assert given_by and given_by[0] >= max(wanted)


@given(st.dictionaries(filters | topics, st.sampled_from([0, 1]), max_size=6))
def test_merging_again_changes_nothing(asked: dict[str, int]) -> None:
    assert merge(merge(asked)) == merge(asked)


def test_thousands_of_devices_merge_quickly() -> None:
    """Pairwise comparison of all would take minutes; the test's own time limit is what fails."""
    devices = {f"fungxi_{number}_upLink": 1 for number in range(20_000)}
    assert merge({**devices, "other/+": 0}) == {**devices, "other/+": 0}


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0", "\ud800", "x" * 65536])
def test_a_topic_that_cannot_be_published_to_is_refused(topic: str) -> None:
    with pytest.raises(ValueError):
        check_topic(topic)
