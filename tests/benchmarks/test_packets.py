"""MQTT packets, as bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.packets import Reader, publish_head, remaining_length, subscribe
from benchmarks.payloads import NUMBER_OF_ZEROS, Kind, around_number, number_in


@pytest.mark.parametrize(
    ("size", "written"),
    [(0, "00"), (127, "7f"), (128, "8001"), (16383, "ff7f"), (16384, "808001"), (268435455, "ffffff7f")],
)
def test_a_remaining_length_is_written_as_the_standard_does(size: int, written: str) -> None:
    assert remaining_length(size).hex() == written  # MQTT 3.1.1 table 2.4


@given(st.lists(st.integers(0, 400), max_size=12), st.lists(st.integers(1, 300), max_size=20))
def test_packets_are_cut_wherever_the_pieces_end(sizes: list[int], pieces: list[int]) -> None:
    bodies = [bytes([number]) * size for number, size in enumerate(sizes)]
    stream = b"".join(b"\x30" + remaining_length(len(body)) + body for body in bodies)
    reader = Reader()
    found: list[tuple[int, bytes]] = []
    for piece in pieces:
        found += reader.feed(stream[:piece])
        stream = stream[piece:]
    found += reader.feed(stream)
    assert found == [(0x30, body) for body in bodies]


def test_a_publish_head_says_how_long_its_payload_is() -> None:
    head = publish_head("a/b", 300)
    assert list(Reader().feed(head + b"\0\1" + bytes(300))) == [(0x32, b"\0\3a/b\0\1" + bytes(300))]
    assert not list(Reader().feed(head + b"\0\1" + bytes(299)))


def test_all_topics_are_subscribed_in_packets_of_a_bearable_size() -> None:
    packets = subscribe([f"topic/{number}" for number in range(450)])
    assert len(packets) == 3
    assert sum(packet.count(b"topic/") for packet in packets) == 450


@pytest.mark.parametrize("kind", ["record", "stranger", "command"])
def test_the_number_in_a_payload_is_found(kind: Kind) -> None:
    before, after = around_number(kind, batch=7, size=1500)
    assert number_in(before + b"00001234" + after) == (7, 1234)


@pytest.mark.parametrize("size", [300, 1500, 60_000])
def test_a_record_has_its_size(size: int) -> None:
    before, after = around_number("record", 1, size)
    assert len(before + NUMBER_OF_ZEROS + after) == size
