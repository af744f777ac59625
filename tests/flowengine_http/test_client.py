"""What both clients promise, on asyncio's loop and on uvloop. What they mean to a message is in test_http_post.py."""

import asyncio
import gzip
import hashlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from flowengine import Reject, Retry
from flowengine_http.client import BODY_LIMIT, HttpClient, Response, as_written
from flowengine_http.direct import DirectClient
from flowengine_http.session import SessionClient
from tests.flowengine_http.scripted import Request, Script, Wire, answering, scripted

# aiohttp's session says so of any body beyond 1 MB; it is not this project's to mend.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")

BOTH: list[Callable[..., HttpClient]] = [DirectClient, SessionClient]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LARGE = 20_000_000


@pytest.fixture(params=BOTH, ids=["direct", "session"])
def kind(request: pytest.FixtureRequest) -> Callable[..., HttpClient]:
    kind: Callable[..., HttpClient] = request.param
    return kind


@asynccontextmanager
async def opened(kind: Callable[..., HttpClient], timeout: float = 20, ca: str = "") -> AsyncIterator[HttpClient]:
    client = kind(timeout=timeout, ca=ca)
    await client.open()
    try:
        yield client
    finally:
        await client.close()


async def post(client: HttpClient, url: str, body: bytes = b"{}", headers: dict[str, str] | None = None) -> Response:
    return await client.post(url, headers or {"Content-Type": "application/json"}, body)


def answer(status: bytes, *fields: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, *fields, b"", body])


