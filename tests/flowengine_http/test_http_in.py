import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from flowengine import Busy, Outcome, Reply, Stopping
from flowengine.testing import FlowError, make
from flowengine_http import HttpIn, HttpListener
from tests.flowengine_http.serving import Chain, ask, connect, dead, delivered, dropped, serving, stored, url


def _made(options: str, listener: HttpListener | None = None) -> HttpIn:
    return make(HttpIn, options, connections={"it": listener or make(HttpListener, "127.0.0.1:0")})


@pytest.mark.parametrize(
    ("sent", "payload"),
    [
        (b'"open"', "open"),
        ('"开门"'.encode(), "开门"),
        (b'{"cmd": "open"}', {"cmd": "open"}),
        (b"[1, 2.5, null]", [1, 2.5, None]),
        (b" 7 ", 7),
        (b"12345678901234567890123", 12345678901234567890123),
        (b"null", None),
        (b"true", True),
        (b'""', ""),
        (b'\xef\xbb\xbf"marked"', "marked"),
    ],
)
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", None])
async def test_the_payload_is_what_the_json_says_whatever_it_is_called(
    sent: bytes, payload: Any, content_type: str | None
) -> None:
    chain = Chain()
    async with serving(("", chain)) as listener:
        headers = {"Content-Type": content_type} if content_type else {}
        assert (await ask(url(listener), data=sent, headers=headers)).status == 200
    assert [a.payload for a in chain.arrivals] == [payload]


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b'{"a": }', "not JSON: line 1, column 7"),
        (b'{\n  "a": 1,\n  b: 2}', "not JSON: line 3, column 3"),
        ('{"门": ?}'.encode(), "not JSON: line 1, column 7"),
        (b'{"a": 1', "not JSON: line 1, column 8"),
        (b"[1,\n2", "not JSON: line 2, column 2"),
        (b"{} {}", "not JSON: line 1, column 4"),
        (b"cmd=open", "not JSON: line 1, column 1"),
        (b"NaN", "NaN, a number out of range"),
        (b"1" * 5000, "a number out of range"),
        (b'"\\ud800"', "half a character"),
        (b'{"a":\n"\xc4\xe3"}', "not UTF-8: line 2, column 2"),
        ('"开门"'.encode("gb18030"), "not UTF-8: line 1, column 2"),
        ('"open"'.encode("utf-16"), "not UTF-8: line 1, column 1"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1e999", "out of range"),
        (b"", "the body is empty"),
    ],
)
async def test_a_body_that_is_not_json_gets_400_that_says_where(sent: bytes, says: str) -> None:
    chain = Chain()
    async with serving(("", chain)) as listener:
        answer = await ask(url(listener), data=sent)
    assert answer.status == 400
    assert says in answer.json["error"]
    assert chain.arrivals == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
async def test_methods_that_have_no_body_need_none(method: str) -> None:
    chain = Chain()
    async with serving((f"method: {method}", chain)) as listener:
        assert (await ask(url(listener), method)).status == 200
    assert [a.payload for a in chain.arrivals] == [None]


async def test_the_request_is_known_by_name() -> None:
    chain = Chain()
    async with serving(("path: '/devices/{device}/commands', method: PUT", chain)) as listener:
        address = url(listener, "/devices/%E9%97%A8%2F7/commands?door=a%20b&door=c&flag")
        assert (await ask(address, "PUT", json=1)).status == 200
    assert dict(chain.arrivals[0].meta) == {
        "device": "门/7",
        "method": "PUT",
        "path": "/devices/门/7/commands",
        "query": {"door": "a b", "flag": ""},
        "remote": "127.0.0.1",
    }


async def test_the_names_it_promises_are_the_names_it_gives() -> None:
    chain = Chain()
    options = "path: '/{a}/{b}'"
    async with serving((options, chain)) as listener:
        await ask(url(listener, "/1/2"), json=1)
        node = _made(f"{{connection: it, {options}}}", listener)
    assert set(node.metadata()) == set(chain.arrivals[0].meta)


