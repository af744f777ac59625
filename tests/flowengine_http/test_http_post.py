import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
import trustme
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from flowengine import Message, Reject, Result, Retry, StartError
from flowengine.testing import FlowError, deliver, make, message
from flowengine_http import HttpPost, choosing
from flowengine_http.client import BODY_LIMIT
from flowengine_http.http_post import idempotency_key, retry_after
from tests.flowengine.flowfile.folder import HEAD, said, short


@pytest.fixture(scope="module", params=["direct", "session"], autouse=True)
def client(request: pytest.FixtureRequest) -> Iterator[None]:
    """The node promises the same with either client."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choosing, "_usable", request.param == "direct")
        yield


Answering = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Backend:
    """A real HTTP server; `answer` says what it does, `requests` and `bodies` what came, `peers` over which connections."""

    def __init__(self, answer: Answering | web.Response | int = 200) -> None:
        self.answer = answer
        self.requests: list[web.BaseRequest] = []
        self.bodies: list[bytes] = []
        self.peers: set[Any] = set()
        self.url = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        self.peers.add(request.transport and request.transport.get_extra_info("peername"))
        if isinstance(self.answer, int):
            return web.Response(status=self.answer)
        if isinstance(self.answer, web.Response):  # one cannot be sent twice
            given = self.answer
            return web.Response(status=given.status, body=given.body, headers=given.headers)
        return await self.answer(request)

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["Backend"]:
        server = web.Server(self.handle)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


@asynccontextmanager
async def opened(options: str) -> AsyncIterator[HttpPost]:
    node = make(HttpPost, options)
    await node.open()
    try:
        yield node
    finally:
        await node.close()


async def post(backend: Backend, msg: Message | None = None, options: str = "") -> Result:
    """One delivery to the backend, whatever the outcome."""
    async with (
        backend.running() as running,
        opened(f"{{url: '{running.url}/a'{options and ', '}{options}}}") as node,
    ):
        result = await deliver(node, msg or message({"n": 1}))
        assert isinstance(result, Result)
        return result


async def fails(backend: Backend, options: str = "") -> Retry | Reject:
    with pytest.raises((Retry, Reject)) as failure:
        await post(backend, options=options)
    assert isinstance(failure.value, Retry | Reject)
    return failure.value


@pytest.mark.parametrize(
    ("payload", "options", "body", "kind"),
    [
        ({"a": [1, None], "名": "王"}, "", '{"a":[1,null],"名":"王"}'.encode(), "application/json"),
        ([1], "", b"[1]", "application/json"),
        (7, "", b"7", "application/json"),
        (None, "", b"null", "application/json"),
        ("text", "", b'"text"', "application/json"),
        ("text", "headers: {Content-Type: text/plain}", b"text", "text/plain"),
        ("text", "headers: {content-type: application/vnd.x+json}", b'"text"', "application/vnd.x+json"),
        (b"\x00\xff", "", b"\x00\xff", "application/octet-stream"),
        (b"{}", "headers: {Content-Type: application/json}", b"{}", "application/json"),
        (
            {"n": 5},
            "body: {user: '{payload.n}', from: 'd {device}'}",
            b'{"user":5,"from":"d 0012"}',
            "application/json",
        ),
        ({"n": 5}, "body: '{payload.n}'", b"5", "application/json"),
    ],
)
async def test_the_body_is_the_payload_or_what_body_makes(payload: Any, options: str, body: bytes, kind: str) -> None:
    backend = Backend()
    await post(backend, message(payload, device="0012"), options)
    assert backend.bodies == [body]
    assert backend.requests[0].headers.getall("Content-Type") == [kind]
    assert backend.requests[0].method == "POST"


async def test_an_image_of_300_kb_arrives_whole() -> None:
    backend = Backend()
    image = "/9j/" + "A" * 300_000
    await post(backend, message({"img": image}))
    assert msgspec.json.decode(backend.bodies[0]) == {"img": image}


async def test_what_json_cannot_hold_is_rejected() -> None:
    with pytest.raises(Reject, match="cannot be written as JSON"):
        await post(Backend(), message({"a": object()}))


async def test_the_url_takes_references_percent_encoded_and_keeps_what_is_written() -> None:
    backend = Backend()
    async with backend.running(), opened(f"{{url: '{backend.url}/设备/{{device}}?q={{device}}&x=%2F'}}") as node:
        await deliver(node, message(1, device="a/b &王"))
    assert backend.requests[0].raw_path == ("/%E8%AE%BE%E5%A4%87/a%2Fb%20%26%E7%8E%8B?q=a%2Fb%20%26%E7%8E%8B&x=%2F")


async def test_headers_are_templates() -> None:
    backend = Backend()
    await post(backend, message(1, device="0012"), "headers: {X-Device: 'no {device}'}")
    assert backend.requests[0].headers["X-Device"] == "no 0012"


async def test_a_value_cannot_forge_a_header() -> None:
    backend = Backend()
    with pytest.raises(Reject, match="control character"):
        await post(backend, message("a\nX-B: c"), "headers: {X-A: '{payload}'}")
    assert backend.requests == []


async def test_every_attempt_of_a_part_carries_its_own_key() -> None:
    backend = Backend(503)
    parts = [msgspec.structs.replace(message(1), id="0012/张三/2024-01-01 08:00:00", part=p) for p in ("0", "1")]
    async with backend.running(), opened(backend.url) as node:
        for msg in (*parts, *parts):
            with pytest.raises(Retry):
                await deliver(node, msg)
    keys = [r.headers["Idempotency-Key"] for r in backend.requests]
    assert keys[:2] == keys[2:]
    assert keys[0] != keys[1]
    assert keys[0] == '"0012/%E5%BC%A0%E4%B8%89/2024-01-01%2008:00:00/test/test/test/0"'


@given(st.text() | st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7F)))
def test_a_key_is_a_structured_field_string_and_tells_every_text(text: str) -> None:
    key = idempotency_key(text)
    assert key[0] == key[-1] == '"'
    assert all("!" <= c <= "~" and c not in '"\\' for c in key[1:-1])
    assert unquote(key[1:-1], errors="surrogatepass") == text


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_2xx_is_yes(status: int) -> None:
    assert (await post(Backend(status))).status == status


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (web.json_response({"code": 0}), {"code": 0}),
        (web.Response(body=b'{"a":1}', content_type="application/problem+json"), {"a": 1}),
        (web.Response(body=b"not so", content_type="application/json"), "not so"),
        (web.Response(text="ok"), "ok"),
        (web.Response(body=b"\xff"), "\ufffd"),
        (web.Response(), ""),
    ],
    ids=["json", "+json", "no-json", "text", "bytes", "empty"],
)
async def test_the_result_is_what_the_backend_said(answer: web.Response, body: Any) -> None:
    answer.headers["X-Trace"] = "t1"
    result = await post(Backend(answer))
    assert result.body == body
    assert result.headers["x-trace"] == "t1"


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 599])
async def test_what_may_go_better_later_is_tried_again(status: int) -> None:
    failure = await fails(Backend(status))
    assert isinstance(failure, Retry)
    assert (failure.slow, failure.after, failure.status) == (False, None, status)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 401, 403, 404, 410])
async def test_what_only_a_person_can_mend_is_tried_again_slowly(status: int) -> None:
    failure = await fails(Backend(status))
    assert isinstance(failure, Retry)
    assert (failure.slow, failure.status) == (True, status)


@pytest.mark.parametrize("status", [400, 402, 405, 406, 413, 415, 422, 451, 499])
async def test_any_other_4xx_is_no(status: int) -> None:
    failure = await fails(Backend(status))
    assert isinstance(failure, Reject)
    assert failure.status == status


async def test_a_redirect_is_not_followed_and_the_reason_says_where_it_led() -> None:
    backend = Backend(web.Response(status=302, headers={"Location": "https://user:s3cret@other.example/x?t=s3cret"}))
    failure = await fails(backend)
    assert len(backend.requests) == 1
    assert failure.reason.endswith("(https://other.example)")


async def test_the_reason_holds_a_short_excerpt_of_the_answer() -> None:
    failure = await fails(Backend(web.Response(status=422, text="no\n  such\tuser " + "x" * 1000)))
    assert "answered 422: no such user xxx" in failure.reason
    assert len(failure.reason) < 300


@pytest.mark.parametrize(
    ("value", "after"),
    [("7", 7), (" 120 ", 120), ("0", 0), ("999999", 3600), ("soon", None), ("-1", None), ("1.5", None), ("", None)],
)
async def test_retry_after_in_seconds_is_heeded_up_to_an_hour(value: str, after: float | None) -> None:
    failure = await fails(Backend(web.Response(status=503, headers={"Retry-After": value})))
    assert isinstance(failure, Retry) and failure.after == after


def test_retry_after_may_be_a_date() -> None:
    now = datetime.now(UTC)
    assert 3000 < (retry_after(format_datetime(now + timedelta(seconds=3300), usegmt=True)) or 0) <= 3300
    assert retry_after(format_datetime(now + timedelta(days=2), usegmt=True)) == 3600
    assert retry_after(format_datetime(now - timedelta(days=2), usegmt=True)) == 0
    assert retry_after("Sun, 06 Nov 1994 08:49:37") == 0
    assert retry_after("Sun, 99 Nov 9999 99:99:99 GMT") is None


async def test_a_connection_is_used_again() -> None:
    backend = Backend(web.Response(text="x" * 1000))
    async with backend.running(), opened(backend.url) as node:
        for _ in range(10):
            await deliver(node, message(1))
        backend.answer = 503  # also where the answer is no
        with pytest.raises(Retry):
            await deliver(node, message(1))
    assert len(backend.peers) == 1


async def test_an_answer_without_end_is_read_only_so_far() -> None:
    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b"x" * 10_000)

    result = await post(Backend(endless))
    assert result.status == 200
    assert result.body == "x" * BODY_LIMIT


async def test_a_compressed_answer_without_end_is_read_only_so_far() -> None:
    bomb = gzip.compress(b"x" * 20_000_000)
    result = await post(Backend(web.Response(body=bomb, headers={"Content-Encoding": "gzip"})))
    assert result.body == "x" * BODY_LIMIT


async def test_a_backend_that_does_not_answer_is_tried_again() -> None:
    async def never(_request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    failure = await fails(Backend(never), "timeout: 100ms")
    assert isinstance(failure, Retry) and not failure.slow
    assert failure.reason.endswith("did not answer within 0.1 s")


async def test_a_backend_that_is_not_there_is_tried_again() -> None:
    backend = Backend()
    async with backend.running():
        gone = backend.url
    async with opened(f"{{url: '{gone}'}}") as node:
        with pytest.raises(Retry, match=rf"^cannot connect to {gone}: ") as failure:
            await deliver(node, message(1))
    assert not failure.value.slow


async def test_a_host_without_a_name_is_tried_again() -> None:
    async with opened("http://backend.invalid/") as node:
        with pytest.raises(Retry, match=r"cannot connect to http://backend.invalid"):
            await deliver(node, message(1))


@asynccontextmanager
async def raw_backend(answer: bytes) -> AsyncIterator[str]:
    """A server that reads a request, writes these bytes and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nConte",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ],
    ids=["nothing", "half-head", "half-body", "half-chunk", "no-http"],
)
async def test_an_answer_that_breaks_off_is_no_yes(answer: bytes) -> None:
    async with raw_backend(answer) as address, opened(address) as node:
        with pytest.raises(Retry, match="broke the exchange off") as failure:
            await deliver(node, message(1))
    assert not failure.value.slow


