"""Records that go to a URL together: the body is a JSON array of them, and every record keeps its own outcome.

A record is one message of http-post, handed over by the worker that delivers it, which waits for the outcome of its own record.
So order, retry, breaker and storing stay the engine's, and as a device has one message in flight, a batch holds at most one of
each device.
"""

from __future__ import annotations

import asyncio
import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from flowengine import Annotated, Duration, Meta, NodeOptions, Path, Reject, Result, Retry, _
from flowengine_http.client import HttpClient, Response, said

LONGEST_WAIT = 5.0
"""Seconds; what is under way at a stop has no more."""

_BODY = 1_000_000
"""Bytes that a batch holds unless one record has more: 50 pictures shall not become one body of 15 MB, and 1 MiB is what servers
take unless told otherwise (nginx, aiohttp)."""
_KEYS = 6144
"""Bytes of keys in one request: servers commonly refuse more than 8 KB of headers."""
_OF_THE_SERVICE = {429, 503}
"""Answers about the backend's state (RFC 6585 section 4, RFC 9110 section 15.6.4), of which no record is the cause."""
_SET_APART = 10_000
"""Records that are remembered as set apart; to forget one costs its companions one attempt."""


class BatchOptions(NodeOptions):
    """How records are put together."""

    max: Annotated[
        int,
        Meta(
            description="How many records a batch has at the most; at most one of each device, and it goes sooner with 1 MB "
            "of body or 6 KB of keys",
            ge=1,
            le=100,
        ),
    ] = 50
    wait: Annotated[
        Duration,
        Meta(
            description="How long a batch waits for more records after its first; from `store_after` (50 ms) on, each of them is "
            "stored meanwhile",
            examples=["20ms"],
        ),
    ] = Duration("20ms")
    results: Annotated[
        Path | None,
        Meta(
            description="Where the answer lists what became of each record, in the order of the array; "
            '`""` if the answer is that list itself',
            examples=["results"],
        ),
    ] = None


class Answer(NamedTuple):
    """What the backend said to one record. content: the body read. shared: it was said to several records at once. own: it is
    this record's element of the report; the response then has its status and its words."""

    response: Response
    content: Any
    shared: bool = False
    own: bool = False


Judge = Callable[[Answer], Result]
"""What an answer means for a record: raises Retry or Reject unless it is a yes."""


