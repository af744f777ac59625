"""The action `http-post`."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec

from flowengine import (
    N_,
    Action,
    Annotated,
    Condition,
    Duration,
    Message,
    Meta,
    NodeOptions,
    Problem,
    Reject,
    Result,
    Retry,
    Template,
    Tree,
    Url,
    _,
)
from flowengine_http.batch import LONGEST_WAIT, Answer, Batches, BatchOptions
from flowengine_http.choosing import open_client
from flowengine_http.client import HttpClient, Response, origin, said
from flowengine_http.headers import problems, render
from flowengine_http.json_body import encode

_JSON = "application/json"
_LONGEST_AFTER = 3600.0
_BATCHES = 4
"""So many full batches may be under way at once, so that one gathers while others wait for their answers."""
_TRANSIENT = {408, 409, 425, 429}
_OURS_TO_MEND = {401, 403, 404, 410}
# What a structured-field string holds unescaped (RFC 9651 section 3.3.3), less the blank and the percent
# sign.
_PLAIN = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '"\\%')


class Verdict(Condition):
    """A condition on the answer that has just come: `result` is known in it."""

    kind: ClassVar[str] = N_("condition")
    judges: ClassVar[bool] = True


class HttpPost(Action):
    """Sends each message to a URL as a POST.

    The body is the payload, or what `body` makes: objects, lists and numbers as JSON, a text as a JSON text
    (or as it stands if `headers` names a Content-Type that is not JSON), bytes as they are. References in
    `url` are percent-encoded. The answer is `{result.status}`, `{result.headers.name}` (names in lower case)
    and `{result.body}` (JSON if it says so, else text; its first 64 KB).

    With `batch`, records of several devices go together, for a backend that takes a JSON array: at most `max` of
    them, and `wait` after the first at the latest. A device has one message under way, so a batch holds at most one of each:
    the more devices, the fuller it is, and one alone waits `wait` for each of its messages. Only records with the same
    URL and headers go together; `body` is made for each. If the backend reports what became of each record, `results` says where:
    a list as long as the array, in its order. `{result.body}` is then the record's element of it, and
    `{result.status}` that element's `status`, if it is a number from 200 to 599.

    Guarantees:
        2xx means delivered. Every attempt carries the same Idempotency-Key: the message's id, this node and
        the part, so that the backend can tell a repeat. Tried again with backoff: network errors, timeouts,
        answers that break off, 408, 409, 425, 429, 5xx; Retry-After is heeded, up to 1 h. Tried again slowly,
        and said loudly: 401, 403, 404, 410, redirects (never followed), certificates that are not trusted.
        Any other 4xx: the message is dead. Where a backend says no with a 2xx, the flow says what its answer
        means: a 2xx that does not meet `success_when` is tried again like a 5xx, and an answer of whatever
        status that meets `reject_when` makes the message dead. No proxy from the environment, no cookies;
        what stands in the URL beside the host is never logged.

        With `batch` all this is promised of each record. Idempotency-Key is the list of the records' keys in the order of the
        array (RFC 9651 section 3.1), and a record keeps its key whatever batch it goes in. Without `results` the answer is
        said to all. With it, after a 2xx, each record is delivered, tried again (408, 409, 425, 429, 5xx, an unmet
        `success_when`) or dead (any other status, `reject_when`) by its own element; a report that is missing or of another
        length means that all are tried again. One bad record takes no other down: where an answer would make several dead,
        each is sent again at once, alone; where several are to be tried again, but for 429 and 503, each goes alone
        until it goes through. Bytes are dead at once.

    Example:
        - http-post: {url: "http://127.0.0.1:6688/api/records", headers: {X-Device: "{device}"}}
          delivery: {id_from: "{device}/{payload.time}"}
        - http-post: {url: "http://127.0.0.1:6688/api/records/batch", batch: {max: 50, wait: 20ms, results: results}}
          name: in-batches
    """

    type = "http-post"

    class Options(NodeOptions):
        bare: ClassVar[str] = "url"
        url: Annotated[
            Url,
            Meta(
                description="Where to post to, http or https",
                examples=["http://127.0.0.1:6688/api/user/mqtt_msg"],
            ),
        ]
        headers: Annotated[
            dict[str, Template],
            Meta(description="Headers to send", examples=[{"Authorization": "Bearer ${token}"}]),
        ] = msgspec.field(default_factory=dict)
        body: Annotated[
            Tree | None,
            Meta(description="What to send in place of the payload", examples=[{"user": "{payload.num}"}]),
        ] = None
        timeout: Annotated[
            Duration,
            Meta(description="How long one attempt may take, to the end of the answer", examples=["10s"]),
        ] = Duration("10s")
        success_when: Annotated[
            Verdict | None,
            Meta(
                description="What a 2xx must also meet to count as delivered; otherwise it is tried again",
                examples=["result.body.code == 0"],
            ),
        ] = None
        reject_when: Annotated[
            Verdict | None,
            Meta(
                description="An answer that meets this says that the record will never be taken: it is dead",
                examples=["result.body.code == 400"],
            ),
        ] = None
        ca: Annotated[
            str,
            Meta(
                description="PEM file with the certificates to trust instead of the system's",
                examples=["certs/ca.pem"],
            ),
        ] = ""

        batch: Annotated[
            BatchOptions | None,
            Meta(
                description="Send several records at once, as a JSON array",
                examples=[{"max": 50, "wait": "20ms"}],
            ),
        ] = None

    def setup(self) -> None:
        self._client: HttpClient | None = None
        self._batches: Batches | None = None
        self._judged = self.options.success_when is not None or self.options.reject_when is not None
        self._key_suffix = f"/{self.context.identity}/"
        given = next((t.text for n, t in self.options.headers.items() if n.lower() == "content-type"), None)
        self._content_type_given = given is not None
        self._text_as_it_stands = given is not None and "json" not in given.lower()

    def check(self) -> Iterable[Problem]:
        options = self.options
        if options.url.scheme not in ("http", "https"):
            yield Problem(
                "url",
                _("only http and https are spoken here, not '{scheme}'").format(scheme=options.url.scheme),
            )
        elif options.ca and options.url.scheme != "https":
            yield Problem("ca", _("certificates matter only where the url begins with https"))
        if not options.timeout.seconds:
            yield Problem("timeout", _("no backend is that fast: write a time longer than 0"))
        if options.batch is not None:
            if options.batch.wait.seconds > LONGEST_WAIT:
                words = _("a batch may wait {seconds:g} s at the most")
                yield Problem("batch.wait", words.format(seconds=LONGEST_WAIT))
            if self._text_as_it_stands:
                yield Problem("headers", _("a batch is JSON: leave Content-Type out, or name a type of JSON"))
        key = _("every message has one; 'delivery: {id_from: ...}' makes it from content")
        yield from problems(options.headers, ours={"idempotency-key": key})

    @property
    def at_once(self) -> int:
        batch = self.options.batch
        return super().at_once if batch is None else max(super().at_once, _BATCHES * batch.max)

    @property
    def together(self) -> int:
        batch = self.options.batch
        return 1 if batch is None else batch.max

    async def open(self) -> None:
        options = self.options
        self._client = await open_client(timeout=options.timeout.seconds, ca=options.ca, log=self.log)
        if options.batch is not None:
            self._batches = Batches(self._client, options.batch)

    async def close(self) -> None:
        if self._batches is not None:
            await self._batches.close()
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def prepare(self, msg: Message) -> Any:
        body = self.options.body
        return None if body is None else body.build(msg)

    async def deliver(self, msg: Message) -> Result:
        if self._client is None:
            raise RuntimeError("the node is not open")
        options = self.options
        headers = render(options.headers, msg) if options.headers else {}
        key = idempotency_key(f"{msg.id}{self._key_suffix}{msg.part}")
        url = options.url.constant or options.url.render(msg)
        if self._batches is not None:
            if not self._content_type_given:
                headers["Content-Type"] = _JSON
            record = functools.partial(self._record, msg)
            judge = functools.partial(self._judge, msg, url)
            return await self._batches.deliver(url, headers, key, record, judge, alone=self.alone())
        body, kind = self._body(msg)
        if not self._content_type_given:
            headers["Content-Type"] = kind
        headers["Idempotency-Key"] = key
        response = await self._client.post(url, headers, body)
        return self._judge(msg, url, Answer(response, response.content()))

    def _body(self, msg: Message) -> tuple[bytes, str]:
        value = msg.body
        if value is None and self.options.body is not None:
            value = self.prepare(msg)
        if value is None:
            value = msg.payload
        if isinstance(value, bytes):
            return value, "application/octet-stream"
        if self._text_as_it_stands and isinstance(value, str):
            return value.encode(), ""
        try:
            return encode(value), _JSON
        except (TypeError, ValueError, RecursionError) as failure:
            raise Reject(_("this cannot be written as JSON: {why}").format(why=failure)) from failure

    def _record(self, msg: Message) -> bytes:
        """The message as an element of a batch."""
        body, kind = self._body(msg)
        if kind != _JSON:
            raise Reject(_("bytes have no place in a batch, which is JSON (put json-parse before this node)"))
        return body

    def _judge(self, msg: Message, url: str, answer: Answer) -> Result:
        """What an answer means for the message: raises Retry or Reject unless it is a yes."""
        options = self.options
        response = answer.response
        result = Result(response.status, response.headers, answer.content)
        answered = msgspec.structs.replace(msg, result=result) if self._judged else msg
        if options.reject_when is not None and options.reject_when.test(answered):
            raise Reject(said(url, response), status=response.status)
        if not response.ok:
            raise _refusal(url, response, of_record=answer.own)
        if options.success_when is not None and not options.success_when.test(answered):
            reason = _("{reason}, which does not meet 'success_when'").format(reason=said(url, response))
            raise Retry(reason, after=retry_after(response.headers.get("retry-after")), status=response.status)
        return result


def idempotency_key(text: str) -> str:
    """A text as the header's value: a structured-field string (draft-ietf-httpapi-idempotency-key-header
    section 2.1), in which blanks, quotes, percent signs and what is not ASCII are percent-encoded. Different
    texts give different keys."""
    if text.isascii() and text.isprintable():
        plain = text.replace("%", "%25").replace(" ", "%20").replace('"', "%22").replace("\\", "%5C")
        return f'"{plain}"'
    return f'"{quote(text, safe=_PLAIN, errors="surrogatepass")}"'


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110 section 10.2.3: a number or a date), at most an
    hour; None if it cannot be read."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdecimal():
        return min(float(text), _LONGEST_AFTER)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max((moment - datetime.now(UTC)).total_seconds(), 0.0), _LONGEST_AFTER)


def _refusal(url: str, response: Response, *, of_record: bool) -> Retry | Reject:
    """What a status other than 2xx means for the message (RFC 9110 section 15). of_record: a report says it of this record
    alone, so it is no matter of addresses or credentials."""
    status = response.status
    if status in _TRANSIENT or not 300 <= status < 500:
        return Retry(said(url, response), after=retry_after(response.headers.get("retry-after")), status=status)
    if of_record:
        return Reject(said(url, response), status=status)
    if status < 400:
        reason = _("{origin} answered {status}").format(origin=origin(url), status=status)
        reason = _("{reason}: redirects are not followed, write the new address in 'url'").format(reason=reason)
        where = origin(response.headers.get("location", ""))
        return Retry(f"{reason} ({where})" if "://" in where else reason, slow=True, status=status)
    if status in _OURS_TO_MEND:
        return Retry(said(url, response), slow=True, status=status)
    return Reject(said(url, response), status=status)
