"""The simulated backend over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from flowengine_simulate.backend import Backend, Faults, Taken

FAULTLESS: dict[str, Any] = {"fail": 0, "fail_rate": None, "fail_for": None, "delay": 0.0, "hang": False}
RECORD = {
    "user_id": "1",
    "name": "王伟",
    "img": "/9j/",
    "verifiedCode": 0,
    "bot_time": "t",
    "personType": "1",
}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def post(session: aiohttp.ClientSession, backend: Backend, key: str | None = None, body: Any = RECORD) -> int:
    headers = {} if key is None else {"Idempotency-Key": key}
    async with session.post(backend.url, json=body, headers=headers) as answer:
        return answer.status


async def stats(session: aiohttp.ClientSession, backend: Backend) -> dict[str, int]:
    async with session.get(backend.url.replace(backend.path, "/stats")) as answer:
        counts: dict[str, int] = await answer.json()
        return counts


async def put_faults(session: aiohttp.ClientSession, backend: Backend, text: str) -> tuple[int, dict[str, Any]]:
    async with session.put(backend.url.replace(backend.path, "/faults"), data=text) as answer:
        return answer.status, await answer.json()


async def test_a_record_is_taken_and_shown_as_it_came(session: aiohttp.ClientSession) -> None:
    taken: list[Taken] = []
    async with Backend(on_record=taken.append) as backend:
        assert await post(session, backend, "a") == 200
    assert taken == [Taken(RECORD, "a", False, 200)]


async def test_repeats_of_an_idempotency_key_are_counted_apart(session: aiohttp.ClientSession) -> None:
    async with Backend() as backend:
        for key in ("a", "b", "a", "a", None):
            assert await post(session, backend, key) == 200
    counts = backend.counts
    assert (counts.records, counts.distinct, counts.repeats, counts.without_key) == (5, 2, 2, 1)


async def test_each_record_of_an_array_is_counted_with_its_own_key(session: aiohttp.ClientSession) -> None:
    """As http-post with `batch` sends them."""
    taken: list[Taken] = []
    one, other = {**RECORD, "user_id": "1"}, {**RECORD, "user_id": "2"}
    async with Backend(on_record=taken.append, faults=Faults(fail=503)) as backend:
        assert await post(session, backend, '"d/1/a,b", "d/2"', [one, other]) == 503
        backend.faults = Faults()
        assert await post(session, backend, '"d/1/a,b"', [one]) == 200
        assert await post(session, backend, '"d/1/a,b", "d/2"', [one, other]) == 200
        assert await post(session, backend, None, [one]) == 200
    counts = backend.counts
    assert (counts.requests, counts.failed, counts.retries) == (4, 1, 3)
    assert (counts.records, counts.distinct, counts.repeats, counts.without_key) == (4, 2, 1, 1)
    assert taken[:3] == [
        Taken(one, '"d/1/a,b"', False, 503),
        Taken(other, '"d/2"', False, 503),
        Taken(one, '"d/1/a,b"', False, 200),
    ]


async def test_a_record_that_failed_first_is_a_retry_and_no_repeat(session: aiohttp.ClientSession) -> None:
    async with Backend(faults=Faults(fail=500)) as backend:
        assert await post(session, backend, "a") == 500
        backend.faults = Faults()
        assert await post(session, backend, "a") == 200
    counts = backend.counts
    assert (counts.requests, counts.failed, counts.records, counts.retries, counts.repeats) == (2, 1, 1, 1, 0)


async def test_it_fails_for_a_time_that_begins_with_the_first_request(session: aiohttp.ClientSession) -> None:
    async with Backend(faults=Faults(fail_for="300ms")) as backend:
        assert await post(session, backend) == 503
        async with asyncio.timeout(10):
            while await post(session, backend) != 200:
                await asyncio.sleep(0.02)
        assert await post(session, backend) == 200


async def test_only_a_share_of_the_requests_fails(session: aiohttp.ClientSession) -> None:
    async with Backend(faults=Faults(fail_rate=0.5)) as backend:
        answers = [await post(session, backend) for _ in range(100)]
    assert set(answers) == {200, 503}
    assert (backend.counts.failed, backend.counts.records) == (answers.count(503), answers.count(200))


async def test_a_delayed_answer_is_given_after_the_delay(session: aiohttp.ClientSession) -> None:
    async with Backend(faults=Faults(delay="200ms")) as backend:
        start = asyncio.get_running_loop().time()
        assert await post(session, backend) == 200
        assert asyncio.get_running_loop().time() - start >= 0.2


async def test_a_hanging_backend_answers_once_the_faults_change(session: aiohttp.ClientSession) -> None:
    async with Backend(faults=Faults(hang=True)) as backend:
        posting = asyncio.create_task(post(session, backend))
        while (await stats(session, backend))["requests"] == 0:
            await asyncio.sleep(0.01)
        assert not posting.done()
        assert await put_faults(session, backend, "{}") == (200, FAULTLESS)
        assert await posting == 200


async def test_a_client_that_gives_up_is_counted_and_its_record_is_not(
    session: aiohttp.ClientSession,
) -> None:
    async with Backend(faults=Faults(hang=True)) as backend:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(post(session, backend, "a"), 0.2)
        async with asyncio.timeout(10):
            while not backend.counts.abandoned:
                await asyncio.sleep(0.01)
        backend.faults = Faults()
        assert await post(session, backend, "a") == 200
    assert (backend.counts.abandoned, backend.counts.records, backend.counts.repeats) == (1, 1, 0)


@pytest.mark.parametrize("body", [[], [3], "text", 3])
async def test_what_is_no_json_object_is_refused(session: aiohttp.ClientSession, body: object) -> None:
    async with Backend() as backend:
        assert await post(session, backend, body=body) == 400
        async with session.post(backend.url, data=b"{") as answer:
            assert answer.status == 400
    assert (backend.counts.refused, backend.counts.records) == (2, 0)


async def test_faults_can_be_changed_while_it_runs(session: aiohttp.ClientSession) -> None:
    async with Backend() as backend:
        assert await post(session, backend) == 200
        assert (await put_faults(session, backend, '{"fail": 429}'))[0] == 200
        assert await post(session, backend) == 429
        assert (await put_faults(session, backend, "{}"))[0] == 200
        assert await post(session, backend) == 200


@pytest.mark.parametrize(
    "text",
    ['{"fail": 200}', '{"fail_rate": 2}', '{"delay": "soon"}', '{"fail_for": "x"}', '{"slow": 1}', "[]", "{"],
)
async def test_wrong_faults_are_refused_and_change_nothing(session: aiohttp.ClientSession, text: str) -> None:
    async with Backend() as backend:
        status, answer = await put_faults(session, backend, text)
        assert status == 400
        assert answer["error"]
        assert backend.faults == Faults()


async def test_stats_tell_the_counts(session: aiohttp.ClientSession) -> None:
    async with Backend() as backend:
        await post(session, backend, "a")
        counts = await stats(session, backend)
    assert (counts["requests"], counts["records"], counts["distinct"]) == (1, 1, 1)


async def test_a_record_with_a_large_image_is_taken(session: aiohttp.ClientSession) -> None:
    async with Backend() as backend:
        assert await post(session, backend, body={**RECORD, "img": "A" * 400_000}) == 200


async def test_a_taken_port_is_an_error() -> None:
    async with Backend() as backend:
        with pytest.raises(OSError, match="address already in use"):
            await Backend(port=backend.port).start()
