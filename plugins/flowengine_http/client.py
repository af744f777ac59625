"""One POST over HTTP: the narrow place where aiohttp's client is used, so that a faster one may take its
seat."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from typing import NamedTuple, Protocol
from urllib.parse import quote

import aiohttp
from yarl import URL

from flowengine import Reject, Retry, StartError, _, __version__

BODY_LIMIT = 65_536
"""Bytes of an answer that are kept."""

_KEEP_ALIVE = 15.0
_VISIBLE = "".join(map(chr, range(0x21, 0x7F)))


class Response(NamedTuple):
    """What the far end answered. Header names are in lower case; the body ends after `BODY_LIMIT` bytes."""

    status: int
    headers: dict[str, str]
    body: bytes


class HttpClient(Protocol):
    """Posts. `origin(url)` is what may be said of a URL: its scheme, host and port, no credentials, path or
    query."""

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


class SessionClient:
    """`HttpClient` on aiohttp's ClientSession: connections are kept open and reused; no cookies, no proxy
    from the environment.

    timeout: seconds for a whole exchange. ca: a PEM file with the certificates to trust in place of the
    system's; empty for those.
    """

    def __init__(self, *, timeout: float, ca: str = "") -> None:
        self._timeout = timeout
        self._ca = ca
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(
            # limit=0: the engine bounds how many are under way
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE, ssl=_trust(self._ca)),
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"flowengine/{__version__}"},
            trust_env=False,
        )

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        if self._session is None:
            raise RuntimeError("the client is not open")
        try:
            target = _as_written(url)
            async with self._session.post(target, data=body, headers=headers, allow_redirects=False) as answer:
                start = await _beginning(answer)
                return Response(answer.status, _headers(answer), start)
        except aiohttp.ClientConnectorCertificateError as failure:
            words = _("{origin} has no certificate trusted here: {why}; name the file of its authority in 'ca'")
            raise Retry(words.format(origin=origin(url), why=_why(failure)), slow=True) from failure
        except aiohttp.ClientConnectorError as failure:
            words = _("cannot connect to {origin}: {why}")
            raise Retry(words.format(origin=origin(url), why=_why(failure))) from failure
        except TimeoutError as failure:
            words = _("{origin} did not answer within {seconds:g} s")
            raise Retry(words.format(origin=origin(url), seconds=self._timeout)) from failure
        except (aiohttp.ClientError, OSError) as failure:
            # Among these: the far end closed a kept connection just as it was used again. A POST is not
            # repeated on the spot (RFC 9110 section 9.2.2); the engine does it, with the same Idempotency-Key.
            raise Retry(_("{origin} broke the exchange off").format(origin=origin(url))) from failure


def _as_written(url: str) -> URL:
    """The URL with its percent-encoding as it stands (a backend may have signed it): only what is not ASCII is encoded."""
    scheme, _slashes, rest = url.partition("://")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    try:
        if authority.isascii():
            made = URL(f"{scheme}://{authority}{quote(rest[len(authority) :], safe=_VISIBLE)}", encoded=True)
        else:
            made = URL(url)  # a host that DNS knows under another name (RFC 5891)
        if made.host and made.port:  # yarl reads them only when asked
            return made
    except ValueError:
        pass  # such as a port that is no number
    raise Reject(_("the URL made for this message is not one"))


async def _beginning(answer: aiohttp.ClientResponse) -> bytes:
    """At most BODY_LIMIT bytes of the body. Read to its end, the connection is used again; closed where there
    is more."""
    chunks = []
    size = 0
    while chunk := await answer.content.readany():
        chunks.append(chunk)
        size += len(chunk)
        if size > BODY_LIMIT:
            break
    return b"".join(chunks)[:BODY_LIMIT]


def _headers(answer: aiohttp.ClientResponse) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in answer.headers.items():
        key = name.lower()
        found[key] = f"{found[key]}, {value}" if key in found else value  # RFC 9110 section 5.3
    return found


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
