"""Topic patterns: what they subscribe to, what they match, and the words of their errors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowengine_mqtt.filters import matches
from flowengine_mqtt.topics import TopicPattern


@pytest.mark.parametrize(
    ("pattern", "topic_filter", "names"),
    [
        ("fungxi_{device}_upLink", "+", ("device",)),
        ("site/{site}/gate/{device}/#", "site/+/gate/+/#", ("site", "device")),
        ("a/+/c", "a/+/c", ()),
        ("#", "#", ()),
        ("a/{x}-{y}/b", "a/+/b", ("x", "y")),
        ("a/{{b}}", "a/{b}", ()),
        ("$SYS/broker/{key}", "$SYS/broker/+", ("key",)),
        ("/{x}", "/+", ("x",)),
    ],
)
def test_a_pattern_subscribes_to_the_narrowest_legal_filter(
    pattern: str, topic_filter: str, names: tuple[str, ...]
) -> None:
    parsed = TopicPattern(pattern)
    assert parsed.filter == topic_filter
    assert parsed.names == names


@pytest.mark.parametrize(
    ("pattern", "topic", "found"),
    [
        ("fungxi_{device}_upLink", "fungxi_0012_upLink", {"device": "0012"}),
        ("fungxi_{device}_upLink", "fungxi__upLink", None),
        ("fungxi_{device}_upLink", "fungxi_0012_downLink", None),
        ("fungxi_{device}_upLink", "fungxi_a/b_upLink", None),
        ("fungxi_{device}_upLink", "fungxi_a_upLink_upLink", {"device": "a_upLink"}),
        ("fungxi_{device}_upLink", "fungxi_\n_upLink", {"device": "\n"}),
        ("{a}-{b}_x", "1-2-3_x", {"a": "1", "b": "2-3"}),
        ("{a}-{b}", "--", None),
        ("{a}-{b}", "---", {"a": "-", "b": "-"}),
        ("g/{device}/#", "g/7", {"device": "7"}),
        ("g/{device}/#", "g/7/a/b", {"device": "7"}),
        ("g/{device}/#", "g", None),
        ("g/+/{x}", "g//y", {"x": "y"}),
        ("{x}", "$SYS", None),
        ("#", "$SYS/a", None),
        ("$SYS/{x}", "$SYS/a", {"x": "a"}),
        ("a.c/{x}", "abc/1", None),
        ("a/{{{x}}}", "a/{1}", {"x": "1"}),
        ("a", "a", {}),
    ],
)
def test_a_pattern_captures_from_the_topics_it_fits(pattern: str, topic: str, found: dict[str, str] | None) -> None:
    assert TopicPattern(pattern).match(topic) == found


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("", "must not be empty"),
        ("a#", "whole level"),
        ("a+/b", "whole level"),
        ("a/#/b", "# must be the last level"),
        ("{x}#", "whole level"),
        ("+{x}", "whole level"),
        ("a\0b", "null character"),
        ("a/\ud800", "not valid Unicode"),
        ("x" * 65536, "too long"),
        ("é" * 32768, "too long"),
        ("{a}/{a}", "'a' twice"),
        ("{}", "without a name"),
        ("{a b}", "'a b' is no name"),
        ("{1a}", "'1a' is no name"),
        ("{a.b}", "'a.b' is no name"),
        ("{a", "brace without its partner at character 1"),
        ("a}", "brace without its partner at character 2"),
        ("{a}{b}", "nothing stands between {a} and {b}"),
        ("$share/group/{device}", "shared subscription"),
        ("$SYS_{x}", "can match nothing"),
    ],
)
def test_a_wrong_pattern_is_refused_with_one_sentence_that_says_why(pattern: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"\.$") as caught:
        TopicPattern(pattern)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["topic", "qos", "retained", "message", "payload", "result", "error"])
def test_a_pattern_must_not_capture_a_reserved_word(name: str) -> None:
    with pytest.raises(ValueError, match=f"must not capture '{name}'"):
        TopicPattern(f"a/{{{name}}}")


def test_what_is_reserved_can_be_set() -> None:
    assert TopicPattern("{topic}", reserved=()).names == ("topic",)
    with pytest.raises(ValueError, match="must not capture 'device'"):
        TopicPattern("{device}", reserved={"device"})


def test_listed_devices_become_a_filter_each() -> None:
    pattern = TopicPattern("fungxi_{device}_upLink/{kind}")
    assert pattern.filters(["a", "b", "a"]) == ["fungxi_a_upLink/+", "fungxi_b_upLink/+"]
    assert pattern.filters() == ["+/+"]


def test_listed_devices_need_a_place_in_the_pattern() -> None:
    with pytest.raises(ValueError, match=r"needs \{device\}"):
        TopicPattern("a/{gate}").filters(["a"])


@pytest.mark.parametrize("device", ["", "a/b", "+", "a#", "a\nb", "\0"])
def test_a_device_that_cannot_stand_in_a_topic_is_refused(device: str) -> None:
    with pytest.raises(ValueError, match="cannot stand in a topic"):
        TopicPattern("a/{device}").filters([device])


def test_a_hostile_level_of_separators_costs_little() -> None:
    """With plain groups this takes minutes; the test's own time limit is what fails."""
    pattern = TopicPattern("{a}-{b}-{c}-{d}_upLink")
    assert pattern.match("-" * 65000) is None


_word = st.text("ab_-", min_size=1, max_size=4)


@given(st.lists(st.tuples(_word, st.sampled_from(["x", "+", ""])), min_size=1, max_size=4), st.data())
def test_what_a_pattern_matches_its_filter_matches_and_the_captures_rebuild_the_topic(
    parts: list[tuple[str, str]], data: st.DataObject
) -> None:
    levels = [
        kind if kind == "+" else f"{{{kind}{i}}}_{word}" if kind else word for i, (word, kind) in enumerate(parts)
    ]
    pattern = TopicPattern("/".join(levels))
    topic = "/".join(
        data.draw(_word) if kind == "+" else f"{data.draw(_word)}_{word}" if kind else word for word, kind in parts
    )
    found = pattern.match(topic)
    assert found is not None
    assert matches(pattern.filter, topic)
    rebuilt = topic.split("/")
    for i, (word, kind) in enumerate(parts):
        if kind == "x":
            assert f"{found[f'x{i}']}_{word}" == rebuilt[i]
