"""http-post with `batch`: what is promised of records that go together."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import web

from flowengine import Message, Outcome, Reject, Result, Retry
from flowengine.delivery import breaker, retry, width
from flowengine.testing import FlowError, RunningFlow, deliver, make, message, running
from flowengine_http import HttpPost
from flowengine_http import batch as batching
from tests.support.engine import until

LONG = "wait: 5s"
"""So long that only a full batch goes within a test."""
KEY = re.compile(r'"([^"]*)"')


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Further attempts come soon."""
    monkeypatch.setattr(retry, "FIRST", 0.02)
    monkeypatch.setattr(breaker, "LONGEST", 0.2)


class Batch(NamedTuple):
    """A request as it came."""

    path: str
    headers: Any
    records: list[Any]

    @property
    def keys(self) -> list[str]:
        return KEY.findall(self.headers["Idempotency-Key"])


def report(*elements: Any) -> web.Response:
    return web.json_response({"results": list(elements)})


Answering = Callable[[Batch], Awaitable[web.StreamResponse] | web.StreamResponse | int]


@dataclass
class Backend:
    """A real HTTP server that takes arrays. batches: all that came; taken: the records it said yes to by status."""

    answer: Answering = field(default=lambda _batch: 200)
    batches: list[Batch] = field(default_factory=list)
    taken: list[Any] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        batch = Batch(request.path, request.headers, json.loads(await request.read()))
        assert isinstance(batch.records, list)
        assert len(batch.keys) == len(batch.records)
        self.batches.append(batch)
        answer = self.answer(batch)
        if isinstance(answer, Awaitable):
            answer = await answer
        response = web.Response(status=answer) if isinstance(answer, int) else answer
        if response.status < 300:
            self.taken += batch.records
        return response

    @property
    def sizes(self) -> list[int]:
        return [len(batch.records) for batch in self.batches]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Backend]:
        runner = web.ServerRunner(web.Server(self.handle), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


@asynccontextmanager
async def posting(
    backend: Backend, options: str = "", more: str = "", delivery: str = ""
) -> AsyncIterator[RunningFlow]:
    """A flow that posts to the backend. options: of `batch`; more: others of the node, which may say the URL."""
    async with backend.running():
        url = "" if "url:" in more else f"url: '{backend.url}/', "
        text = (
            "flow: f\nchains:\n  main:\n    - test-in: {metadata: [place]}\n"
            f"    - http-post: {{{url}{more.replace('BACKEND', backend.url)}{more and ', '}batch: {{{options}}}}}\n"
            f"      delivery: {{store_after: never{delivery and ', '}{delivery}}}\n"
        )
        async with running(text) as flow:
            yield flow


async def ends(outcomes: list[Outcome]) -> list[str]:
    async with asyncio.timeout(20):
        return [(await outcome).state for outcome in outcomes]


def send(flow: RunningFlow, count: int, first: int = 0) -> list[Outcome]:
    """A record of each of so many devices."""
    return [flow.send({"n": n}, device=f"d{n}") for n in range(first, first + count)]


def numbers(batch: Batch) -> list[int]:
    return [record["n"] for record in batch.records]


# What goes together


async def test_records_of_several_devices_go_as_one_array_in_the_order_in_which_they_came() -> None:
    backend = Backend()
    async with posting(backend, f"max: 5, {LONG}") as flow:
        assert await ends(send(flow, 5)) == ["delivered"] * 5
    [batch] = backend.batches
    assert numbers(batch) == [0, 1, 2, 3, 4]
    assert batch.headers["Content-Type"] == "application/json"


async def test_a_batch_holds_at_most_max() -> None:
    backend = Backend()
    async with posting(backend, f"max: 4, {LONG}") as flow:
        assert await ends(send(flow, 12)) == ["delivered"] * 12
    assert backend.sizes == [4, 4, 4]


async def test_a_batch_that_is_not_full_goes_after_wait_and_one_record_is_an_array_too() -> None:
    backend = Backend()
    async with posting(backend, "max: 50, wait: 10ms") as flow:
        assert await ends(send(flow, 3)) == ["delivered"] * 3
        assert await ends(send(flow, 1)) == ["delivered"]
    assert backend.sizes == [3, 1]


async def test_a_device_has_one_record_in_a_batch_and_all_in_order() -> None:
    backend = Backend()
    async with posting(backend, "max: 3, wait: 10ms") as flow:
        sent = [flow.send({"device": d, "n": n}, device=d) for n in range(5) for d in ("a", "b", "c")]
        assert await ends(sent) == ["delivered"] * 15
    for batch in backend.batches:
        assert len({record["device"] for record in batch.records}) == len(batch.records)
    for device in ("a", "b", "c"):
        assert [record["n"] for record in backend.taken if record["device"] == device] == [0, 1, 2, 3, 4]


async def test_the_action_asks_for_as_many_at_once_as_its_batches_need_and_the_flow_may_say_otherwise() -> None:
    backend = Backend()
    async with posting(backend, f"max: 100, {LONG}") as flow:
        assert await ends(send(flow, 100)) == ["delivered"] * 100
    assert backend.sizes == [100]
    backend = Backend()
    async with posting(backend, "max: 100, wait: 10ms", delivery="concurrency: 2") as flow:
        assert await ends(send(flow, 6)) == ["delivered"] * 6
    assert max(backend.sizes) == 2


async def test_batches_are_full_from_the_first_on_also_where_the_backend_is_fast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where a backend answers at once, few are under way at once: a batch must not wait for those that may not come."""
    monkeypatch.setattr(width, "_LONG", 60.0)
    backend = Backend()
    async with posting(backend, f"max: 40, {LONG}") as flow:
        assert await ends(send(flow, 80)) == ["delivered"] * 80
    assert backend.sizes == [40, 40]


async def test_records_with_different_urls_or_headers_go_in_different_batches() -> None:
    backend = Backend()
    more = "url: 'BACKEND/{place}', headers: {X-Kind: '{payload.kind}'}"
    async with posting(backend, "max: 2, wait: 5s", more) as flow:
        places = [("north", 1), ("south", 1), ("north", 2), ("north", 1), ("south", 1), ("north", 2)]
        sent = [flow.send({"kind": k, "place": p}, device=str(n), place=p) for n, (p, k) in enumerate(places)]
        assert await ends(sent) == ["delivered"] * 6
    assert backend.sizes == [2, 2, 2]
    for batch in backend.batches:
        assert {f"/{record['place']}" for record in batch.records} == {batch.path}
        assert {str(record["kind"]) for record in batch.records} == {batch.headers["X-Kind"]}


async def test_body_is_made_for_each_record() -> None:
    backend = Backend()
    async with posting(backend, f"max: 2, {LONG}", "body: {of: '{device}', it: '{payload.n}'}") as flow:
        await ends(send(flow, 2))
    assert backend.batches[0].records == [{"of": "d0", "it": 0}, {"of": "d1", "it": 1}]


async def test_a_batch_goes_at_1_mb_of_body() -> None:
    backend = Backend()
    async with posting(backend, "max: 10, wait: 300ms") as flow:
        sent = [flow.send({"img": "A" * 300_000}, device=str(n)) for n in range(7)]
        sent.append(flow.send({"img": "A" * 1_020_000}, device="huge"))
        assert await ends(sent) == ["delivered"] * 8
    assert sorted(backend.sizes) == [1, 1, 3, 3]


async def test_a_batch_goes_at_6_kb_of_keys_since_servers_refuse_large_headers() -> None:
    backend = Backend()
    async with posting(backend, "max: 10, wait: 10ms", delivery="id_from: '{payload.id}'") as flow:
        sent = [flow.send({"id": str(n) * 1500}, device=str(n)) for n in range(8)]
        assert await ends(sent) == ["delivered"] * 8
    assert backend.sizes == [4, 4]
    assert all(len(batch.headers["Idempotency-Key"]) <= 6144 for batch in backend.batches)


async def test_bytes_have_no_place_in_a_batch_and_take_no_other_record_with_them() -> None:
    backend = Backend()
    async with posting(backend, f"max: 2, {LONG}") as flow:
        raw = flow.send(b"\xff", device="raw")
        odd = flow.send({"n": object()}, device="odd")
        assert await ends([raw, odd, *send(flow, 2)]) == ["dead", "dead", "delivered", "delivered"]
        assert "json-parse" in raw.reason
    assert [numbers(batch) for batch in backend.batches] == [[0, 1]]


# Keys


async def test_the_key_is_the_list_of_the_records_keys_which_they_keep_in_whatever_batch() -> None:
    backend = Backend(lambda _batch: 200 if len(backend.batches) > 1 else 503)
    async with posting(backend, "max: 3, wait: 10ms", delivery="id_from: '{device} 号'") as flow:
        assert await ends(send(flow, 3)) == ["delivered"] * 3
    first = backend.batches[0]
    assert first.headers["Idempotency-Key"] == ", ".join(f'"d{n}%20%E5%8F%B7/f/main/http-post/"' for n in range(3))
    keys: dict[int, set[str]] = {}
    for batch in backend.batches:
        for n, key in zip(numbers(batch), batch.keys, strict=True):
            keys.setdefault(n, set()).add(key)
    assert [len(keys[n]) for n in range(3)] == [1, 1, 1]


# One answer for all


async def test_a_2xx_without_a_report_delivers_all_and_all_have_its_result() -> None:
    backend = Backend(lambda _batch: web.json_response({"took": 2}, status=201))
    async with opened(backend, f"max: 2, {LONG}") as node:
        results = await asyncio.gather(deliver(node, of("a")), deliver(node, of("b")))
    assert [(r.status, r.body) for r in results if isinstance(r, Result)] == [(201, {"took": 2})] * 2


async def test_503_is_for_all_they_wait_as_retry_after_says_and_go_together_again() -> None:
    backend = Backend(lambda _batch: web.Response(status=503, headers={"Retry-After": "7"}))
    async with opened(backend, f"max: 2, {LONG}") as node:
        records = [of("a"), of("b")]
        for _attempt in range(2):
            failures = await asyncio.gather(*(deliver(node, msg) for msg in records), return_exceptions=True)
            assert [(f.after, f.status) for f in failures if isinstance(f, Retry)] == [(7, 503)] * 2
    assert backend.sizes == [2, 2]


async def test_an_outage_loses_and_repeats_nothing_and_batches_come_again_after_it() -> None:
    backend = Backend(lambda _batch: 503)
    async with posting(backend, "max: 10, wait: 10ms") as flow:
        sent = [flow.send({"device": d, "n": n}, device=str(d)) for n in range(3) for d in range(10)]
        await flow.until(lambda: len(backend.batches) >= 3)
        assert backend.taken == []
        backend.answer = lambda _batch: 200
        assert await ends(sent) == ["delivered"] * 30
    for device in range(10):
        assert [record["n"] for record in backend.taken if record["device"] == device] == [0, 1, 2]
    assert max(backend.sizes[-3:]) > 1


async def test_one_bad_record_that_makes_the_backend_reject_the_array_is_dead_alone() -> None:
    backend = Backend(lambda batch: 400 if 3 in numbers(batch) else 200)
    async with posting(backend, f"max: 6, {LONG}") as flow:
        assert await ends(send(flow, 6)) == ["dead" if n == 3 else "delivered" for n in range(6)]
    assert backend.sizes == [6, 1, 1, 1, 1, 1, 1]
    assert sorted(n["n"] for n in backend.taken) == [0, 1, 2, 4, 5]


async def test_reject_when_on_the_answer_to_several_asks_for_each_again() -> None:
    def answer(batch: Batch) -> web.Response:
        return web.json_response({"code": 1 if 1 in numbers(batch) else 0})

    backend = Backend(answer)
    async with posting(backend, f"max: 3, {LONG}", "reject_when: result.body.code == 1") as flow:
        assert await ends(send(flow, 3)) == ["delivered", "dead", "delivered"]


@pytest.mark.parametrize("status", [500, 409])
async def test_one_bad_record_at_which_the_backend_fails_delays_only_itself(status: int) -> None:
    backend = Backend(lambda batch: status if 2 in numbers(batch) else 200)
    async with posting(backend, "max: 5, wait: 10ms") as flow:
        sent = send(flow, 5)
        assert await ends(sent[:2] + sent[3:]) == ["delivered"] * 4
        assert await ends(send(flow, 5, first=10)) == ["delivered"] * 5  # batches of others go on meanwhile
        assert sum(2 in numbers(batch) and len(batch.records) > 1 for batch in backend.batches) == 1
        backend.answer = lambda _batch: 200
        assert await ends(sent[2:3]) == ["delivered"]
    assert len(backend.taken) == 10


async def test_success_when_unmet_by_the_answer_to_all_is_tried_again() -> None:
    backend = Backend(lambda _batch: web.json_response({"code": 0 if len(backend.batches) > 1 else 7}))
    async with posting(backend, f"max: 2, {LONG}", "success_when: result.body.code == 0") as flow:
        assert await ends(send(flow, 2)) == ["delivered"] * 2
    assert len(backend.batches) > 1


async def test_an_answer_that_does_not_come_is_tried_again() -> None:
    async def once(batch: Batch) -> web.StreamResponse:
        if len(backend.batches) == 1:
            await asyncio.sleep(1)  # beyond the timeout
        return web.Response()

    backend = Backend(once)
    async with posting(backend, f"max: 2, {LONG}", "timeout: 100ms") as flow:
        assert await ends(send(flow, 2)) == ["delivered"] * 2


# An answer for each


async def test_each_record_has_the_outcome_that_the_report_says() -> None:
    seen: list[int] = []

    def answer(batch: Batch) -> web.Response:
        said = {0: 200, 1: 503, 2: 422, 3: 409, 4: 201, 5: 404}
        elements = [{"status": 200 if n in seen else said[n]} for n in numbers(batch)]
        seen.extend(numbers(batch))
        return report(*elements)

    backend = Backend(answer)
    async with posting(backend, "max: 6, wait: 20ms, results: results") as flow:
        states = await ends(send(flow, 6))
    assert states == ["delivered", "delivered", "dead", "delivered", "delivered", "dead"]
    attempts = [n for batch in backend.batches for n in numbers(batch)]
    assert [attempts.count(n) for n in range(6)] == [1, 2, 1, 2, 1, 1]


async def test_a_dead_letter_says_what_was_said_of_its_record() -> None:
    backend = Backend(lambda _batch: report({"status": 422, "error": "no such user"}, {"status": 200}))
    async with opened(backend, f"max: 2, {LONG}, results: results") as node:
        bad, good = await asyncio.gather(deliver(node, of("a")), deliver(node, of("b")), return_exceptions=True)
    assert isinstance(bad, Reject) and bad.status == 422 and "no such user" in bad.reason
    assert isinstance(good, Result) and (good.status, good.body) == (200, {"status": 200})


async def test_success_when_and_reject_when_are_tested_on_each_element() -> None:
    backend = Backend(lambda _batch: web.json_response([{"code": 0, "status": 1}, {"code": 9}, {"code": 4}]))
    more = "success_when: result.body.code == 0, reject_when: result.body.code == 4"
    async with opened(backend, f"max: 3, {LONG}, results: ''", more) as node:
        told = await asyncio.gather(*(deliver(node, of(d)) for d in "abc"), return_exceptions=True)
    assert [type(t) for t in told] == [Result, Retry, Reject]
    assert backend.sizes == [3]


@pytest.mark.parametrize(
    "answer",
    [
        {"results": [{"status": 200}]},
        {"results": [{}, {}, {}]},
        {"results": {"0": 1, "1": 2}},
        {"result": [{}, {}]},
        [1, 2],
        "ok",
    ],
)
async def test_a_report_that_is_none_delivers_nothing_and_is_tried_again_with_a_clear_reason(answer: Any) -> None:
    backend = Backend(lambda _batch: web.json_response(answer))
    async with opened(backend, f"max: 2, {LONG}, results: results") as node:
        failures = await asyncio.gather(deliver(node, of("a")), deliver(node, of("b")), return_exceptions=True)
    for failure in failures:
        assert isinstance(failure, Retry)
        assert "'results' is not a list of 2" in failure.reason


async def test_without_a_2xx_the_status_speaks_for_all_whatever_the_report_says() -> None:
    backend = Backend(lambda _batch: web.json_response({"results": [{"status": 200}] * 2}, status=503))
    async with opened(backend, f"max: 2, {LONG}, results: results") as node:
        failures = await asyncio.gather(deliver(node, of("a")), deliver(node, of("b")), return_exceptions=True)
    assert [type(f) for f in failures] == [Retry, Retry]


# Ends


async def test_a_record_whose_deliver_is_cancelled_is_taken_out_and_the_others_go() -> None:
    backend = Backend()
    async with opened(backend, f"max: 3, {LONG}") as node:
        first, second = (asyncio.create_task(node.deliver(of(d))) for d in "ab")
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        third = asyncio.create_task(node.deliver(of("c")))
        await asyncio.gather(second, third)
    assert backend.batches[0].records == [{"d": "b"}, {"d": "c"}]


async def test_one_that_is_cancelled_on_the_way_leaves_the_others_their_answers() -> None:
    arrived = asyncio.Event()
    gate = asyncio.Event()

    async def answer(batch: Batch) -> web.StreamResponse:
        arrived.set()
        await gate.wait()
        return web.Response()

    backend = Backend(answer)
    async with opened(backend, f"max: 2, {LONG}") as node:
        first, second = (asyncio.create_task(node.deliver(of(d))) for d in "ab")
        await arrived.wait()
        first.cancel()
        await asyncio.wait([first])
        gate.set()
        assert (await second).status == 200


async def test_nobody_hangs_when_the_node_is_closed() -> None:
    gate = asyncio.Event()

    async def answer(batch: Batch) -> web.StreamResponse:
        await gate.wait()
        return web.Response()

    backend = Backend(answer)
    async with opened(backend, "max: 2, wait: 5s") as node:
        waiting = [asyncio.create_task(node.deliver(of(d))) for d in "abcde"]  # two batches on the way, one open
        await until(lambda: len(backend.batches) == 2, "two batches")
        await node.close()
        async with asyncio.timeout(5):
            failures = await asyncio.gather(*waiting, return_exceptions=True)
        gate.set()
    assert [type(failure) for failure in failures] == [Retry] * 5


async def test_a_stop_with_an_open_batch_delivers_or_stores_what_is_in_it(tmp_path: Path) -> None:
    backend = Backend()
    async with backend.running():
        text = (
            f"flow: f\nchains:\n  main:\n    - test-in\n    - http-post: {{url: '{backend.url}', "
            "batch: {wait: 200ms}}\n"
        )
        async with running(text, state=tmp_path) as flow:
            sent = send(flow, 3)
        assert {outcome.state for outcome in sent} <= {"delivered", "stored"}
        stored = {n for n, outcome in enumerate(sent) if outcome.state == "stored"}
        async with running(text, state=tmp_path) as flow:
            await flow.until(lambda: not flow.engine.pending())
    assert sorted(record["n"] for record in backend.taken) == [0, 1, 2], stored


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("batch: {max: 0}", "'max': 0 is too small"),
        ("batch: {max: 101}", "'max': 101 is too large"),
        ("batch: {wait: 6s}", "may wait 5 s at the most"),
        ("batch: {results: 'a..b'}", "not a path"),
        ("results: a", "unknown option 'results'"),
        ("batch: {}, headers: {Content-Type: text/plain}", "a batch is JSON"),
    ],
)
def test_options_that_cannot_be_are_errors(options: str, says: str) -> None:
    with pytest.raises(FlowError, match=re.escape(says)):
        make(HttpPost, f"{{url: 'http://a', {options}}}")


def test_what_is_remembered_of_failures_is_bounded() -> None:
    async def fill() -> int:
        batches = batching.Batches(Unreachable(), batching.BatchOptions())

        async def attempt(key: str) -> None:
            with suppress(Retry):
                await batches.deliver("http://a", {}, key, lambda: b"1", judge, alone=True)

        for n in range(batching._SET_APART + 50):
            await attempt(str(n))
        return len(batches._apart)

    def judge(answer: batching.Answer) -> Result:
        raise AssertionError

    assert asyncio.run(fill()) == batching._SET_APART


class Unreachable:
    """A client that finds nobody."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def post(self, url: str, headers: Any, body: bytes) -> Any:
        raise Retry("nobody there")


def of(device: str) -> Message:
    return message({"d": device}, device=device)


@asynccontextmanager
async def opened(backend: Backend, options: str, more: str = "") -> AsyncIterator[HttpPost]:
    """The node alone, without an engine."""
    async with backend.running():
        node = make(HttpPost, f"{{url: '{backend.url}', {more}{more and ', '}batch: {{{options}}}}}")
        await node.open()
        try:
            yield node
        finally:
            await node.close()
