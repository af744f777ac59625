"""The connection `http-listener`."""

from __future__ import annotations

import asyncio
import errno
import hmac
import socket
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import ClassVar

from aiohttp import HttpVersion11, web

from flowengine import (
    Annotated,
    Connection,
    Duration,
    Meta,
    NodeOptions,
    Problem,
    Reply,
    Secret,
    StartError,
    _,
)
from flowengine_http.address import Address
from flowengine_http.answers import Refused, error, response, stopping
from flowengine_http.route_path import RoutePath
from flowengine_http.routes import Handle, Request, Route, Routes
from flowengine_http.server import Server

_GRACE = 1.0


class HttpListener(Connection):
    """Listens for HTTP requests; any number of http-in nodes share it.

    Where it listens on anything but this machine's loopback address, requests must carry `Authorization:
    Bearer` with the token (RFC 6750). Without a token, requests that a web page sent (they have an `Origin`
    header) are refused, since a page from anywhere could otherwise reach through the browser to this machine.
    Errors are answered as `{"error": "..."}`.

    Guarantees:
        Before the flow is ready and while it stops, requests get 503 with Retry-After; requests under way are
        answered. A body over `max_body` gets 413, one that comes too slowly 408; a head that comes too slowly
        closes the connection. One HTTP/1.1 connection carries any number of requests, one after another.

    Example:
        commands: {http-listener: {listen: "127.0.0.1:6699"}}
    """

    type = "http-listener"

    class Options(NodeOptions):
        bare: ClassVar[str] = "listen"
        listen: Annotated[
            Address,
            Meta(
                description="Address and port to listen on; IPv6 in brackets, port 0 takes any free one",
                examples=["127.0.0.1:6699", "0.0.0.0:6699", "[::1]:6699"],
            ),
        ]
        token: Annotated[
            Secret,
            Meta(description="Bearer token that requests must carry; empty means that none is asked for"),
        ] = Secret("")
        insecure: Annotated[bool, Meta(description="Let other machines send requests without a token")] = False
        max_body: Annotated[int, Meta(description="The longest body that is taken, in bytes", ge=1)] = 1_048_576
        head_timeout: Annotated[
            Duration,
            Meta(description="How long a client may take for the head of a request", examples=["10s"]),
        ] = Duration("10s")
        body_timeout: Annotated[
            Duration,
            Meta(description="How long a client may take for the body of a request", examples=["10s"]),
        ] = Duration("10s")

    def setup(self) -> None:
        self._token = self.options.token.value.encode()
        self._routes = Routes()
        self._taking = False
        self._http: Server | None = None
        self._listening: asyncio.Server | None = None

    def check(self) -> Iterable[Problem]:
        options = self.options
        if not (options.listen.loopback or options.token or options.insecure):
            words = _(
                "{listen} is reached from other machines: write a token that requests must carry "
                "('token: ${{env:COMMAND_TOKEN}}'), or listen on 127.0.0.1:{port}, or write 'insecure: true' "
                "to let anyone in"
            )
            yield Problem("listen", words.format(listen=options.listen.text, port=options.listen.port))
        if any(c.isspace() or not c.isprintable() for c in options.token.value):
            yield Problem("token", _("a token with blanks or line breaks in it can never be sent"))
        for name in ("head_timeout", "body_timeout"):
            if not getattr(options, name).seconds:
                yield Problem(name, _("no client is that fast: write a time longer than 0"))

    def claims(self) -> Iterable[tuple[Hashable, str]]:
        address = self.options.listen
        if address.port:
            yield ("http-listener", address.host, address.port), address.text

    @contextmanager
    def serving(self, method: str, path: RoutePath, handle: Handle) -> Iterator[None]:
        """Answer requests of this method and path with what `handle` returns, while inside."""
        route = Route(method, path, handle)
        self._routes.add(route)
        try:
            yield
        finally:
            self._routes.remove(route)

    async def open(self) -> None:
        address = self.options.listen
        self._http = Server(self._answer, head_timeout=self.options.head_timeout.seconds, log=self.log)
        try:
            self._listening = await asyncio.get_running_loop().create_server(
                self._http, address.host, address.port, reuse_address=True
            )
        except OSError as failure:
            raise StartError(_cannot_listen(address.text, failure)) from failure

    async def start(self) -> None:
        self._taking = True

    async def stop(self) -> None:
        self._taking = False

    async def close(self) -> None:
        self._taking = False
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.close()
        if self._http is not None:
            await self._http.shutdown(_GRACE)
        if listening is not None:
            await listening.wait_closed()

    def ready(self) -> str | None:
        if self._listening is None or not self._taking:
            return None
        return f"http://{self.options.listen.at(self._listening.sockets[0].getsockname()[1])}"

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            reply = await self._reply(request)
        except Refused as refused:
            reply = refused.reply
        except Exception:
            self.log.exception("a request failed", method=request.method, path=request.path)
            reply = error(500, _("flowengine failed to answer this request; its log says why"))
        answer = response(reply)
        if not request.content.is_eof():
            answer.force_close()  # what is left of the body would be read as the next request
        return answer

    async def _reply(self, request: web.BaseRequest) -> Reply:
        if not self._taking:
            return stopping()
        self._admit(request)
        route, captures = self._routes.find(request.method, request.rel_url.raw_path)
        body = await self._body(request)
        query = dict(request.query) if request.query_string else {}
        return await route.handle(Request(request.method, request.path, captures, query, request.remote or "", body))

    def _admit(self, request: web.BaseRequest) -> None:
        """Let in who has the token. RFC 6750 section 3.1: no error code where no credentials came."""
        if not self._token:
            if "Origin" in request.headers:
                raise Refused(403, _("requests from web pages are taken only where the listener has a token"))
            return
        scheme, _blank, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise Refused(401, _("a bearer token is needed"), {"WWW-Authenticate": "Bearer"})
        if not hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), self._token):
            challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
            raise Refused(401, _("the bearer token is not the right one"), challenge)

    async def _body(self, request: web.BaseRequest) -> bytes:
        limit = self.options.max_body
        if (request.content_length or 0) > limit:
            raise self._too_large()
        content = request.content
        if content.is_eof():  # the common case: it came with the head
            body = content.read_nowait()
            if len(body) > limit:
                raise self._too_large()
            return body
        await _go_on(request)
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.options.body_timeout.seconds):
                while chunk := await content.readany():
                    chunks.append(chunk)
                    size += len(chunk)
                    if size > limit:
                        raise self._too_large()
        except TimeoutError:
            raise Refused(408, _("the body came too slowly")) from None
        except (web.RequestPayloadError, ConnectionError):  # the latter: the client is gone, nobody reads this
            raise Refused(400, _("the body is not sent as its headers say")) from None
        return b"".join(chunks)

    def _too_large(self) -> Refused:
        return Refused(413, _("the body is longer than {limit} bytes").format(limit=self.options.max_body))


async def _go_on(request: web.BaseRequest) -> None:
    """Answer `Expect: 100-continue` (RFC 9110 section 10.1.1): the client waits for it before it sends a long
    body."""
    expected = request.headers.get("Expect")
    if expected is None or request.version < HttpVersion11:
        return
    if expected.lower() != "100-continue":
        raise Refused(417, _("only 'Expect: 100-continue' is understood"))
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # the answer itself has not begun


def _cannot_listen(address: str, failure: OSError) -> str:
    if failure.errno == errno.EADDRINUSE:
        why = _("another program listens there: end it, or write another port in 'listen'")
    elif failure.errno == errno.EACCES:
        why = _("ports below 1024 need more rights: write a higher port in 'listen'")
    elif failure.errno == errno.EADDRNOTAVAIL:
        why = _("this machine does not have that address: write one of its own in 'listen', or 0.0.0.0 for all")
    elif isinstance(failure, socket.gaierror):
        why = _("there is no host of that name: write an address of this machine in 'listen'")
    else:
        why = failure.strerror or str(failure)
    return _("cannot listen on {address}: {why}").format(address=address, why=why)
