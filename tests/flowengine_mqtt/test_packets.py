"""Packets written here: what paho, an independent reader, makes of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from flowengine_mqtt import packets


def test_pubacks_stand_in_the_order_given() -> None:
    assert packets.pubacks([1, 65535]) == b"\x40\x02\x00\x01\x40\x02\xff\xff"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, b"\x30\x07\x00\x03a/b"),
        ({"packet_id": 258}, b"\x32\x09\x00\x03a/b\x01\x02"),
        ({"packet_id": 1, "retain": True}, b"\x33\x09\x00\x03a/b\x00\x01"),
    ],
)
def test_a_publish_of_3_1_1(options: dict[str, int], expected: bytes) -> None:
    head = packets.publish_head("3.1.1", packets.topic_name("a/b"), 2, **options)  # type: ignore[arg-type]
    assert head == expected


@given(st.integers(0, 0xFFFF_FFFF), st.integers(0, 1000))
def test_a_message_expiry_interval_is_a_property_of_mqtt_5(expiry: int, size: int) -> None:
    topic = packets.topic_name("t")
    head = packets.publish_head("5", topic, size, packet_id=7, expiry=expiry)
    at = head.index(topic) + len(topic) + 2
    properties: Any = Properties(PacketTypes.PUBLISH)
    _properties, length = properties.unpack(head[at:])
    assert properties.MessageExpiryInterval == expiry
    assert at + length == len(head)
    assert packets.publish_head("3.1.1", topic, size, packet_id=7, expiry=expiry)[-2:] == b"\x00\x07"


def test_an_expiry_of_more_than_136_years_is_the_longest_there_is() -> None:
    head = packets.publish_head("5", packets.topic_name("t"), 0, expiry=1 << 40)
    assert head.endswith(b"\x05\x02\xff\xff\xff\xff")


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (0, b"\x00"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (16_383, b"\xff\x7f"),
        (16_384, b"\x80\x80\x01"),
        (268_435_455, b"\xff\xff\xff\x7f"),
    ],
)
def test_lengths_are_written_as_in_section_1_5_5(number: int, written: bytes) -> None:
    assert packets.variable_byte_integer(number) == written


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0b", "x" * 65_536, "\ud800"])
def test_what_nothing_can_be_published_to_is_refused_each_time(topic: str) -> None:
    for _attempt in range(2):
        with pytest.raises(ValueError):
            packets.topic_name(topic)


def test_topics_are_text_of_several_bytes_a_character() -> None:
    assert packets.topic_name("门") == b"\x00\x03\xe9\x97\xa8"
