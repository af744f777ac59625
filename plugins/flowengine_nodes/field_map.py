"""The node `field-map`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from flowengine import Message, Meta, NodeOptions, OptionError, Path, Problem, Step, _
from flowengine_nodes._fields import Field, Read, readers

Shape = dict[str, "Read | Shape"]


class FieldMap(Step):
    """Makes a new payload, an object, from parts of the old one.

    Each entry of `fields` names a field of the new object and says where its value comes from: a path in the
    old payload (`user_id: num`), `const:` a value, or `template:` a text or a tree with references
    (`"{device}/{payload.num}"`). What is not named stays behind. Dots in a name make objects inside
    (`user.name: name` gives `{"user": {"name": ...}}`); a name that itself holds a dot stands in double
    quotes inside the quotes of YAML (`'"user.name"': name`).

    A field that is missing fails the message, unless it has a `default:`. A field that is there and null is
    null, not missing. `cast:` turns a value into `text` (a number as digits, an object or a list as JSON),
    `int` (3, 3.0 and "3", not 3.5), `number` ("3.5", "1e3"), or `bool` (true, false, 1, 0, and as text also
    yes, no, on, off, in any case); true and false are cast to 1 and 0; null stays null; a default is taken as
    it is.

    Guarantees:
        The new object has exactly the fields named, in the order in which they are named. Values are passed
        on as they are, so an image is not copied. Keeps order, id and metadata. A missing field, or one that
        cannot be cast, fails this message alone with a reason that names the path; `on_error` has the old
        payload.

    Example:
        - field-map:
            fields:
              user_id: num
              age: {path: person.age, cast: int, default: 0}
              source: {const: facegate}
              place.door: {template: "{device}"}
        - log: "{payload}"
    """

    type = "field-map"

    class Options(NodeOptions):
        fields: Annotated[
            dict[str, Field],
            Meta(
                description="The fields of the new payload and where each comes from",
                examples=[{"user_id": "num", "age": {"path": "age", "cast": "int"}}],
            ),
        ]

    def setup(self) -> None:
        reads, self._problems = readers(self.options.fields)
        shape: Shape = {}
        for target, read in reads.items():
            self._problems += _place(shape, target, read)
        self._make = _maker(shape)

    def check(self) -> Iterable[Problem]:
        return self._problems

    def process(self, msg: Message) -> Message:
        return msg.with_payload(self._make(msg))


def _place(shape: Shape, target: str, read: Read) -> list[Problem]:
    """Put a field's reader where its name says; return what is wrong with the name."""
    option = f"fields.{target}"
    try:
        *above, last = Path(target).segments
    except (OptionError, ValueError):  # ValueError: the empty name has no last segment
        return [Problem(option, _("'{name}' is no name for a field: write name or user.name").format(name=target))]
    for segment in above:
        below = shape.setdefault(segment, {})
        if not isinstance(below, dict):
            return [Problem(option, _("'{name}' would lie inside a field that is a value").format(name=target))]
        shape = below
    if last in shape:
        return [Problem(option, _("'{name}' is in the new payload already").format(name=target))]
    shape[last] = read
    return []


def _maker(shape: Shape) -> Read:
    """The function that makes an object of this shape from a message: one comprehension per object."""
    members = [(key, _maker(item) if isinstance(item, dict) else item) for key, item in shape.items()]
    return lambda msg: {key: read(msg) for key, read in members}
