import asyncio
import gzip
import socket

import aiohttp
import pytest
from structlog.testing import capture_logs

from flowengine import StartError
from flowengine.testing import FlowError, make
from flowengine_http import HttpIn, HttpListener
from tests.flowengine_http.serving import Chain, ask, connect, hung_up, listening, serving, url

TOKEN = "{listen: '127.0.0.1:0', token: s3cret}"


def _head(length: int, *more: str) -> bytes:
    return "\r\n".join(["POST / HTTP/1.1", "Host: gate", f"Content-Length: {length}", *more, "", ""]).encode()


@pytest.mark.parametrize("address", ["0.0.0.0:6699", "[::]:6699", "192.168.1.7:6699", "gate.example:6699"])
def test_other_machines_are_let_in_only_with_a_token_or_where_insecure_says_so(address: str) -> None:
    with pytest.raises(FlowError, match=r"token: \$\{env:COMMAND_TOKEN\}.*127\.0\.0\.1:6699.*insecure: true"):
        make(HttpListener, f"{{listen: '{address}'}}")
    make(HttpListener, f"{{listen: '{address}', token: s3cret}}")
    make(HttpListener, f"{{listen: '{address}', insecure: true}}")


def test_a_token_that_no_header_can_carry_is_an_error() -> None:
    with pytest.raises(FlowError, match="can never be sent"):
        make(HttpListener, "{listen: '127.0.0.1:6699', token: 'two words'}")


@pytest.mark.parametrize("option", ["head_timeout", "body_timeout"])
def test_a_timeout_of_nothing_is_an_error(option: str) -> None:
    with pytest.raises(FlowError, match="longer than 0"):
        make(HttpListener, f"{{listen: '127.0.0.1:6699', {option}: 0s}}")


def test_two_listeners_on_one_address_claim_the_same() -> None:
    one, two = (make(HttpListener, "127.0.0.1:6699", name=n) for n in ("a", "b"))
    assert list(one.claims()) == list(two.claims())
    assert list(make(HttpListener, "127.0.0.1:0").claims()) == []


def test_the_token_is_not_shown() -> None:
    assert "s3cret" not in repr(make(HttpListener, TOKEN).options)


async def test_a_taken_port_is_an_error_that_names_it_and_says_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listener = make(HttpListener, f"127.0.0.1:{port}")
        with pytest.raises(StartError, match=rf"127\.0\.0\.1:{port}: another program.*another port"):
            await listener.open()
        await listener.close()


async def test_an_address_of_another_machine_is_an_error_that_says_so() -> None:
    listener = make(HttpListener, "{listen: '192.0.2.1:6699', token: s3cret}")
    with pytest.raises(StartError, match="this machine does not have that address"):
        await listener.open()
    await listener.close()


async def test_ready_names_the_url_only_while_requests_are_taken() -> None:
    async with listening() as listener:
        assert listener.ready() is None
        await listener.start()
        assert (listener.ready() or "").startswith("http://127.0.0.1:")
        await listener.stop()
        assert listener.ready() is None


async def test_an_ipv6_address_is_listened_on() -> None:
    async with serving(("", Chain()), listener="{listen: '[::1]:0'}") as listener:
        assert url(listener).startswith("http://[::1]:")
        assert (await ask(url(listener), json=1)).status == 200


async def test_requests_before_the_start_and_after_the_stop_are_sent_away_for_a_while() -> None:
    chain = Chain()
    async with serving(("", chain)) as listener:
        address = url(listener)
        await listener.stop()
        stopped = await ask(address, json=1)
        assert (stopped.status, stopped.headers["Retry-After"]) == (503, "1")
        await listener.start()
        assert (await ask(address, json=1)).status == 200
    assert len(chain.arrivals) == 1


async def test_a_request_under_way_is_answered_while_the_flow_stops() -> None:
    chain = Chain(end=None)
    async with serving(("", chain)) as listener:
        under_way = asyncio.create_task(ask(url(listener), json=1))
        arrival = await chain.arrival()
        await listener.stop()
        arrival.outcome.delivered += 1
        arrival.outcome.close_part()
        assert (await under_way).status == 200


