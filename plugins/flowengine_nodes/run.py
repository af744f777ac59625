"""The node `run`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar

from flowengine import Message, Meta, NodeOptions, Problem, Route, Routed, Step
from flowengine_nodes._chain import chain_problems


class Run(Step):
    """Sends each message through another chain and goes on with what comes out at its end.

    That chain may be used by many others, as a subroutine is. What it makes of the message (payload,
    metadata, `result`) goes on in this chain; if it drops the message, or sends it elsewhere by a route,
    nothing comes back.

    Guarantees:
        Every message that reaches the end of that chain comes back to the node after this one, in the order
        in which they come there; a split inside brings back each part. Keeps the id. What fails in that chain
        goes to the `on_error` of the node that failed.

    Example:
        - run:
            - json-parse
            - keep: {fields: {user_id: num}}
        - log: "{user_id}"
    """

    type = "run"
    comes_back: ClassVar[bool] = True

    class Options(NodeOptions):
        bare = "chain"
        chain: Annotated[
            Route, Meta(description="The chain to go through, or its nodes on the spot", examples=["enrich"])
        ]

    def check(self) -> Iterable[Problem]:
        return chain_problems(self.options.chain)

    def process(self, msg: Message) -> Routed:
        route: Route = self.options.chain
        return route.call(msg)