async def test_a_kept_connection_that_the_backend_closed_is_a_retry_and_the_next_attempt_goes_through() -> None:
    async def hang_up(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    backend = Backend()
    async with backend.running(), opened(backend.url) as node:
        await deliver(node, message(1))
        backend.answer = hang_up
        with pytest.raises(Retry):
            await deliver(node, message(1))
        backend.answer = 200
        assert (await deliver(node, message(1))) is not None


async def test_neither_cookies_nor_the_proxy_of_the_environment_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    backend = Backend(web.Response(headers={"Set-Cookie": "a=b"}))
    async with backend.running(), opened(backend.url.replace("127.0.0.1", "localhost")) as node:
        for _ in range(2):
            await deliver(node, message(1))
    assert all("Cookie" not in r.headers for r in backend.requests)


async def test_credentials_in_the_url_are_sent_and_never_said() -> None:
    backend = Backend(500)
    async with backend.running():
        address = backend.url.replace("http://", "http://user:s3cret@") + "/hook/s3cret?key=s3cret"
        async with opened(address) as node:
            with pytest.raises(Retry) as refused:
                await deliver(node, message(1))
    async with opened(address) as node:
        with pytest.raises(Retry) as unreachable:
            await deliver(node, message(1))
    assert backend.requests[0].headers["Authorization"] == "Basic dXNlcjpzM2NyZXQ="
    assert "s3cret" not in refused.value.reason + unreachable.value.reason + str(unreachable.value)


@pytest.mark.parametrize("port", ["99999", "x", "1/2"])
async def test_a_url_that_a_message_spoils_is_rejected_without_saying_it(port: str) -> None:
    async with opened("http://127.0.0.1:6{port}/s3cret") as node:
        with pytest.raises(Reject, match="is not one") as failure:
            await deliver(node, message(1, port=port))
    assert "s3cret" not in str(failure.value)


async def test_a_backend_that_speaks_no_tls_is_tried_again() -> None:
    backend = Backend()
    async with backend.running(), opened(backend.url.replace("http:", "https:")) as node:
        with pytest.raises(Retry, match="cannot connect to https:"):
            await deliver(node, message(1))


def _authority(directory: Any) -> tuple[trustme.CA, ssl.SSLContext, str]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    file = directory / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return authority, context, str(file)


async def test_a_certificate_is_checked_against_the_authority_that_ca_names(tmp_path: Any) -> None:
    _ca, tls, file = _authority(tmp_path)
    backend = Backend()
    async with backend.running(tls):
        async with opened(f"{{url: '{backend.url}', ca: '{file}'}}") as node:
            assert (await deliver(node, message(1))) is not None
        async with opened(backend.url) as node:
            with pytest.raises(Retry, match=r"no certificate trusted here.*'ca'") as failure:
                await deliver(node, message(1))
            assert failure.value.slow
    assert len(backend.requests) == 1


async def test_a_ca_file_that_cannot_be_read_stops_the_start_and_says_which(tmp_path: Any) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")
    for name in ("bad.pem", "none.pem"):
        node = make(HttpPost, f"{{url: 'https://127.0.0.1', ca: '{tmp_path / name}'}}")
        with pytest.raises(StartError, match=rf"{name}: .*PEM file"):
            await node.open()
        await node.close()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("ftp://a/b", "not 'ftp'"),
        ("{url: 'http://a', ca: x.pem}", "begins with https"),
        ("{url: 'http://a', timeout: 0}", "longer than 0"),
        ("{url: 'http://a', headers: {idempotency-key: x}}", "id_from"),
        ("{url: 'http://a', headers: {Host: x}}", "cannot be set here"),
        ("{url: 'a/b'}", "not a URL"),
        ("{headers: {}}", "'url' is missing"),
    ],
)
def test_options_that_cannot_be_are_errors(options: str, says: str) -> None:
    with pytest.raises(FlowError, match=says):
        make(HttpPost, options)


