"""Which mqtt-in a message is for."""

from __future__ import annotations

from typing import Any

import pytest

from flowengine_mqtt import dispatch
from flowengine_mqtt.dispatch import Dispatch, Subscriber
from flowengine_mqtt.reader import DUP, QOS_1, RETAIN
from flowengine_mqtt.topics import TopicPattern


def emit(*_args: Any, **_how: Any) -> Any:
    raise AssertionError("not called here")


def subscriber(pattern: str, qos: int = 1, devices: list[str] | None = None, *, takes: bool = True) -> Subscriber:
    return Subscriber(TopicPattern(pattern), devices or [], qos, emit if takes else None)  # type: ignore[arg-type]


def test_metadata_says_what_the_packet_and_its_topic_say() -> None:
    table = Dispatch()
    table.add(subscriber("up/{device}"))
    for flags, qos, retained in [(0, 0, False), (RETAIN, 0, True), (QOS_1 | DUP, 1, False), (QOS_1 | RETAIN, 1, True)]:
        for _again in range(2):
            ((_emit, meta),) = table.targets(flags, "up/门".encode())
            assert meta == {"topic": "up/门", "qos": qos, "retained": retained, "device": "门"}


def test_what_was_found_is_remembered_and_found_again_when_somebody_subscribes() -> None:
    table = Dispatch()
    assert table.targets(QOS_1, b"up/7") == ()
    table.add(subscriber("up/{device}"))
    found = table.targets(QOS_1, b"up/7")
    assert len(found) == 1
    assert table.targets(QOS_1 | DUP, b"up/7") is found
    table.add(subscriber("up/+"))
    assert len(table.targets(QOS_1, b"up/7")) == 2


def test_no_more_topics_are_remembered_than_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_CACHED_TOPICS", 10)
    table = Dispatch()
    table.add(subscriber("#"))
    for number in range(100):
        assert table.targets(0, b"%d" % number)
        assert len(table._found[0]) <= 10


def test_a_topic_that_is_not_utf_8_is_no_topic() -> None:
    table = Dispatch()
    table.add(subscriber("#"))
    with pytest.raises(UnicodeDecodeError):
        table.targets(0, b"\xff")
    assert not table._found[0]


def test_filters_are_merged_with_those_of_a_left_out_flow_or_without() -> None:
    table = Dispatch()
    table.add(subscriber("a/{device}", qos=0))
    table.add(subscriber("lost/{device}", takes=False, devices=["7"]))
    assert table.filters(left_out=True) == {"a/+": 0, "lost/7": 1}
    assert table.filters(left_out=False) == {"a/+": 0}


def test_a_message_is_awaited_by_the_left_out_flow_that_it_is_for() -> None:
    table = Dispatch()
    table.add(subscriber("lost/{device}", takes=False, devices=["7"]))
    assert table.awaited(b"lost/7") and not table.awaited(b"lost/8")
    assert table.targets(QOS_1, b"lost/7") == ()
