"""The action `http-post`."""

from __future__ import annotations

import functools
import re
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
from flowengine_http.choosing import open_client
from flowengine_http.client import HttpClient, Response, origin
from flowengine_http.headers import problems, render
from flowengine_http.json_body import encode

_JSON = "application/json"
_EXCERPT = 200
_LONGEST_WAIT = 3600.0
_TRANSIENT = {408, 409, 425, 429}
_OURS_TO_MEND = {401, 403, 404, 410}
# What a structured-field string holds unescaped (RFC 9651 section 3.3.3), less the blank and the percent
# sign.
_PLAIN = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '"\\%')
_ESCAPED = re.compile(f"[^{re.escape(_PLAIN)}]")

_decode = msgspec.json.Decoder().decode


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

    Guarantees:
        2xx means delivered. Every attempt carries the same Idempotency-Key: the message's id, this node and
        the part, so that the backend can tell a repeat. Tried again with backoff: network errors, timeouts,
        answers that break off, 408, 409, 425, 429, 5xx; Retry-After is heeded, up to 1 h. Tried again slowly,
        and said loudly: 401, 403, 404, 410, redirects (never followed), certificates that are not trusted.
        Any other 4xx: the message is dead. Where a backend says no with a 2xx, the flow says what its answer
        means: a 2xx that does not meet `success_when` is tried again like a 5xx, and an answer of whatever
        status that meets `reject_when` makes the message dead. No proxy from the environment, no cookies;
        what stands in the URL beside the host is never logged.

    Example:
        - http-post: {url: "http://127.0.0.1:6688/api/records", headers: {X-Device: "{device}"}}
          delivery: {id_from: "{device}/{payload.time}"}
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

    def setup(self) -> None:
        self._client: HttpClient | None = None
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
        key = _("every message has one; 'delivery: {id_from: ...}' makes it from content")
        yield from problems(options.headers, ours={"idempotency-key": key})

    async def open(self) -> None:
        options = self.options
        self._client = await open_client(timeout=options.timeout.seconds, ca=options.ca, log=self.log)

    async def close(self) -> None:
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
        content = msg.body if msg.body is not None else self.prepare(msg)
        body, kind = self._body(msg.payload if content is None else content)
        headers = render(options.headers, msg)
        if not self._content_type_given:
            headers["Content-Type"] = kind
        headers["Idempotency-Key"] = idempotency_key(f"{msg.id}{self._key_suffix}{msg.part}")
        url = options.url.render(msg)
        response = await self._client.post(url, headers, body)
        result = Result(response.status, response.headers, _content(response))
        answered = msgspec.structs.replace(msg, result=result) if self._judged else msg
        if options.reject_when is not None and options.reject_when.test(answered):
            raise Reject(_said(url, response), status=response.status)
        _judge(url, response)
        if options.success_when is not None and not options.success_when.test(answered):
            reason = _("{reason}, which does not meet 'success_when'").format(reason=_said(url, response))
            raise Retry(reason, after=retry_after(response.headers.get("retry-after")), status=response.status)
        return result

    def _body(self, value: Any) -> tuple[bytes, str]:
        if isinstance(value, bytes):
            return value, "application/octet-stream"
        if self._text_as_it_stands and isinstance(value, str):
            return value.encode(), ""
        try:
            return encode(value), _JSON
        except (TypeError, ValueError, RecursionError) as failure:
            raise Reject(_("this cannot be written as JSON: {why}").format(why=failure)) from failure


def idempotency_key(text: str) -> str:
    """A text as the header's value: a structured-field string (draft-ietf-httpapi-idempotency-key-header
    section 2.1), in which blanks, quotes, percent signs and what is not ASCII are percent-encoded. Different
    texts give different keys."""
    if _ESCAPED.search(text) is None:
        return f'"{text}"'
    return f'"{quote(text, safe=_PLAIN, errors="surrogatepass")}"'


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110 section 10.2.3: a number or a date), at most an
    hour; None if it cannot be read."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdecimal():
        return min(float(text), _LONGEST_WAIT)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max((moment - datetime.now(UTC)).total_seconds(), 0.0), _LONGEST_WAIT)


def _judge(url: str, response: Response) -> None:
    """What a status means for the message (RFC 9110 section 15): raises Retry or Reject unless it is 2xx."""
    status = response.status
    if 200 <= status < 300:
        return
    reason = _("{origin} answered {status}").format(origin=origin(url), status=status)
    if 300 <= status < 400:
        where = origin(response.headers.get("location", ""))
        reason = _("{reason}: redirects are not followed, write the new address in 'url'").format(reason=reason)
        raise Retry(f"{reason} ({where})" if "://" in where else reason, slow=True, status=status)
    reason = _said(url, response)
    if status in _OURS_TO_MEND:
        raise Retry(reason, slow=True, status=status)
    if status in _TRANSIENT or not 400 <= status < 500:
        raise Retry(reason, after=retry_after(response.headers.get("retry-after")), status=status)
    raise Reject(reason, status=status)


def _said(url: str, response: Response) -> str:
    """Who answered what, with the beginning of the body."""
    reason = _("{origin} answered {status}").format(origin=origin(url), status=response.status)
    excerpt = " ".join(response.body[: 4 * _EXCERPT].decode("utf-8", "replace").split())[:_EXCERPT]
    return f"{reason}: {excerpt}" if excerpt else reason


def _content(response: Response) -> Any:
    """The body as JSON if it says it is, else as text."""
    if _is_json(response.headers.get("content-type", "")):
        try:
            return _decode(response.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # it says it is JSON and is not: what it says is still worth having
    return response.body.decode("utf-8", "replace")


@functools.lru_cache(64)
def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == _JSON or media_type.endswith("+json")
