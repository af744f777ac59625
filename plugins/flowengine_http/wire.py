"""A kept connection to a backend: a request goes out, its answer comes in, read by httptools (llhttp)."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import httptools

from flowengine_http.client import BODY_LIMIT, Response

if TYPE_CHECKING:
    from aiohttp.connector import Connection

_HEAD_LIMIT = 65_536
"""Bytes of an answer up to the end of its head, interim answers included."""
_JOINED = 16_384
"""Bytes of a body up to which copying it behind the head is cheaper than handing both on."""
_BLANK_LINE = b"\r\n\r\n"
_BY_ZLIB = {"gzip", "x-gzip", "deflate"}


class Wire(asyncio.Protocol):
    """One connection, from its opening to its end; `kept` says whether it may carry another exchange.

    connection: how aiohttp's connector knows it, and to whom it is given back when it is lost.
    """

    def __init__(self, connection: Connection) -> None:
        handler = connection.protocol
        try:
            if handler is None or handler.transport is None or handler.should_close:
                raise ConnectionResetError  # it is lost, or spoke before it was asked
            self._parser = httptools.HttpResponseParser(self)
            # What aiohttp lets pass in an answer, too.
            self._parser.set_dangerous_leniencies(
                lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
            )
            handler.transport.set_protocol(self)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self.transport = handler.transport
        self.closed = self._loop.create_future()
        self.kept = False
        self.idle_since = 0.0
        self._answer: asyncio.Future[Response] | None = None
        self._heard: _Heard | None = None
        self._forget()

    def exchange(self, head: bytes, body: bytes) -> asyncio.Future[Response]:
        """Send a request; its answer, or OSError. Whoever waits no longer must call `abort`."""
        self.kept = False
        answer = self._answer = self._loop.create_future()
        # Nothing waits for the body to be sent: it is in memory as a whole, and an answer may come before it is through.
        if len(body) <= _JOINED:
            self.transport.write(head + body)
        else:
            self.transport.writelines((head, body))
        return answer

    def _forget(self) -> None:
        """No answer has been read."""
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body = b""
        self._came = 0
        self._begun = self._whole = self._followed = False

    def abort(self) -> None:
        """Close the connection at once; close() alone would go on sending what is left of a request."""
        self.kept = False
        self.transport.abort()

    # What the loop calls

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:  # it spoke unasked, and that must not be taken for the next answer
            self.abort()
            return
        heard = self._heard
        if heard is not None and not self._came and len(data) == heard.length and data.startswith(heard.head):
            self.kept = not self.transport.get_write_buffer_size()
            self._tell(answer, Response(heard.status, dict(heard.headers), data[len(heard.head) :]))
            return
        self._came += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.kept = False
        except httptools.HttpParserError:
            if not self._whole:
                self._fail()
                return
            self._followed = True
        if self._whole or len(self._body) > BODY_LIMIT:
            self._done(answer, data)
        elif not self._begun and self._came > _HEAD_LIMIT:
            self._fail()

    def eof_received(self) -> None:
        self.kept = False  # it closes, and `connection_lost` follows

    def connection_lost(self, exc: Exception | None) -> None:
        self.kept = False
        answer = self._answer
        if answer is not None:
            if self._begun and exc is None and self._ends_with_connection():
                self._done(answer, b"")
            else:
                self._fail()
        del self._parser  # they know each other
        self._handler.connection_lost(exc)
        self._connection.close()
        if not self.closed.done():
            self.closed.set_result(None)

    # What the parser calls

    def on_message_begin(self) -> None:
        self._followed = self._whole

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._begun:  # it stands behind the body (RFC 9110 section 6.5), where nobody looks for it
            return
        key = name.decode("utf-8", "surrogateescape").lower()
        text = value.decode("utf-8", "surrogateescape").rstrip(" \t")
        headers = self._headers
        headers[key] = f"{headers[key]}, {text}" if key in headers else text  # RFC 9110 section 5.3

    def on_headers_complete(self) -> None:
        if self._whole:
            return
        self._status = status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:  # interim answers (RFC 9110 section 15.2)
            self._headers = {}
        else:
            self._begun = True

    def on_body(self, body: bytes) -> None:
        if len(self._body) <= BODY_LIMIT and not self._whole:
            self._body += body

    def on_message_complete(self) -> None:
        if self._begun and not self._whole:
            self._whole = True
            self.kept = self._parser.should_keep_alive()

    # What comes of it

    def _done(self, answer: asyncio.Future[Response], data: bytes) -> None:
        """The answer is there, or so much of it that the rest is not wanted; it ended with `data`."""
        if self._followed or not self._whole or self.transport.get_write_buffer_size():
            self.kept = False  # it says what was not asked, or has more to say, or answered before the body was through
        body, headers = self._body, self._headers
        coding = headers.get("content-encoding", "")
        if coding and body:
            try:
                body = _decoded(body, coding.lower())
            except zlib.error:
                self._fail()
                return
        elif self.kept and self._came == len(data) and len(body) <= BODY_LIMIT and _framed_by_length(headers, body):
            head = data[: data.find(_BLANK_LINE) + len(_BLANK_LINE)]
            if len(head) + len(body) == len(data):  # nothing stands before it, such as an interim answer, or behind it
                self._heard = _Heard(head, len(data), self._status, dict(headers))
        response = Response(self._status, headers, body[:BODY_LIMIT])
        self._forget()
        self._tell(answer, response)

    def _tell(self, answer: asyncio.Future[Response], response: Response) -> None:
        self._answer = None
        if not answer.done():
            answer.set_result(response)

    def _fail(self) -> None:
        """No answer comes."""
        answer, self._answer = self._answer, None
        self.abort()
        if answer is not None and not answer.done():
            answer.set_exception(ConnectionResetError())

    def _ends_with_connection(self) -> bool:
        """Whether the answer says nothing of its length, so that its end is the connection's (RFC 9112 section 6.3)."""
        if "transfer-encoding" in self._headers:
            return not self._headers["transfer-encoding"].lower().endswith("chunked")
        return "content-length" not in self._headers


def _framed_by_length(headers: Mapping[str, str], body: bytes) -> bool:
    return headers.get("content-length") == str(len(body)) and "transfer-encoding" not in headers


class _Heard(NamedTuple):
    """The last answer that came in one piece, by itself, framed by Content-Length alone. One that begins with the same head and
    is as long means the same, whatever its body says: it need not be parsed, and a backend says much the same each time.

    head: its bytes up to the body. length: bytes of head and body.
    """

    head: bytes
    length: int
    status: int
    headers: dict[str, str]


def _decoded(body: bytes, coding: str) -> bytes:
    """The beginning of a body that a backend has compressed although it was not asked to (RFC 9110 section 8.4.1). Raises
    zlib.error."""
    if coding not in _BY_ZLIB:
        return body
    try:
        return zlib.decompressobj(32 + zlib.MAX_WBITS).decompress(body, BODY_LIMIT)
    except zlib.error:
        if coding != "deflate":
            raise
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(body, BODY_LIMIT)  # as some have it, without its wrapper
