"""What only the fast client's own connections do; what both clients promise is in test_client.py."""

import gzip
import zlib

import pytest

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
