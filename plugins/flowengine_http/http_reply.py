"""The action `http-reply`."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from flowengine import Action, Annotated, Message, Meta, NodeOptions, Problem, Reply, Template, Tree
from flowengine_http.headers import problems, render


class HttpReply(Action):
    """Says what the request that brought this message is answered with.

    The answer is sent when the message is settled, in place of what `reply` of http-in says. If several parts
    or several of these nodes say something, the last one counts.

    Guarantees:
        It speaks to nobody itself: it never fails for the network and never holds a message up. A message
        that is dead is answered 502 all the same, so that a yes is never said too early. On a message that
        did not come by http-in it has no effect.

    Example:
        - http-reply: {status: 201, body: {saved: "{payload.id}"}}
    """

    type = "http-reply"
    inline = True

    class Options(NodeOptions):
        status: Annotated[int, Meta(description="Status of the answer", ge=200, le=599)] = 200
        body: Annotated[
            Tree | None,
            Meta(
                description="Body of the answer: a text is sent as it is, the rest as JSON; empty by default",
                examples=["ok", {"id": "{payload.id}"}],
            ),
        ] = None
        headers: Annotated[
            dict[str, Template],
            Meta(description="Headers of the answer", examples=[{"Location": "/records/{payload.id}"}]),
        ] = msgspec.field(default_factory=dict)

    @property
    def confirming(self) -> bool:
        return False

    def check(self) -> Iterable[Problem]:
        return problems(self.options.headers)

    def deliver(self, msg: Message) -> None:
        options = self.options
        body = options.body.build(msg) if options.body is not None else None
        msg.outcome.reply = Reply(options.status, body, render(options.headers, msg))
