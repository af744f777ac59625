"""The node `copy-to`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from flowengine import Message, Meta, NodeOptions, Problem, Route, Routed, Step
from flowengine_nodes._chain import chain_problems


class CopyTo(Step):
    """Sends a copy of each message to another chain and goes on with the message.

    The copy is a message of its own that ends where that chain ends; nothing of it comes back. For a detour
    that comes back with what it made, use `run`.

    Guarantees:
        The copy sets out before the message goes on. Both belong to one arrival: its source hears yes when
        both are settled, and it is dead if either is. Copying costs no memory: they share the payload, which
        no node changes in place. Order holds within each of the two chains, not between them.

    Example:
        - copy-to:
            - log: "seen {payload}"
        - log: "and on it goes"
    """

    type = "copy-to"

    class Options(NodeOptions):
        bare = "chain"
        chain: Annotated[
            Route,
            Meta(description="The chain that the copy goes to, or its nodes on the spot", examples=["archive"]),
        ]

    def check(self) -> Iterable[Problem]:
        return chain_problems(self.options.chain)

    def process(self, msg: Message) -> list[Message | Routed]:
        return [self.options.chain.to(msg), msg]
