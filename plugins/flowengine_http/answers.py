"""What is sent back to a client: a `Reply` as an aiohttp response, and refusals in plain words."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from aiohttp import web

from flowengine import Reply, _

JSON = "application/json"
_encode = msgspec.json.Encoder().encode


class Refused(Exception):
    """A request is not let in: a status, one sentence for whoever sent it, and headers."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.reply = error(status, text, headers)


def error(status: int, text: str, headers: Mapping[str, str] | None = None) -> Reply:
    """An answer with the body `{"error": text}`."""
    return Reply(status, {"error": text}, headers or {})


def stopping() -> Reply:
    """503 with Retry-After (RFC 9110 section 10.2.3): the flow takes nothing new."""
    return error(503, _("flowengine takes nothing new just now: send it again"), {"Retry-After": "1"})


def response(reply: Reply) -> web.Response:
    """A reply as aiohttp sends it: a text as text/plain, bytes as they are, None as nothing, any other value
    as JSON.

    A Content-Type among the reply's headers wins.
    """
    body, kind = encoded(reply.body)
    answer = web.Response(status=reply.status, body=body, headers=reply.headers)
    if kind and "Content-Type" not in answer.headers:
        answer.headers["Content-Type"] = kind
    return answer


def encoded(body: object) -> tuple[bytes | None, str]:
    """A body's bytes and its media type (RFC 9110 section 8.3)."""
    if body is None:
        return None, ""
    if isinstance(body, str):
        return body.encode("utf-8", "replace"), "text/plain; charset=utf-8"
    if isinstance(body, bytes):
        return body, "application/octet-stream"
    return _encode(body), JSON
