"""What only the fast client's own connections do; what both clients promise is in test_client.py."""

import asyncio
import gzip
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowengine import Retry
from flowengine_http.client import BODY_LIMIT
from flowengine_http.direct import DirectClient
from tests.flowengine_http.scripted import Wire, answering, scripted
from tests.flowengine_http.test_client import OK, answer, opened, post

TEXT = b'{"code": 0}'


async def test_a_connection_whose_far_end_has_said_its_last_word_is_not_used_again() -> None:
    """Between that and the end of the connection is a turn of the loop, in which a post may begin."""
    async with scripted(answering(OK)) as server, opened(DirectClient) as client:
        assert isinstance(client, DirectClient)
        await post(client, server.url)
        (known,) = client._servers.values()
        known.idle[0].eof_received()
        assert (await post(client, server.url)).body == b"ok"
        assert len(server.wires) == 2


async def test_a_head_without_end_is_a_retry_before_it_fills_the_memory() -> None:
    sent = 0

    async def endless(wire: Wire) -> None:
        nonlocal sent
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            await wire.send(b"X-A: " + b"a" * 10_000 + b"\r\n")
            sent += 10_000

    async with scripted(endless) as server, opened(DirectClient, timeout=3600) as client:
        with pytest.raises(Retry, match="broke the exchange off"):
            await post(client, server.url)
    assert sent < 20_000_000  # what the sockets of both sides hold, and not what could be sent


def _raw(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "body", "heard"),
    [
        (b"gzip", gzip.compress(TEXT), TEXT),
        (b"X-GZIP", gzip.compress(TEXT), TEXT),
        (b"deflate", zlib.compress(TEXT), TEXT),
        (b"deflate", _raw(TEXT), TEXT),
        (b"br", TEXT, TEXT),
        (b"identity", TEXT, TEXT),
        (b"gzip", b"", b""),
        (b"gzip", gzip.compress(bytes(50_000_000)), bytes(BODY_LIMIT)),
    ],
    ids=["gzip", "x-gzip", "deflate", "deflate without its wrapper", "unknown", "identity", "empty", "bomb"],
)
async def test_what_is_compressed_although_nobody_asked_is_read(coding: bytes, body: bytes, heard: bytes) -> None:
    fields = (b"Content-Encoding: " + coding, b"Content-Length: %d" % len(body))
    async with scripted(answering(answer(b"200 OK", *fields, body=body))) as server, opened(DirectClient) as client:
        assert (await post(client, server.url)).body == heard


async def test_what_says_it_is_compressed_and_is_not_is_a_retry() -> None:
    fields = (b"Content-Encoding: gzip", b"Content-Length: 2")
    async with scripted(answering(answer(b"200 OK", *fields, body=b"{}"))) as server, opened(DirectClient) as client:
        with pytest.raises(Retry, match="broke the exchange off"):
            await post(client, server.url)


async def test_connections_that_were_idle_for_long_are_closed() -> None:
    async with scripted(answering(OK)) as server, opened(DirectClient) as client:
        assert isinstance(client, DirectClient)
        await post(client, server.url)
        (known,) = client._servers.values()
        (wire,) = known.idle
        client._sweep()
        assert known.idle == [wire]
        wire.idle_since -= 3600
        client._sweep()
        assert known.idle == []
        await wire.closed
        assert (await post(client, server.url)).body == b"ok"
        assert len(server.wires) == 2


async def test_a_flow_that_makes_hosts_of_messages_keeps_a_bounded_number_of_them() -> None:
    async with scripted(answering(OK)) as server, opened(DirectClient) as client:
        assert isinstance(client, DirectClient)
        for number in range(200):
            url = server.url.replace("//", f"//user{number}:@")
            assert (await post(client, url)).status == 200
        assert len(client._servers) <= 64
        assert sum(len(known.idle) for known in client._servers.values()) <= 64


# An answer whose head is that of the one before is not parsed again.


def long(size: int, fill: bytes = b"a") -> bytes:
    return answer(b"200 OK", b"Content-Length: %d" % size, body=fill * size)