async def test_closing_lets_an_answer_that_is_due_go_out() -> None:
    chain = Chain(end=None)
    async with serving(("", chain)) as listener:
        under_way = asyncio.create_task(ask(url(listener), json=1))
        arrival = await chain.arrival()
        await listener.stop()
        arrival.outcome.delivered += 1
        arrival.outcome.close_part()
        await listener.close()
        assert (await under_way).status == 200


async def test_the_port_is_free_again_after_the_close() -> None:
    async with serving(("", Chain())) as listener:
        assert (await ask(url(listener), json=1)).status == 200
        port = int(url(listener, "").rpartition(":")[2])
        await listener.close()
        async with listening(f"127.0.0.1:{port}"):
            pass


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_right_token_lets_in(scheme: str) -> None:
    async with serving(("", Chain()), listener=TOKEN) as listener:
        answer = await ask(url(listener), json=1, headers={"Authorization": f"{scheme} s3cret"})
        assert answer.status == 200


@pytest.mark.parametrize(
    ("credentials", "challenge"),
    [
        (None, "Bearer"),
        ("Basic s3cret", "Bearer"),
        ("s3cret", "Bearer"),
        ("Bearer", 'Bearer error="invalid_token"'),
        ("Bearer s3cre", 'Bearer error="invalid_token"'),
        ("Bearer s3cret2", 'Bearer error="invalid_token"'),
        ("Bearer 密码", 'Bearer error="invalid_token"'),
    ],
)
async def test_any_other_credentials_get_401_and_no_message_comes_of_it(
    credentials: str | None, challenge: str
) -> None:
    chain = Chain()
    async with serving(("", chain), listener=TOKEN) as listener:
        headers = {"Authorization": credentials} if credentials else {}
        for path in ("/", "/not/there"):  # which paths there are is not told either
            answer = await ask(url(listener, path), json=1, headers=headers)
            assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, challenge)
    assert chain.arrivals == []


async def test_a_web_page_reaches_a_listener_only_with_the_token() -> None:
    page = {"Origin": "http://evil.example", "Content-Type": "text/plain"}
    chain = Chain()
    async with serving(("", chain)) as listener:
        assert (await ask(url(listener), data="1", headers=page)).status == 403
    assert chain.arrivals == []
    async with serving(("", chain), listener=TOKEN) as listener:
        page["Authorization"] = "Bearer s3cret"
        assert (await ask(url(listener), data="1", headers=page)).status == 200


async def test_one_listener_is_shared_by_many_nodes() -> None:
    one, two = Chain(), Chain()
    async with serving(("path: /one", one), ("path: '/two/{device}'", two)) as listener:
        await ask(url(listener, "/one"), json="a")
        await ask(url(listener, "/two/0012"), json="b")
    assert [a.payload for a in one.arrivals] == ["a"]
    assert [(a.payload, a.meta["device"]) for a in two.arrivals] == [("b", "0012")]


async def test_unknown_paths_and_methods_are_told_apart() -> None:
    async with serving(("", Chain()), ("method: PUT", Chain())) as listener:
        assert (await ask(url(listener, "/x"), json=1)).status == 404
        for method in ("GET", "HEAD", "OPTIONS", "DELETE", "PATCH"):
            answer = await ask(url(listener), method)
            assert (answer.status, answer.headers["Allow"]) == (405, "POST, PUT")


async def test_errors_are_json_with_one_sentence() -> None:
    async with serving(("", Chain())) as listener:
        answer = await ask(url(listener, "/x"), json=1)
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.json == {"error": "nothing answers on this path"}


async def test_a_node_that_has_ended_answers_no_more() -> None:
    async with serving(("path: /stays", Chain())) as listener:
        node = make(HttpIn, "{connection: it, path: /goes}", connections={"it": listener})
        running = asyncio.create_task(node.run(Chain()))
        assert (await ask(url(listener, "/goes"), json=1)).status == 200
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert (await ask(url(listener, "/goes"), json=1)).status == 404
        assert (await ask(url(listener, "/stays"), json=1)).status == 200