@pytest.mark.parametrize(
    ("parts", "expected", "kept"),
    [
        ([OK], (200, b"ok"), True),
        ([OK[:30], OK[30:50], OK[50:]], (200, b"ok"), True),
        ([answer(b"200 OK", b"Content-Length: 0")], (200, b""), True),
        ([answer(b"204 No Content")], (204, b""), True),
        ([answer(b"304 Not Modified", b"Content-Length: 5")], (304, b""), True),
        ([answer(b"101 Switching Protocols", b"Connection: upgrade", b"Upgrade: x")], (101, b""), False),
        ([answer(b"422 No", b"Content-Length: 3", body=b"why")], (422, b"why"), True),
        (
            [answer(b"200 OK", b"Transfer-Encoding: chunked", body=b"2;x=y\r\nab\r\n"), b"3\r\ncde\r\n0\r\nX-T: 1\r\n\r\n"],
            (200, b"abcde"),
            True,
        ),
        ([answer(b"100 Continue"), answer(b"103 Early Hints", b"Link: <a>"), OK], (200, b"ok"), True),
        ([answer(b"102 Processing") + OK], (200, b"ok"), True),
        ([answer(b"200 OK", b"Connection: close", b"Content-Length: 2", body=b"ok")], (200, b"ok"), False),
        ([b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"], (200, b"ok"), False),
        (
            [answer(b"200 OK", b"Content-Encoding: gzip", b"Content-Length: 22", body=gzip.compress(b"ok", mtime=0))],
            (200, b"ok"),
            True,
        ),
        (
            [answer(b"200 OK", b"Content-Length: 65537", body=b"x" * 65_537)],
            (200, b"x" * BODY_LIMIT),
            None,  # whether it has come as a whole when so much has been read is up to the network
        ),
        ([answer(b"200 OK", b"Content-Length: 9000000", body=b"x" * 300_000)], (200, b"x" * BODY_LIMIT), False),
    ],
    ids=[
        "length", "pieces", "empty", "204", "304", "101", "422", "chunked", "interim", "interim-at-once", "close", "1.0", "gzip",
        "just-too-long", "too-long",
    ],
)  # fmt: skip
async def test_an_answer_is_read_to_its_end_and_its_connection_used_again_where_that_is_allowed(
    kind: Callable[..., HttpClient], parts: list[bytes], expected: tuple[int, bytes], kept: bool | None
) -> None:
    async with scripted(answering(*parts)) as server, opened(kind) as client:
        for _ in range(2):
            response = await post(client, server.url)
            assert (response.status, response.body) == expected
        if kept is not None:
            assert len(server.wires) == (1 if kept else 2)


async def test_an_answer_without_a_length_ends_with_its_connection(kind: Callable[..., HttpClient]) -> None:
    async def until_closed(wire: Wire) -> None:
        await wire.request()
        await wire.send(answer(b"200 OK", body=b"to the"), b" end")

    async with scripted(until_closed) as server, opened(kind) as client:
        for _ in range(2):
            assert await post(client, server.url) == Response(200, {}, b"to the end")
        assert len(server.wires) == 2


async def test_headers_have_small_names_and_those_of_one_name_are_joined(kind: Callable[..., HttpClient]) -> None:
    fields = [b"X-A: 1", b"Via: a \t", b"x-a: 2", b"X-U: \xe7\x8e\x8b", b"Content-Length: 0"]
    async with scripted(answering(answer(b"200 OK", *fields))) as server, opened(kind) as client:
        response = await post(client, server.url)
    assert response.headers == {"x-a": "1, 2", "via": "a", "x-u": "王", "content-length": "0"}


async def sent(
    kind: Callable[..., HttpClient], path: str, headers: dict[str, str], body: bytes = b"{}", user: str = ""
) -> Request:
    """What the server hears."""
    heard: list[Request] = []

    async def listen(wire: Wire) -> None:
        while True:
            heard.append(await wire.request())
            await wire.send(OK)

    async with scripted(listen) as server, opened(kind) as client:
        await client.post(server.url.replace("//", f"//{user}") + path, headers, body)
    (request,) = heard
    assert request.headers.pop("host") == server.url.removeprefix("http://")
    return request


@pytest.mark.parametrize(
    ("path", "headers", "user"),
    [
        ("", {}, ""),
        ("?a=1", {"X-100%": "50 % and %s"}, ""),
        ("/a/../b//%2f%zz/设备?q=é&x=%2B+#part", {"Content-Type": "text/plain", "X-A": "王\t;"}, ""),
        ("/", {"accept": "text/html", "User-Agent": "mine", "ACCEPT-ENCODING": "identity", "content-type": "a/b"}, ""),
        ("/", {"Authorization": "Bearer x", "Cookie": "a=b"}, ""),
        ("/", {"X-A": "1"}, "user:s%3Acret@"),
        ("/", {"X-A": "1"}, "user@"),
        ("/", {"X-A": "a\ud800b"}, ""),
    ],
)
async def test_both_clients_send_the_same_request(path: str, headers: dict[str, str], user: str) -> None:
    direct, session = [await sent(kind, path, headers, "é".encode(), user) for kind in BOTH]
    assert direct == session
    assert direct.headers["content-length"] == "2"
    assert direct.headers["user-agent"].startswith("flowengine/") or "User-Agent" in headers


async def test_a_message_without_a_body_says_so(kind: Callable[..., HttpClient]) -> None:
    request = await sent(kind, "/", {}, b"")
    assert (request.body, request.headers["content-length"]) == (b"", "0")


@pytest.mark.parametrize("headers", [{"X-A": "a\r\nX-B: c"}, {"X-A\r\nX-B": "c"}, {"X-A": "\x00"}, {"X-A": "\x7f"}])
async def test_a_header_cannot_forge_another(kind: Callable[..., HttpClient], headers: dict[str, str]) -> None:
    heard = []

    async def listen(wire: Wire) -> None:
        heard.append(await wire.request())
        await wire.send(OK)

    async with scripted(listen) as server, opened(kind) as client:
        with pytest.raises(ValueError):
            await client.post(server.url, headers, b"")
        assert (await post(client, server.url)).status == 200
    assert len(heard) == 1


async def test_credentials_stand_in_one_place(kind: Callable[..., HttpClient]) -> None:
    async with opened(kind) as client:
        with pytest.raises(ValueError):
            await client.post("http://user:secret@127.0.0.1:1/", {"authorization": "Bearer x"}, b"")


@pytest.mark.parametrize("url", ["http://127.0.0.1:x/", "http:///a", "ftp://127.0.0.1/", "127.0.0.1", ""])
async def test_what_is_no_url_of_http_is_rejected(kind: Callable[..., HttpClient], url: str) -> None:
    async with opened(kind) as client:
        with pytest.raises(Reject):
            await post(client, url)


def test_a_host_in_another_script_is_looked_up_under_its_ascii_name() -> None:
    url = as_written("http://bücher.example:81/ä b")
    assert (url.raw_host, url.port, url.raw_path) == ("xn--bcher-kva.example", 81, "/%C3%A4%20b")


async def test_ipv6_addresses_are_reached(kind: Callable[..., HttpClient]) -> None:
    try:
        async with scripted(answering(OK), host="::1") as server, opened(kind) as client:
            assert (await post(client, server.url)).status == 200
    except OSError:
        pytest.skip("no IPv6 here")


async def test_as_many_connections_are_made_as_are_used_at_once(kind: Callable[..., HttpClient]) -> None:
    async with scripted(answering(OK)) as server, opened(kind) as client:

        async def work() -> None:
            for n in range(25):
                assert (await post(client, f"{server.url}/{n}")).body == b"ok"

        await asyncio.gather(*(work() for _ in range(8)))
        assert len(server.wires) <= 8


async def test_a_kept_connection_that_is_known_to_be_closed_is_not_used(kind: Callable[..., HttpClient]) -> None:
    client_closed = asyncio.Event()

    async def close_after_one(wire: Wire) -> None:
        await wire.request()
        await wire.send(OK)
        wire.writer.write_eof()
        await wire.hung_up()
        client_closed.set()

    async with scripted(close_after_one) as server, opened(kind) as client:
        for number in range(1, 4):
            assert (await post(client, server.url)).status == 200
            await asyncio.wait_for(client_closed.wait(), 20)
            client_closed.clear()
            assert len(server.wires) == number


async def test_a_kept_connection_closed_just_when_it_is_used_is_a_retry_and_the_body_goes_out_once(
    kind: Callable[..., HttpClient],
) -> None:
    bodies = []

    async def close_on_the_second(wire: Wire) -> None:
        bodies.append((await wire.request()).body)
        await wire.send(OK)
        bodies.append((await wire.request()).body)

    async with scripted(close_on_the_second) as server, opened(kind) as client:
        await post(client, server.url, b"1")
        with pytest.raises(Retry, match="broke the exchange off"):
            await post(client, server.url, b"2")
        assert bodies == [b"1", b"2"]
        await post(client, server.url, b"3")
        assert len(server.wires) == 2


async def _nothing(wire: Wire) -> None:
    await wire.request()
    await wire.hung_up()


async def _half_a_head(wire: Wire) -> None:
    await wire.request()
    await wire.send(b"HTTP/1.1 200 OK\r\nConte")
    await wire.hung_up()


async def _half_a_body(wire: Wire) -> None:
    await wire.request()
    await wire.send(answer(b"200 OK", b"Content-Length: 9", body=b"abc"))
    await wire.hung_up()


async def _no_end(wire: Wire) -> None:
    await wire.request()
    await wire.send(answer(b"200 OK", body=b"abc"))
    await wire.hung_up()


async def _only_interim(wire: Wire) -> None:
    await wire.request()
    await wire.send(answer(b"100 Continue"))
    await wire.hung_up()


@pytest.mark.parametrize("script", [_nothing, _half_a_head, _half_a_body, _no_end, _only_interim])
async def test_an_answer_that_does_not_end_in_time_is_a_retry_and_its_connection_is_closed(
    kind: Callable[..., HttpClient], script: Script
) -> None:
    closed = asyncio.Event()

    async def told(wire: Wire) -> None:
        await script(wire)
        closed.set()

    async with scripted(told) as server, opened(kind, timeout=0.1) as client:
        with pytest.raises(Retry, match=rf"^{server.url} did not answer within 0.1 s$"):
            await post(client, server.url)
        await asyncio.wait_for(closed.wait(), 20)


async def test_a_backend_that_takes_no_body_is_a_retry_in_time_and_its_connection_is_closed(
    kind: Callable[..., HttpClient],
) -> None:
    over = asyncio.Event()
    closed = asyncio.Event()

    async def stuck(wire: Wire) -> None:
        await wire.head()
        await over.wait()
        await wire.hung_up()
        closed.set()

    async with scripted(stuck) as server, opened(kind, timeout=0.3) as client:
        with pytest.raises(Retry, match="did not answer within"):
            await post(client, server.url, b"x" * LARGE)
        over.set()
        await asyncio.wait_for(closed.wait(), 20)


async def test_connecting_counts_towards_the_timeout(kind: Callable[..., HttpClient]) -> None:
    async def silent(wire: Wire) -> None:  # takes the connection, and says nothing to the client's TLS
        await wire.hung_up()

    async with scripted(silent) as server, opened(kind, timeout=0.1) as client:
        with pytest.raises(Retry, match="did not answer within"):
            await post(client, server.url.replace("http:", "https:"))


async def test_a_post_that_is_cancelled_closes_its_connection(kind: Callable[..., HttpClient]) -> None:
    heard = asyncio.Event()
    closed = asyncio.Event()

    async def silent(wire: Wire) -> None:
        await wire.request()
        heard.set()
        await wire.hung_up()
        closed.set()

    async with scripted(silent) as server, opened(kind) as client:
        task = asyncio.create_task(post(client, server.url))
        await asyncio.wait_for(heard.wait(), 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(closed.wait(), 20)


async def test_what_is_left_of_a_body_is_not_sent_after_its_post_is_cancelled() -> None:
    """The plain client goes on sending it."""
    begun, over, came = asyncio.Event(), asyncio.Event(), []

    async def stuck(wire: Wire) -> None:
        await wire.head()
        begun.set()
        await over.wait()
        came.append(await wire.hung_up())
        closed.set()

    closed = asyncio.Event()
    async with scripted(stuck) as server, opened(DirectClient) as client:
        task = asyncio.create_task(post(client, server.url, b"x" * LARGE))
        await asyncio.wait_for(begun.wait(), 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        over.set()
        await asyncio.wait_for(closed.wait(), 20)
    assert came[0] < LARGE


@pytest.mark.parametrize("script", [_nothing, _half_a_body, _no_end])
async def test_closing_the_client_ends_what_is_under_way(script: Script) -> None:
    """Of the plain client this is not promised: aiohttp leaves one that is in the middle of a body to its timeout."""
    heard = asyncio.Event()

    async def told(wire: Wire) -> None:
        asyncio.get_running_loop().call_later(0.05, heard.set)
        await script(wire)

    async with scripted(told) as server, opened(DirectClient) as client:
        task = asyncio.create_task(post(client, server.url))
        await asyncio.wait_for(heard.wait(), 20)
        await client.close()
        with pytest.raises(Retry, match="broke the exchange off"):
            await task


async def test_a_client_that_is_not_open_says_so(kind: Callable[..., HttpClient]) -> None:
    client = kind(timeout=1)
    await client.close()
    with pytest.raises(RuntimeError, match="not open"):
        await post(client, "http://127.0.0.1:1")


async def test_a_long_body_arrives_whole_at_a_backend_that_reads_slowly(kind: Callable[..., HttpClient]) -> None:
    body = bytes(range(256)) * (LARGE // 256)
    digests = []

    async def slow(wire: Wire) -> None:
        while True:
            left = int((await wire.head()).headers["content-length"])
            digest = hashlib.sha1()
            while left:
                piece = await wire.reader.read(min(left, 400_000))
                left -= len(piece)
                digest.update(piece)
                await asyncio.sleep(0.001)
            digests.append(digest.digest())
            await wire.send(OK)

    async with scripted(slow) as server, opened(kind) as client:
        for _ in range(2):
            assert (await post(client, server.url, body)).status == 200
        assert len(server.wires) == 1
    assert digests == [hashlib.sha1(body).digest()] * 2


async def test_an_answer_before_the_body_is_through_counts_and_closes_the_connection(
    kind: Callable[..., HttpClient],
) -> None:
    closed = asyncio.Event()

    async def hasty(wire: Wire) -> None:
        await wire.head()
        await wire.send(answer(b"413 Too Large", b"Content-Length: 3", body=b"big"))
        answered.set()
        await over.wait()
        await wire.hung_up()
        closed.set()

    answered, over = asyncio.Event(), asyncio.Event()
    async with scripted(hasty) as server, opened(kind) as client:
        response = await post(client, server.url, b"x" * LARGE)
        assert (response.status, response.body) == (413, b"big")
        over.set()
        await asyncio.wait_for(closed.wait(), 20)


def authority(folder: Path) -> tuple[ssl.SSLContext, str]:
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    return context, str(folder / "ca.pem")


async def test_over_tls_too_connections_are_kept_and_long_bodies_and_chunked_answers_whole(
    kind: Callable[..., HttpClient], tmp_path: Path
) -> None:
    context, ca = authority(tmp_path)
    bodies = []

    async def chunked(wire: Wire) -> None:
        while True:
            bodies.append((await wire.request()).body)
            await wire.send(answer(b"200 OK", b"Transfer-Encoding: chunked", body=b"2\r\nok\r\n"), b"0\r\n\r\n")

    wanted = [b"small", b"y" * 3_000_000, b"small again"]
    async with scripted(chunked, tls=context) as server, opened(kind, ca=ca) as client:
        for body in wanted:
            assert (await post(client, server.url, body)).body == b"ok"
        assert len(server.wires) == 1
    assert bodies == wanted


async def test_over_tls_too_a_post_past_its_time_is_cut_off(kind: Callable[..., HttpClient], tmp_path: Path) -> None:
    context, ca = authority(tmp_path)
    async with scripted(_no_end, tls=context) as server, opened(kind, timeout=0.3, ca=ca) as client:
        with pytest.raises(Retry, match=r"did not answer within 0\.3 s"):
            await post(client, server.url)


_FRAMES = st.sampled_from(["length", "chunked", "until closed"])


@st.composite
def answers(draw: st.DrawFn) -> list[bytes]:
    """An answer, well-formed or cut short, in pieces."""
    status = draw(st.sampled_from([200, 201, 204, 304, 400, 500, 503]))
    body = draw(st.binary(max_size=200)) if status not in (204, 304) else b""  # which have none
    frame = draw(_FRAMES) if body else "length"
    fields = draw(
        st.lists(st.sampled_from([b"X-A: 1", b"x-a: 2", b"Connection: close", b"Retry-After: 7"]), max_size=3)
    )
    if frame == "length":
        fields.append(b"Content-Length: %d" % len(body))
    elif frame == "chunked":
        fields.append(b"Transfer-Encoding: chunked")
        cut = draw(st.integers(0, len(body)))
        body = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (body[:cut], body[cut:]) if p) + b"0\r\n\r\n"
    whole = b"HTTP/1.1 103 Hints\r\n\r\n" * draw(st.integers(0, 2))
    whole += b"HTTP/1.1 %d X\r\n%s\r\n\r\n%s" % (status, b"\r\n".join(fields), body)
    if draw(st.booleans()):
        whole = whole[: draw(st.integers(0, len(whole)))]
    whole += draw(st.sampled_from([b"", b"\r\n"]))
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=3)))
    return [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


@settings(max_examples=60, deadline=None)
@given(parts=answers())
def test_both_clients_hear_the_same_in_an_answer(parts: list[bytes]) -> None:
    async def once(wire: Wire) -> None:
        await wire.request()
        await wire.send(*parts)

    async def hear(kind: Callable[..., HttpClient]) -> Any:
        async with scripted(once) as server, opened(kind, timeout=20 if kind is DirectClient else 0.2) as client:
            try:
                return await post(client, server.url)
            except Retry as failure:
                return failure.reason.replace(server.url, "")

    async def both() -> list[Any]:
        return [await hear(kind) for kind in BOTH]

    direct, session = asyncio.run(both())
    if session == " did not answer within 0.2 s":  # it does not notice when the body of an answer turns to no HTTP
        session = " broke the exchange off"
    assert direct == session


@pytest.mark.parametrize("rest", [b"garbage", OK, OK[:20], b"\0" * 100])
async def test_what_stands_behind_a_whole_answer_ends_the_connection_and_not_the_exchange(rest: bytes) -> None:
    """The plain client takes garbage for a broken exchange where it comes at once with the answer."""
    async with scripted(answering(OK + rest)) as server, opened(DirectClient) as client:
        for _ in range(2):
            assert (await post(client, server.url)).body == b"ok"
        assert len(server.wires) == 2


async def test_an_answer_that_turns_to_no_http_is_a_retry_at_once() -> None:
    """The plain client notices at its timeout."""
    head = answer(b"200 OK", b"Transfer-Encoding: chunked", body=b"2\r\nab\r\n")

    async def turning(wire: Wire) -> None:
        await wire.request()
        await wire.send(head)
        await asyncio.sleep(0.05)  # so that the head is heard by itself
        await wire.send(b"no length of a chunk\r\n")
        await wire.hung_up()

    async with scripted(turning) as server, opened(DirectClient, timeout=3600) as client:
        with pytest.raises(Retry, match="broke the exchange off"):
            await asyncio.wait_for(post(client, server.url), 20)


async def test_what_is_said_unasked_on_a_kept_connection_is_not_taken_for_an_answer() -> None:
    """It would confirm a message that the backend never had. The plain client does take it."""
    unasked = asyncio.Event()

    async def chatty(wire: Wire) -> None:
        await wire.request()
        await wire.send(OK)
        await unasked.wait()
        await wire.send(OK)
        said.set()
        await wire.hung_up()

    said = asyncio.Event()
    async with scripted(chatty) as server, opened(DirectClient) as client:
        await post(client, server.url)
        unasked.set()
        await said.wait()
        for _ in range(10):  # turns of the loop in which the client's end reads it
            await asyncio.sleep(0)
        await post(client, server.url)
        assert len(server.wires) == 2
