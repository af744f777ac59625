"""The source `http-in`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Iterable
from typing import Any, Literal

from flowengine import (
    Annotated,
    Busy,
    Duration,
    Emit,
    Message,
    Meta,
    NodeOptions,
    Outcome,
    Problem,
    Ref,
    Reject,
    Reply,
    Source,
    Stopping,
    Tree,
    _,
)
from flowengine_http import json_body
from flowengine_http.answers import Refused, error, stopping
from flowengine_http.deadlines import Deadlines
from flowengine_http.listener import HttpListener
from flowengine_http.route_path import GIVEN, RoutePath
from flowengine_http.routes import Request

_BODILESS = ("GET", "HEAD", "DELETE", "OPTIONS")


class ReplyOptions(NodeOptions):
    """How a request is answered."""

    status: Annotated[
        Annotated[int, Meta(ge=200, le=599)] | None,
        Meta(description="Status of the answer; 200 unless set, 202 with 'when: stored'"),
    ] = None
    body: Annotated[
        Tree | None,
        Meta(
            description="Body of the answer, from the request: a text is sent as it is, the rest as JSON",
            examples=["ok", {"sent_to": "{device}"}],
        ),
    ] = None
    when: Annotated[
        Literal["settled", "stored"],
        Meta(description="Answer when the chain is done with the message, or already when it is stored"),
    ] = "settled"
    timeout: Annotated[
        Duration,
        Meta(description="How long a request waits; then it is answered 504 and the message is withdrawn"),
    ] = Duration("10s")


class HttpIn(Source):
    """Takes messages in by HTTP and answers when they are settled.

    The payload is the body, read as JSON whatever its Content-Type says: a JSON text becomes that text,
    anything else itself. An empty body is refused, but for GET, HEAD, OPTIONS and DELETE, where the payload
    is then empty (null). `{name}` in the path captures one segment, percent-decoded, as metadata; the most
    specific path wins. The metadata `query` holds the first value of each name, and `remote` the address of
    the client.

    Guarantees:
        The answer says what became of the message: `reply` (200) once it is delivered or dropped, or what
        http-reply said; 502 with the reason if it is dead; 504 at `timeout`, and what is not yet in flight is
        then withdrawn. With `when: stored` the answer is 202, as soon as the message is settled or stored.
        While the flow stops it is 503 with Retry-After. A body that is not JSON gets 400 with line and
        column, and no message comes of it; nor of one that lacks what `reply: {body}` refers to. If the
        client goes away, the message goes on. A request that is sent again is another message, unless the
        action has `id_from`.

    Example:
        - http-in: {connection: commands, path: "/devices/{device}/commands", reply: {body: ok}}
    """

    type = "http-in"

    class Options(NodeOptions):
        connection: Annotated[
            Ref[HttpListener],
            Meta(description="The http-listener where requests come in", examples=["commands"]),
        ]
        method: Annotated[
            Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
            Meta(description="Method that is answered; others get 405"),
        ] = "POST"
        path: Annotated[
            RoutePath,
            Meta(
                description="Path that is answered; {name} captures a segment",
                examples=["/devices/{device}/commands"],
            ),
        ] = RoutePath("/")
        reply: Annotated[ReplyOptions, Meta(description="How a request is answered")] = ReplyOptions()

    _emit: Emit

    def setup(self) -> None:
        reply = self.options.reply
        self._status = reply.status or (202 if reply.when == "stored" else 200)

    def check(self) -> Iterable[Problem]:
        for reference in self.options.reply.body.references if self.options.reply.body else ():
            if reference.root in ("result", "error") or reference.text.startswith(("message.id", "message.part")):
                words = _("'{text}' is not known here: the body refers to the request as it came in; see http-reply")
                yield Problem("reply.body", words.format(text=reference.text))
        if not self.options.reply.timeout.seconds:
            yield Problem("reply.timeout", _("no chain is that fast: write a time longer than 0"))

    def claims(self) -> Iterable[tuple[Hashable, str]]:
        options = self.options
        words = _("{method} {path} on connection {name}").format(
            method=options.method, path=options.path.text, name=options.connection.text
        )
        yield (options.connection.target.context.identity, options.method, options.path.shape), words

    def metadata(self) -> Iterable[str]:
        return (*self.options.path.captures, *GIVEN)

    async def run(self, emit: Emit) -> None:
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(self._loop, _wake)
        with self.options.connection.target.serving(self.options.method, self.options.path, self._handle):
            await self._loop.create_future()

    async def _handle(self, request: Request) -> Reply:
        payload = _payload(request)
        meta = {
            **request.captures,
            "method": request.method,
            "path": request.path,
            "query": request.query,
            "remote": request.remote,
        }
        body = self._body(payload, meta)  # before it is taken: a fault in it must not belie what became of the message
        done: asyncio.Future[None] = self._loop.create_future()
        try:
            store = self.options.reply.when == "stored"
            outcome = self._emit(payload, meta, lambda _outcome: _wake(done), store=store, size=len(request.body))
        except (Busy, Stopping):
            return stopping()
        if outcome.open:
            self._deadlines.begin(done, self._loop.time() + self.options.reply.timeout.seconds)
            try:
                await done
            finally:
                self._deadlines.end(done)
        return self._answer(outcome, body)

    def _answer(self, outcome: Outcome, body: Any) -> Reply:
        if outcome.open:
            outcome.withdraw()
            return error(504, _("the message was not settled in time and is withdrawn"))
        if outcome.state == "dead":
            return error(502, outcome.reason or _("the message could not be delivered"))
        return outcome.reply or Reply(self._status, body)

    def _body(self, payload: Any, meta: dict[str, Any]) -> Any:
        tree = self.options.reply.body
        if tree is None:
            return None
        try:
            return tree.build(Message(payload, meta, "", time.time(), Outcome()))
        except Reject as missing:
            raise Refused(400, missing.reason) from None


def _payload(request: Request) -> Any:
    if request.body:
        return json_body.decode(request.body)
    if request.method in _BODILESS:
        return None
    raise Refused(400, _("the body is empty: JSON is expected"))


def _wake(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