async def test_a_body_that_its_length_gives_away_is_refused_before_it_is_read() -> None:
    async with serving(("", Chain()), listener="{listen: '127.0.0.1:0', max_body: 10}") as listener:
        reader, writer = await connect(listener)
        writer.write(_head(11))
        answer = await hung_up(reader)
        assert answer.startswith(b"HTTP/1.1 413 ") and b"longer than 10 bytes" in answer
        writer.close()


async def test_a_chunked_body_is_refused_as_soon_as_it_is_too_long() -> None:
    async def endless():
        for _ in range(100):
            yield b" " * 1000

    chain = Chain()
    async with serving(("", chain), listener="{listen: '127.0.0.1:0', max_body: 10000}") as listener:
        assert (await ask(url(listener), data=endless())).status == 413
        assert (await ask(url(listener), data=b"1" * 10000 + b"1")).status == 413
        assert (await ask(url(listener), data=b'"' + b"1" * 9998 + b'"')).status == 200
    assert len(chain.arrivals) == 1


async def test_the_limit_counts_what_a_compressed_body_unfolds_to() -> None:
    bomb = gzip.compress(b" " * 5_000_000 + b"1")
    assert len(bomb) < 10_000
    async with serving(("", Chain())) as listener:
        answer = await ask(url(listener), data=bomb, headers={"Content-Encoding": "gzip"})
        assert answer.status == 413
        small = gzip.compress(b'"ok"')
        assert (await ask(url(listener), data=small, headers={"Content-Encoding": "gzip"})).status == 200


async def test_a_megabyte_is_taken_by_default() -> None:
    chain = Chain()
    image = "x" * 1_000_000
    async with serving(("", chain)) as listener:
        assert (await ask(url(listener), json=image)).status == 200
    assert chain.arrivals[0].payload == image


async def test_a_client_that_asks_first_is_told_to_go_on() -> None:
    async with serving(("", Chain())) as listener:
        reader, writer = await connect(listener)
        writer.write(_head(4, "Expect: 100-continue", "Connection: close"))
        async with asyncio.timeout(10):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b'"ok"')
        assert (await hung_up(reader)).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_a_client_that_asks_first_with_too_long_a_body_need_not_send_it() -> None:
    async with serving(("", Chain()), listener="{listen: '127.0.0.1:0', max_body: 10}") as listener:
        reader, writer = await connect(listener)
        writer.write(_head(11, "Expect: 100-continue"))
        assert (await hung_up(reader)).startswith(b"HTTP/1.1 413 ")
        writer.close()


async def test_one_connection_carries_many_requests() -> None:
    chain = Chain()
    async with serving(("", chain)) as listener:
        reader, writer = await connect(listener)
        for number in range(20):
            writer.write(_head(2) + b"%2d" % number)
            async with asyncio.timeout(10):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.write(b"".join(_head(2) + b"%2d" % n for n in range(20, 40)))  # pipelined
        for _ in range(20):
            async with asyncio.timeout(10):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()
    assert [a.payload for a in chain.arrivals] == list(range(40))


async def _trickle(writer: asyncio.StreamWriter, data: bytes) -> None:
    """A byte now and then, without end, until the listener has had enough."""
    try:
        while True:
            for place in range(len(data)):
                writer.write(data[place : place + 1])
                await writer.drain()
                await asyncio.sleep(0.02)
    except ConnectionError:
        pass


@pytest.mark.parametrize("before", [0, 1], ids=["first-request", "second-request"])
async def test_a_client_that_trickles_its_head_is_cut_off(before: int) -> None:
    async with serving(("", Chain()), listener="{listen: '127.0.0.1:0', head_timeout: 300ms}") as listener:
        reader, writer = await connect(listener)
        if before:
            writer.write(_head(1) + b"1")
            async with asyncio.timeout(10):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.write(b"POST / HTTP/1.1\r\n")
        trickle = asyncio.create_task(_trickle(writer, b"X-More: and more\r\n"))
        try:
            assert (await hung_up(reader)).startswith(b"HTTP/1.1 408 ")
        except ConnectionResetError:
            pass  # the bytes that still trickled in undid the answer on its way
        finally:
            trickle.cancel()
            writer.close()