@pytest.mark.parametrize("end", [delivered, dropped])
async def test_a_message_that_is_settled_is_answered_200(end: Callable[[Outcome], None]) -> None:
    async with serving(("", Chain(end))) as listener:
        answer = await ask(url(listener), json=1)
    assert (answer.status, answer.text) == (200, "")


async def test_a_dead_message_is_answered_502_with_its_reason() -> None:
    async with serving(("reply: {status: 201, body: ok}", Chain(dead))) as listener:
        answer = await ask(url(listener), json=1)
    assert (answer.status, answer.json) == (502, {"error": "the backend said no"})


async def test_the_answer_waits_for_every_part() -> None:
    chain = Chain(end=None)
    async with serving(("", chain)) as listener:
        asked = asyncio.create_task(ask(url(listener), json=1))
        outcome = (await chain.arrival()).outcome
        outcome.open += 1
        delivered(outcome)
        await ask(url(listener, "/elsewhere"), json=1)  # a whole exchange later
        assert not asked.done()
        dead(outcome)
        assert (await asked).status == 502


async def test_a_message_that_takes_too_long_is_withdrawn_and_answered_504() -> None:
    chain = Chain(end=None)
    async with serving(("reply: {timeout: 50ms}", chain)) as listener:
        answer = await ask(url(listener), json=1)
        assert answer.status == 504
        assert chain.arrivals[0].outcome.withdrawn
        delivered(chain.arrivals[0].outcome)  # what was in flight may still settle
        chain.end = delivered
        assert (await ask(url(listener), json=1)).status == 200
    assert not chain.arrivals[1].outcome.withdrawn


@pytest.mark.parametrize(
    ("options", "status", "kind", "text"),
    [
        ("reply: {body: ok}", 200, "text/plain; charset=utf-8", "ok"),
        ("reply: {body: 'to {device}: {payload.cmd}'}", 200, "text/plain; charset=utf-8", "to 0012: open"),
        ("reply: {body: {sent: '{payload.n}'}}", 200, "application/json", '{"sent":5}'),
        ("reply: {body: '{payload}'}", 200, "application/json", '{"cmd":"open","n":5,"名":"门"}'),
        ("reply: {body: [1, true]}", 200, "application/json", "[1,true]"),
        ("reply: {status: 201, body: ok}", 201, "text/plain; charset=utf-8", "ok"),
        ("reply: {when: stored}", 202, None, ""),
        ("reply: {when: stored, status: 200}", 200, None, ""),
    ],
)
async def test_the_flow_says_what_the_answer_is(options: str, status: int, kind: str | None, text: str) -> None:
    async with serving((f"path: '/{{device}}', {options}", Chain())) as listener:
        answer = await ask(url(listener, "/0012"), json={"cmd": "open", "n": 5, "名": "门"})
    assert (answer.status, answer.text) == (status, text)
    assert kind is None or answer.headers["Content-Type"] == kind


async def test_only_what_nobody_waits_for_may_be_stored() -> None:
    chain = Chain(stored)
    async with serving(("path: /a, reply: {when: stored}", chain), ("path: /b", settled := Chain())) as listener:
        assert (await ask(url(listener, "/a"), json=1)).status == 202
        assert (await ask(url(listener, "/b"), json=1)).status == 200
    assert [arrival.outcome.storable for arrival in (*chain.arrivals, *settled.arrivals)] == [True, False]


async def test_what_http_reply_said_is_answered_in_place_of_reply() -> None:
    def said(outcome: Outcome) -> None:
        outcome.reply = Reply(409, {"said": "no"}, {"X-Why": "because", "Content-Type": "application/problem+json"})
        delivered(outcome)

    async with serving(("reply: {body: ok}", Chain(said))) as listener:
        answer = await ask(url(listener), json=1)
    assert (answer.status, json.loads(answer.text)) == (409, {"said": "no"})
    assert answer.headers["X-Why"] == "because"
    assert answer.headers["Content-Type"] == "application/problem+json"


