"""The node `filter`."""

from __future__ import annotations

from typing import Annotated

from flowengine import Condition, Drop, Message, Meta, NodeOptions, Step

_DROPPED = Drop("filter")


class Filter(Step):
    """Passes the messages for which a condition holds and drops the others.

    The condition is read once, at load. What it asks for and a message does not have reads as null, so
    `payload.personType == "1"` drops a message without that field. To do something else with those that do
    not pass, use `cmd-filter`; to leave out one node only, give that node a `when`.

    Guarantees:
        A message goes on unchanged or ends as dropped, counted as `filter`, and its sender hears yes. No
        message fails here: a condition has an answer for every payload. Keeps order, id and metadata.

    Example:
        - filter: payload.personType == "1" and payload.verifiedCode == 0
        - log: "{payload.name} came in"
    """

    type = "filter"

    class Options(NodeOptions):
        bare = "condition"
        condition: Annotated[
            Condition,
            Meta(
                description="What must hold for a message to go on",
                examples=["payload.verifiedCode == 0", "exists(payload.num)"],
            ),
        ]

    def setup(self) -> None:
        self._test = self.options.condition.test

    def process(self, msg: Message) -> Message | Drop:
        return msg if self._test(msg) else _DROPPED
