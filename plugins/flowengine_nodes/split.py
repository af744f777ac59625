"""The node `split`."""

from __future__ import annotations

from typing import Annotated

from flowengine import Drop, Message, Meta, NodeOptions, Path, Reject, Step, StepResult, _
from flowengine_nodes._oneline import brief


class Split(Step):
    """Sends each element of a list on as a message of its own.

    Each element becomes the payload of one message; what else the payload held stays behind (store it with
    `keep` before the split). An element may be anything: an object, a text, a list, null. Of an empty list
    nothing goes on: the message is dropped, counted as `split`.

    Guarantees:
        All elements, in the order of the list. The parts share the message's id and are told apart by their
        place, so each carries its own Idempotency-Key and carries it again on every repeat. The source hears
        yes when all parts are settled. A payload without the list, or with something else in its place, fails
        this message alone with a reason that names the path and what stands there.

    Example:
        - split: data
        - log: "{payload.name} at {payload.time}"
    """

    type = "split"

    class Options(NodeOptions):
        bare = "path"
        path: Annotated[
            Path,
            Meta(
                description="Where the list is in the payload; empty if the payload is the list",
                examples=["data", "body.records"],
            ),
        ] = Path("")

    def setup(self) -> None:
        self._get = self.options.path.get

    def process(self, msg: Message) -> StepResult:
        items = self._get(msg.payload)
        if type(items) is not list:
            raise self._no_list(items)
        return [msg.with_payload(item) for item in items] if items else _EMPTY

    def _no_list(self, found: object) -> Reject:
        if not self.options.path.segments:
            return Reject(_("the payload is no list to split: it is {found}").format(found=brief(found)))
        return Reject(
            _("'{path}' is no list to split: it is {found}").format(path=self.options.path.text, found=brief(found))
        )


_EMPTY = Drop("split")