TWO_ANSWERS = {
    "the same": (OK, OK),
    "another body": (OK, OK[:-2] + b"no"),
    "a short body": (OK, OK[:-1]),
    "a byte behind it": (OK, OK + b"!"),
    "an empty line behind both": (OK + b"\r\n", OK + b"\r\n"),
    "an empty line behind both, another body": (OK + b"\r\n", OK[:-2] + b"no\r\n"),
    "a line feed behind both": (OK + b"\n", OK[:-2] + b"no\n"),
    "a body that ends the head again": (
        long(2).replace(b"aa", b"\r\n") + b"\r\n",
        long(2).replace(b"aa", b"\r\n") + b"XY",
    ),
    "bare line feeds": (OK.replace(b"\r\n", b"\n"), OK.replace(b"\r\n", b"\n")[:-2] + b"no"),
    "two at once": (OK, OK + OK),
    "another status": (OK, OK.replace(b"200", b"503")),
    "another length": (OK, OK.replace(b"Length: 2", b"Length: 3") + b"!"),
    "another field": (long(3), long(3).replace(b"Content", b"X")),
    "no body": (long(0), long(0)),
    "a body over the limit": (long(BODY_LIMIT + 1), long(BODY_LIMIT + 1, b"b")),
    "an early hint": (b"HTTP/1.1 103 Hints\r\n\r\n" + OK, b"HTTP/1.1 103 Hints\r\n\r\n" + OK[:-2] + b"no"),
    "no content": (answer(b"204 No Content"), answer(b"204 No Content")),
    "the last of its connection": (answer(b"200 OK", b"Connection: close", b"Content-Length: 0"), OK),
    "chunks": (
        answer(b"200 OK", b"Transfer-Encoding: chunked", body=b"2\r\nok\r\n0\r\n\r\n"),
        answer(b"200 OK", b"Transfer-Encoding: chunked", body=b"2\r\nno\r\n0\r\n\r\n"),
    ),
    "compressed": (
        answer(b"200 OK", b"Content-Encoding: gzip", b"Content-Length: 30", body=gzip.compress(b"first name")),
        answer(b"200 OK", b"Content-Encoding: gzip", b"Content-Length: 30", body=gzip.compress(b"other name")),
    ),
}


@pytest.mark.parametrize(("first", "second"), TWO_ANSWERS.values(), ids=TWO_ANSWERS)
async def test_an_answer_is_heard_the_same_whatever_came_before_it(first: bytes, second: bytes) -> None:
    assert await _heard_after([first], [second]) == await _heard_after(None, [second])


async def test_a_last_piece_is_not_taken_for_a_head() -> None:
    no = answer(b"503 X", b"Content-Length: 2", body=b"no")
    assert (await _heard_after([OK[:-2], OK[-2:]], [no[:2], no[2:]]))[0] == 503


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_an_answer_like_the_one_before_is_heard_the_same_as_by_itself(data: st.DataObject) -> None:
    body = data.draw(st.binary(max_size=40))
    fields = data.draw(st.lists(st.sampled_from([b"X-A: 1", b"Date: now", b"Retry-After: 7"]), max_size=3))
    first = answer(b"200 OK", *fields, b"Content-Length: %d" % len(body), body=body)
    at = data.draw(st.integers(0, len(first) - 1))
    other = data.draw(st.binary(max_size=3))
    second = first[:at] + other + first[at + data.draw(st.integers(0, 3)) :]
    cut = data.draw(st.integers(0, len(second)))
    parts = data.draw(st.sampled_from([[second], [second[:cut], second[cut:]]]))
    assert asyncio.run(_heard_after([first], parts)) == asyncio.run(_heard_after(None, parts))


async def _heard_after(first: list[bytes] | None, parts: list[bytes]) -> list[Any]:
    """What a client hears in an answer, on a connection that had another before."""

    async def script(wire: Wire) -> None:
        if first is not None and len(server.wires) == 1:
            await wire.request()
            await _in_pieces(wire, first)
        await wire.request()
        await _in_pieces(wire, parts)
        wire.writer.write_eof()
        await wire.hung_up()

    async with scripted(script) as server, opened(DirectClient) as client:
        if first is not None:
            await post(client, server.url)
        try:
            return [*await post(client, server.url)]
        except Retry as failure:
            return [failure.reason.replace(server.url, "")]


async def _in_pieces(wire: Wire, parts: list[bytes]) -> None:
    """Send parts so that each is heard by itself."""
    for number, part in enumerate(parts):
        if number:
            await asyncio.sleep(0.02)
        await wire.send(part)


async def test_headers_of_one_answer_are_not_those_of_the_next() -> None:
    async with scripted(answering(OK)) as server, opened(DirectClient) as client:
        (await post(client, server.url)).headers["x-a"] = "a node's own"
        (await post(client, server.url)).headers["x-a"] = "a node's own"
        assert (await post(client, server.url)).headers == {"content-length": "2"}


async def test_an_answer_with_a_known_head_is_not_parsed_again() -> None:
    async with scripted(answering(OK)) as server, opened(DirectClient) as client:
        assert isinstance(client, DirectClient)
        await post(client, server.url)
        (known,) = client._servers.values()
        del known.idle[0]._parser
        assert await post(client, server.url) == (200, {"content-length": "2"}, b"ok")
        known.idle[0]._parser = None  # type: ignore[assignment]  # what its end takes away
