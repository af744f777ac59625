"""The sink, as a process, over real sockets."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from benchmarks.payloads import around_number
from benchmarks.rig import Rig


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig() as rig:
        rig.board.begin(devices=2)
        yield rig


def request(rig: Rig, number: int, *, size: int = 1500, batch: int | None = None) -> bytes:
    before, after = around_number("record", rig.board.batch if batch is None else batch, size)
    body = before + b"%08d" % number + after
    return b"POST /any HTTP/1.1\r\nHost: sink\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def answers(rig: Rig, sent: bytes, count: int, piece: int = 1 << 20) -> bytes:
    """Send in pieces, and read until so many answers have come."""
    with socket.create_connection(("127.0.0.1", rig.sink_port), 10) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(sent), piece):
            sock.sendall(sent[at : at + piece])
        data = b""
        while data.count(b"HTTP/1.1") < count:
            more = sock.recv(65536)
            assert more, "the sink closed the connection"
            data += more
        return data


def test_arrivals_are_counted_with_their_times(rig: Rig) -> None:
    before = time.monotonic()
    answers(rig, request(rig, 0) + request(rig, 5), 2)
    assert rig.board.posts == 2
    assert [number for number, at in enumerate(rig.board.arrived[:10]) if at] == [0, 5]
    assert before < rig.board.arrived[5] < time.monotonic()


@pytest.mark.parametrize("piece", [7, 1000, 65536])
def test_requests_may_come_in_any_pieces(rig: Rig, piece: int) -> None:
    sent = b"".join(request(rig, number, size=size) for number, size in enumerate((200, 1500, 60_000, 300)))
    assert answers(rig, sent, 4, piece).count(b" 200 ") == 4
    assert rig.board.posts == 4


@pytest.mark.parametrize("piece", [7, 1000, 65536])
def test_each_record_of_an_array_counts(rig: Rig, piece: int) -> None:
    records = [request(rig, number).partition(b"\r\n\r\n")[2] for number in (0, 1, 2, 1)]
    body = b"[" + b",".join(records) + b"]"
    sent = b"POST /any HTTP/1.1\r\nHost: sink\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    assert answers(rig, sent + request(rig, 3), 2, piece).count(b" 200 ") == 2
    assert (rig.board.posts, rig.board.repeats) == (4, 1)


def test_a_repeated_record_counts_as_repeated(rig: Rig) -> None:
    answers(rig, request(rig, 3) * 3, 3)
    assert (rig.board.posts, rig.board.repeats) == (1, 2)


def test_a_record_behind_a_later_one_of_its_device_is_out_of_order(rig: Rig) -> None:
    answers(rig, b"".join(request(rig, number) for number in (0, 4, 1, 2, 3)), 5)  # two devices: even and odd
    assert rig.board.swapped == 1


def test_a_record_of_another_batch_is_a_stray(rig: Rig) -> None:
    answers(rig, request(rig, 0, batch=rig.board.batch + 1) + b"GET / HTTP/1.1\r\n\r\n", 2)
    assert (rig.board.posts, rig.board.strays) == (0, 2)


def test_a_backend_that_is_down_takes_nothing(rig: Rig) -> None:
    rig.board.status = 503
    assert answers(rig, request(rig, 0), 1).startswith(b"HTTP/1.1 503")
    assert (rig.board.posts, rig.board.refused) == (0, 1)


def test_a_slow_backend_answers_no_sooner_than_it_should(rig: Rig) -> None:
    rig.board.delay_us = 50_000
    began = time.monotonic()
    answers(rig, request(rig, 0), 1)
    assert time.monotonic() - began >= 0.05