class _Batch:
    """Records that wait to go, each with its key and whoever waits for its answer."""

    __slots__ = ("body", "headers", "keys", "timer", "url", "waiting")

    def __init__(self, url: str, headers: Mapping[str, str], timer: asyncio.TimerHandle) -> None:
        self.url = url
        self.headers = headers
        self.timer = timer
        self.waiting: list[tuple[asyncio.Future[Answer], str, bytes]] = []
        self.body = 0
        self.keys = 0

    def has_room(self, key: str, record: bytes) -> bool:
        """Whether a further record fits in."""
        return self.body + len(record) <= _BODY and self.keys + len(key) <= _KEYS

    def add(self, key: str, record: bytes) -> asyncio.Future[Answer]:
        """Take a record in; its answer comes in the future."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.waiting.append((future, key, record))
        self.body += len(record) + len(",")
        self.keys += len(key) + len(", ")
        return future


class Batches:
    """The batches of one node: `deliver` puts a record into the open batch for its URL and headers, and waits for its outcome.

    A batch goes with its last record, or `wait` after its first: one timer and one task for each, none for a record. A deliver
    that is cancelled before takes its record out; once the batch is under way, the other records go on.

    One bad record must not take the others down with it. Where all records of a batch are rejected by one answer, each is sent
    again at once, as an array of its own, and that answer counts. Where all are to be tried again, each goes by itself at
    its next attempt, and until it goes through: else a record at which the backend fails would fail with other companions at
    each attempt. After 429 and 503, which are no record's doing, they go together again.
    """

    def __init__(self, client: HttpClient, options: BatchOptions) -> None:
        self._client = client
        self._max = options.max
        self._wait = options.wait.seconds
        self._results = options.results
        self._open: dict[tuple[str, ...], _Batch] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._apart: dict[str, None] = {}

    async def deliver(
        self,
        url: str,
        headers: Mapping[str, str],
        key: str,
        record: Callable[[], bytes],
        judge: Judge,
        *,
        alone: bool = False,
    ) -> Result:
        """Send a record and judge what is said to it. record: makes its JSON. alone: there is nobody to wait for, it goes now.

        Raises what `record` and `judge` raise, and Retry where no answer came.
        """
        answer: Answer | None = None
        try:
            if alone or key in self._apart:
                [answer] = await self._exchange(url, headers, [key], [record()])
            else:  # nothing here keeps the record: it is in the batch only, and then in its body
                answer = await self._add(url, headers, key, record())
            result = judge(answer)
        except Retry as failure:
            if (answer is None or not answer.own) and failure.status not in _OF_THE_SERVICE:
                self._set_apart(key)
            raise
        except Reject:
            self._apart.pop(key, None)
            if answer is None or not answer.shared:
                raise
            return await self.deliver(url, headers, key, record, judge, alone=True)
        self._apart.pop(key, None)
        return result

    async def close(self) -> None:
        """Whoever still waits hears Retry."""
        for group in list(self._open):
            self._go(group)
        under_way = list(self._under_way)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    def _add(self, url: str, headers: Mapping[str, str], key: str, record: bytes) -> asyncio.Future[Answer]:
        group = (url, *headers.values())
        batch = self._open.get(group)
        if batch is not None and not batch.has_room(key, record):
            self._go(group)
            batch = None
        if batch is None:
            timer = asyncio.get_running_loop().call_later(self._wait, self._go, group)
            batch = self._open[group] = _Batch(url, headers, timer)
        future = batch.add(key, record)
        if len(batch.waiting) >= self._max or batch.body >= _BODY:
            self._go(group)
        return future

    def _go(self, group: tuple[str, ...]) -> None:
        """An open batch waits no longer."""
        batch = self._open.pop(group)
        batch.timer.cancel()
        futures, keys, records = [], [], []
        for future, key, record in batch.waiting:
            if not future.done():  # else its deliver was cancelled
                futures.append(future)
                keys.append(key)
                records.append(record)
        if futures:
            task = asyncio.get_running_loop().create_task(self._send(batch.url, batch.headers, futures, keys, records))
            self._under_way.add(task)
            task.add_done_callback(functools.partial(self._over, futures))

    def _over(self, futures: list[asyncio.Future[Answer]], task: asyncio.Task[None]) -> None:
        """A batch has come to its end, one way or another: nobody waits for it any more."""
        self._under_way.discard(task)
        _fail(futures, Retry(_("the node was closed before an answer came")))

    async def _send(
        self,
        url: str,
        headers: Mapping[str, str],
        futures: list[asyncio.Future[Answer]],
        keys: list[str],
        records: list[bytes],
    ) -> None:
        """Send a batch, and tell each record's deliver what was said."""
        try:
            answers = await self._exchange(url, headers, keys, records)
        except Exception as failure:
            _fail(futures, failure)
            return
        for future, answer in zip(futures, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    async def _exchange(
        self, url: str, headers: Mapping[str, str], keys: list[str], records: list[bytes]
    ) -> list[Answer]:
        """Send records as one array; the answer to each. The header Idempotency-Key is the list of their keys (RFC 9651
        section 3.1). `records` is empty then: while the answer is waited for, they are in memory once."""
        count = len(records)
        records[0] = b"[" + records[0]
        records[-1] += b"]"
        body = b",".join(records)
        records.clear()
        response = await self._client.post(url, {**headers, "Idempotency-Key": ", ".join(keys)}, body)
        content = response.content()
        if self._results is None or not response.ok:
            return [Answer(response, content, shared=count > 1)] * count
        report = self._results.find(content)
        if type(report) is not list or len(report) != count:
            words = _("{reason}, in which {where} is not a list of {count}, a result for each record")
            where = f"'{self._results.text}'" if self._results.text else _("the body")
            reason = words.format(reason=said(url, response), where=where, count=count)
            raise Retry(reason, status=response.status)
        return [_own(response, element) for element in report]

    def _set_apart(self, key: str) -> None:
        while len(self._apart) >= _SET_APART:
            del self._apart[next(iter(self._apart))]
        self._apart[key] = None


def _own(response: Response, element: Any) -> Answer:
    """A record's element of the report. Its `status` is taken for an HTTP status only if it can be one: some backends number
    their own outcomes from 0."""
    status = element.get("status") if type(element) is dict else None
    if type(status) is not int or not 200 <= status <= 599:
        status = response.status
    return Answer(Response(status, response.headers, msgspec.json.encode(element)), element, own=True)


def _fail(futures: list[asyncio.Future[Answer]], failure: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(copy.copy(failure))  # each is raised in a task of its own, and grows a traceback there