async def test_a_dead_message_is_502_whatever_http_reply_said() -> None:
    def said(outcome: Outcome) -> None:
        outcome.reply = Reply(200, "ok")
        dead(outcome)

    async with serving(("", Chain(said))) as listener:
        assert (await ask(url(listener), json=1)).status == 502


async def test_a_request_that_lacks_what_the_answer_needs_makes_no_message() -> None:
    chain = Chain()
    async with serving(("reply: {body: '{payload.id}'}", chain)) as listener:
        answer = await ask(url(listener), json={"no": "id"})
    assert answer.status == 400
    assert "'id' is missing" in answer.json["error"]
    assert chain.arrivals == []


class _Refusing(Chain):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def __call__(
        self,
        payload: Any,
        meta: Mapping[str, Any],
        settled: Callable[[Outcome], None] | None = None,
        *,
        store: bool = True,
        expendable: bool = False,
        size: int = 0,
    ) -> Outcome:
        raise self.error


@pytest.mark.parametrize("refusal", [Stopping(), Busy()])
async def test_a_flow_that_stops_or_has_no_room_answers_503_with_retry_after(refusal: Exception) -> None:
    async with serving(("", _Refusing(refusal))) as listener:
        answer = await ask(url(listener), json=1)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


async def test_a_fault_in_one_request_is_a_500_and_the_next_is_answered() -> None:
    async with serving(("path: /bad", _Refusing(KeyError("x"))), ("path: /good", Chain())) as listener:
        answer = await ask(url(listener, "/bad"), json=1)
        assert answer.status == 500
        assert "KeyError" not in answer.text
        assert (await ask(url(listener, "/good"), json=1)).status == 200


async def test_a_message_goes_on_when_its_client_has_gone() -> None:
    chain = Chain(end=None)
    async with serving(("", chain)) as listener:
        _reader, writer = await connect(listener)
        writer.write(b"POST / HTTP/1.1\r\nHost: gate\r\nContent-Length: 1\r\n\r\n1")
        arrival = await chain.arrival()
        writer.transport.abort()
        chain.end = delivered
        assert (await ask(url(listener), json=2)).status == 200  # the listener has seen the other one go
        assert not arrival.outcome.withdrawn
        delivered(arrival.outcome)
        assert (await ask(url(listener), json=3)).status == 200


def test_two_nodes_on_one_method_and_path_claim_the_same() -> None:
    listener, other = (make(HttpListener, "127.0.0.1:0", name=n) for n in ("one", "two"))

    def claim(options: str, on: HttpListener = listener) -> Any:
        ((key, _words),) = _made(f"{{connection: it{options}}}", on).claims()
        return key

    assert claim("") == claim(", method: POST, path: /")
    assert claim(", path: '/a/{x}'") == claim(", path: '/a/{y}'")
    assert claim("") != claim(", method: PUT")
    assert claim("") != claim("", other)


def test_the_claim_is_worded_for_a_person() -> None:
    ((_key, words),) = _made("{connection: it, path: '/a/{x}'}").claims()
    assert words == "POST /a/{x} on connection it"


@pytest.mark.parametrize("reference", ["result.status", "error.reason", "message.id", "message.part"])
def test_the_answer_cannot_refer_to_what_only_the_chain_knows(reference: str) -> None:
    with pytest.raises(FlowError, match="not known here"):
        _made(f"{{connection: it, reply: {{body: 'x {{{reference}}}'}}}}")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("reply: {status: 99}", "at least 200"),
        ("reply: {status: 600}", "at most 599"),
        ("reply: {timeout: 0}", "longer than 0"),
        ("reply: {when: never}", "settled"),
        ("method: post", "POST"),
        ("path: x", "begins with '/'"),
    ],
)
def test_options_that_cannot_be_are_errors(options: str, says: str) -> None:
    with pytest.raises(FlowError, match=says):
        _made(f"{{connection: it, {options}}}")