async def test_cutting_off_one_client_leaves_the_others_alone() -> None:
    chain = Chain(end=None)
    async with serving(("", chain), listener="{listen: '127.0.0.1:0', head_timeout: 200ms}") as listener:
        idle_reader, idle_writer = await connect(listener)
        idle_writer.write(_head(1) + b"0")
        waiting = await chain.arrival()  # its answer takes longer than any head may
        for _ in range(2):
            slow_reader, slow_writer = await connect(listener)
            slow_writer.write(b"POST / HT")
            assert (await hung_up(slow_reader)).startswith(b"HTTP/1.1 408 ")
            slow_writer.close()
        waiting.outcome.delivered += 1
        waiting.outcome.close_part()
        async with asyncio.timeout(10):
            assert (await idle_reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        idle_writer.close()


async def test_a_connection_that_is_idle_between_requests_is_not_a_slow_client() -> None:
    async with serving(("", Chain()), listener="{listen: '127.0.0.1:0', head_timeout: 100ms}") as listener:
        idle_reader, idle_writer = await connect(listener)
        idle_writer.write(_head(1) + b"0")
        async with asyncio.timeout(10):
            await idle_reader.readuntil(b"\r\n\r\n")
        slow_reader, slow_writer = await connect(listener)
        slow_writer.write(b"POST / HT")
        await hung_up(slow_reader)  # by now the idle one has been idle for longer than a head may take
        slow_writer.close()
        idle_writer.write(_head(1) + b"1")
        async with asyncio.timeout(10):
            assert (await idle_reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        idle_writer.close()


async def test_a_client_that_trickles_its_body_gets_408_and_is_cut_off() -> None:
    chain = Chain()
    async with serving(("", chain), listener="{listen: '127.0.0.1:0', body_timeout: 200ms}") as listener:
        reader, writer = await connect(listener)
        writer.write(_head(100_000))
        trickle = asyncio.create_task(_trickle(writer, b"1"))
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ") and b"\r\nConnection: close\r\n" in head
        try:
            await hung_up(reader)
        except ConnectionResetError:
            pass
        finally:
            trickle.cancel()
            writer.close()
    assert chain.arrivals == []


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    ],
    ids=["tls", "text", "length", "long-head"],
)
async def test_what_is_no_http_is_a_bad_request_and_no_error_of_ours(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(("", Chain())) as listener:
        reader, writer = await connect(listener)
        writer.write(sent)
        answer = await hung_up(reader)
        assert b" 400 " in answer.partition(b"\r\n")[0] and b'{"error":' in answer
        writer.close()
        assert (await ask(url(listener), json=1)).status == 200
    assert caplog.records == []


@pytest.mark.parametrize(
    "sent",
    [
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Encoding: gzip\r\n\r\nabcd",
    ],
    ids=["chunks", "gzip"],
)
async def test_a_body_that_is_not_what_its_headers_say_is_a_bad_request(sent: bytes) -> None:
    async with serving(("", Chain())) as listener:
        reader, writer = await connect(listener)
        writer.write(sent)
        assert b" 400 " in (await hung_up(reader)).partition(b"\r\n")[0]
        writer.close()


async def test_a_client_that_leaves_in_the_middle_of_its_body_disturbs_nobody() -> None:
    chain = Chain()
    with capture_logs() as logged:
        async with serving(("", chain)) as listener:
            for _ in range(3):
                _reader, writer = await connect(listener)
                writer.write(_head(100) + b"[")
                await writer.drain()
                assert (await ask(url(listener), json=1)).status == 200  # it has been read by now
                writer.transport.abort()
            assert (await ask(url(listener), json=1)).status == 200
    assert [a.payload for a in chain.arrivals] == [1, 1, 1, 1]
    assert logged == []


async def test_requests_side_by_side_are_each_answered_with_their_own() -> None:
    chain = Chain()
    async with (
        serving(("path: '/{n}', reply: {body: {n: '{n}'}}", chain)) as listener,
        aiohttp.ClientSession() as session,
    ):

        async def one(n: int) -> bool:
            async with session.post(url(listener, f"/{n}"), json=n) as answer:
                return bool(await answer.json() == {"n": str(n)})

        assert all(await asyncio.gather(*map(one, range(200))))
    assert sorted(a.payload for a in chain.arrivals) == list(range(200))
