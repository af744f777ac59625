"""One POST over HTTP: what its two clients have in common, `SessionClient` (aiohttp's public API) and `DirectClient` (fast)."""

from __future__ import annotations

import functools
import os
import re
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from flowengine import Reject, Retry, StartError, _, __version__

BODY_LIMIT = 65_536
"""Bytes of an answer that are kept."""

KEEP_ALIVE = 15.0
"""Seconds after which a connection that is not used is closed."""

HEADERS = {"User-Agent": f"flowengine/{__version__}", "Accept-Encoding": "identity"}
"""What each request says. Answers are short, and compressing them is work for both."""

_EXCERPT = 200
_VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
_decode = msgspec.json.Decoder().decode


class Response(NamedTuple):
    """What the far end answered. Header names are in lower case; the body ends after `BODY_LIMIT` bytes."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx (RFC 9110 section 15.3)."""
        return 200 <= self.status < 300

    def content(self) -> Any:
        """The body as JSON if it says it is, else as text."""
        if _is_json(self.headers.get("content-type", "")):
            try:
                return _decode(self.body)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass  # it says it is JSON and is not: what it says is still worth having
        return self.body.decode("utf-8", "replace")


class HttpClient(Protocol):
    """Posts. Connections are kept open and reused; no redirects, no cookies, no proxy from the environment."""

    async def open(self) -> None:
        """Acquire what is needed; StartError if that fails."""

    async def close(self) -> None:
        """Close all connections."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        """Post and read the answer; redirects are not followed. Raises Retry if no whole answer came, Reject
        if `url` is none."""


def origin(url: str) -> str:
    """What may be said of a URL in logs and reasons: scheme, host and port. Credentials, path and query may
    hold secrets."""
    try:
        return str(URL(url).origin())
    except ValueError:
        return "URL"


def said(url: str, response: Response) -> str:
    """Who answered what, with the beginning of the body."""
    reason = _("{origin} answered {status}").format(origin=origin(url), status=response.status)
    excerpt = " ".join(response.body[: 4 * _EXCERPT].decode("utf-8", "replace").split())[:_EXCERPT]
    return f"{reason}: {excerpt}" if excerpt else reason


def connector(ca: str) -> aiohttp.TCPConnector:
    """The pool of connections of one client. ca: a PEM file with the certificates to trust in place of the system's; empty
    for those. Raises StartError if the file cannot be read."""
    # limit=0: the engine bounds how many are under way
    return aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE, ssl=_trust(ca))


def as_written(url: str) -> URL:
    """The URL with its percent-encoding as it stands (a backend may have signed it): only what is not ASCII is encoded.
    Raises Reject if it is none."""
    scheme, _slashes, rest = url.partition("://")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    try:
        if authority.isascii():
            made = URL(f"{scheme}://{authority}{quote(rest[len(authority) :], safe=_VISIBLE)}", encoded=True)
        else:
            made = URL(url)  # a host that DNS knows under another name (RFC 5891)
        if made.scheme in ("http", "https") and made.host and made.port:  # yarl reads them only when asked
            return made
    except ValueError:
        pass  # such as a port that is no number
    raise Reject(_("the URL made for this message is not one"))


def joined(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers with names in lower case, those of one name joined (RFC 9110 section 5.3). headers: may hold a name twice."""
    found = {name.lower(): value for name, value in headers.items()}
    if len(found) == len(headers):
        return found
    found = {}
    for name, value in headers.items():
        key = name.lower()
        found[key] = f"{found[key]}, {value}" if key in found else value
    return found


async def beginning(content: aiohttp.StreamReader) -> bytes:
    """At most BODY_LIMIT bytes of an answer's body; `content.is_eof()` tells whether its end has come."""
    chunks = []
    size = 0
    while chunk := await content.readany():
        chunks.append(chunk)
        size += len(chunk)
        if size > BODY_LIMIT:
            break
    return b"".join(chunks)[:BODY_LIMIT]


def no_answer(failure: Exception, url: str, timeout: float) -> Retry:
    """Why no whole answer came, in words for the log. failure: what aiohttp or the operating system said."""
    where = origin(url)
    if isinstance(failure, aiohttp.ClientConnectorCertificateError):
        words = _("{origin} has no certificate trusted here: {why}; name the file of its authority in 'ca'")
        return Retry(words.format(origin=where, why=_why(failure)), slow=True)
    if isinstance(failure, aiohttp.ClientConnectorError):
        return Retry(_("cannot connect to {origin}: {why}").format(origin=where, why=_why(failure)))
    if isinstance(failure, TimeoutError):
        return Retry(_("{origin} did not answer within {seconds:g} s").format(origin=where, seconds=timeout))
    # Among these: the far end closed a kept connection just as it was used again. A POST is not repeated on
    # the spot (RFC 9110 section 9.2.2); the engine does it, with the same Idempotency-Key.
    return Retry(_("{origin} broke the exchange off").format(origin=where))


def _why(failure: aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError) -> str:
    """The reason in the words of the operating system or of OpenSSL; aiohttp's own would name the host once more."""
    inner = failure.__cause__ or failure
    if isinstance(inner, ssl.SSLError):
        return str(getattr(inner, "verify_message", "") or inner.reason)
    if isinstance(inner, OSError) and inner.errno and inner.errno > 0:
        return os.strerror(inner.errno)
    return str(getattr(inner, "strerror", "") or type(inner).__name__)


def _trust(ca: str) -> ssl.SSLContext | bool:
    if not ca:
        return True
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as failure:
        words = _("cannot read the certificates in {file}: {why}; a PEM file is expected")
        raise StartError(words.format(file=ca, why=failure.strerror or failure)) from failure


@functools.lru_cache(64)
def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")
