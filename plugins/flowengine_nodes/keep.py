"""The node `keep`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from flowengine import Condition, Message, Meta, NodeOptions, OptionError, Problem, Step, _
from flowengine_nodes._fields import Field, readers


class Keep(Step):
    """Remembers values of the payload under names of their own, for the nodes below.

    Each entry of `fields` is a name and where its value comes from, written as in `field-map`. Below this
    node `{user_id}` stands for the value in every template and condition, also when the payload has become
    another (after a split, a field-map, an answer). The payload stays as it is.

    Guarantees:
        Keeps order, id and payload; what is kept is stored with the message and there again after a restart.
        A name that the message has already gets the new value: to keep another `device` is to change whose
        order the message stands in. A field that is missing (and has no `default:`) or cannot be cast fails
        this message alone, with a reason that names the path.

    Example:
        - keep: {fields: {user_id: num, door: {path: place.door, default: unknown}}}
        - log: "{user_id} at {door}"
    """

    type = "keep"

    class Options(NodeOptions):
        fields: Annotated[
            dict[str, Field],
            Meta(
                description="The names to keep and where each value comes from",
                examples=[{"user_id": "num"}],
            ),
        ]

    def setup(self) -> None:
        reads, self._problems = readers(self.options.fields)
        self._reads = list(reads.items())
        for name in self.options.fields:
            if not _can_be_referred_to(name):
                text = _(
                    "'{name}' cannot be a name: that is letters, digits and _, and none of payload, result, "
                    "error, message or the words of conditions"
                )
                self._problems.append(Problem(f"fields.{name}", text.format(name=name)))

    def check(self) -> Iterable[Problem]:
        return self._problems

    def metadata(self) -> Iterable[str]:
        return list(self.options.fields)

    def process(self, msg: Message) -> Message:
        return msg.with_meta(**{name: read(msg) for name, read in self._reads})


def _can_be_referred_to(name: str) -> bool:
    """Whether the name means metadata wherever it is written: conditions take less than templates do."""
    try:
        (reference,) = Condition(f"exists({name})").references
    except (OptionError, ValueError):
        return False
    return reference.text == name == reference.root != "payload"