def test_nodes_at_rest_hold_no_connection() -> None:
    """Made for `check`: nothing is opened before `open`, and `close` alone does no harm."""
    asyncio.run(make(HttpPost, "http://127.0.0.1:1").close())


_JUDGING = "success_when: result.body.code == 0, reject_when: result.body.code == 400"


async def test_a_200_whose_body_meets_success_when_is_delivered() -> None:
    result = await post(Backend(web.json_response({"code": "0"})), options=_JUDGING)
    assert (result.status, result.body) == (200, {"code": "0"})


@pytest.mark.parametrize("answer", [web.json_response({"code": 500}), web.Response(text="code: 0")])
async def test_a_200_that_does_not_meet_success_when_is_tried_again(answer: web.Response) -> None:
    failure = await fails(Backend(answer), _JUDGING)
    assert isinstance(failure, Retry)
    assert "'success_when'" in failure.reason
    assert failure.status == 200


@pytest.mark.parametrize("status", [200, 409, 500])
async def test_an_answer_that_meets_reject_when_is_rejected_whatever_its_status(status: int) -> None:
    failure = await fails(Backend(web.json_response({"code": 400}, status=status)), _JUDGING)
    assert isinstance(failure, Reject)
    assert '{"code": 400}' in failure.reason


async def test_success_when_does_not_make_an_error_a_success() -> None:
    assert isinstance(await fails(Backend(503), "success_when: result.status == 503"), Retry)


@pytest.mark.parametrize("option", ["success_when", "reject_when"])
def test_a_verdict_knows_its_own_answer_though_no_action_stands_before(option: str, tmp_path: Path) -> None:
    node = f"    - http-post: {{url: 'http://backend/', {option}: result.body.code == 0 and devise == 1}}\n"
    (problem,) = said(tmp_path, HEAD + node)
    assert "unknown reference 'devise', did you mean 'device'?" in short(tmp_path, problem)


def test_the_other_options_know_no_answer(tmp_path: Path) -> None:
    node = "    - http-post: {url: 'http://backend/{result.status}', success_when: result.status == 200}\n"
    (problem,) = said(tmp_path, HEAD + node)
    assert "'result.status' is unknown here" in short(tmp_path, problem)
