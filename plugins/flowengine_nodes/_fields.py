"""Where one value comes from: what `field-map` and `keep` share, made at load into plain functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET

from flowengine import N_, Message, Meta, NodeOptions, Path, Problem, Reject, Tree, _, as_text
from flowengine_nodes._oneline import brief

Read = Callable[[Message], Any]


class Field(NodeOptions):
    """One value: from a path in the payload, a constant, or a template. A path may stand bare."""

    bare: ClassVar[str] = "path"
    path: Annotated[
        Path | None,
        Meta(
            description="Where the value is in the payload; empty for all of it",
            examples=["num", "data.0.name"],
        ),
    ] = None
    const: Annotated[
        Any,
        Meta(description="A value that is always the same, taken as it stands here", examples=["facegate", 1]),
    ] = UNSET
    template: Annotated[
        Tree | None,
        Meta(
            description="A value with references in it; one reference alone keeps its type",
            examples=["{device}/{payload.num}"],
        ),
    ] = None
    default: Annotated[
        Any,
        Meta(
            description="What to take where the path or template leads nowhere; without it the message fails",
            examples=[0],
        ),
    ] = UNSET
    cast: Annotated[
        Literal["text", "int", "number", "bool"] | None,
        Meta(
            description="What to turn the value into; null stays null and a default is taken as it is",
            examples=["int"],
        ),
    ] = None


def readers(fields: Mapping[str, Field]) -> tuple[dict[str, Read], list[Problem]]:
    """For each sound field, in order, the function that gets its value; and what is wrong with the others.

    A function raises Reject if the value is missing or cannot be cast.
    """
    found: dict[str, Read] = {}
    problems: list[Problem] = []
    if not fields:
        problems.append(Problem("fields", _("name at least one field")))
    for name, field in fields.items():
        wrong = list(_problems(f"fields.{name}", field))
        problems += wrong
        if not wrong:
            found[name] = _reader(f"fields.{name}", field)
    return found, problems


def _problems(option: str, field: Field) -> Iterator[Problem]:
    given = (field.path is not None) + (field.const is not UNSET) + (field.template is not None)
    if given != 1:
        yield Problem(option, _("give exactly one of 'path', 'const' and 'template'"))
    elif field.const is not UNSET and (field.cast is not None or field.default is not UNSET):
        yield Problem(option, _("'const' is taken as it is: it has no 'cast' and no 'default'"))


def _reader(option: str, field: Field) -> Read:
    if field.const is not UNSET:
        const = field.const
        return lambda msg: const
    if field.path is not None:
        read, source = field.path.reader(), f"payload.{field.path.text}".rstrip(".")
    else:
        assert field.template is not None
        read, source = field.template.build, "template"
    cast = _caster(field.cast, option, source) if field.cast is not None else None
    default = field.default
    if default is UNSET:
        return read if cast is None else lambda msg: cast(read(msg))

    def read_or_default(msg: Message) -> Any:
        try:
            value = read(msg)
        except Reject:
            return default
        return value if cast is None else cast(value)

    return read_or_default


def _caster(kind: str, option: str, source: str) -> Callable[[Any], Any]:
    convert, words = _CASTS[kind]

    def cast(value: Any) -> Any:
        if value is None:
            return None
        try:
            return convert(value)
        except (ValueError, TypeError, OverflowError):
            raise Reject(
                _("{value} is not {kind} ({field} from {source})").format(
                    value=brief(value), kind=_(words), field=option, source=source
                )
            ) from None

    return cast


_NUMBER = re.compile(r"[+-]?(?:[0-9]+(\.[0-9]*)?|(\.[0-9]+))([eE][+-]?[0-9]+)?")
_TRUE = ("true", "1", "yes", "on")
_FALSE = ("false", "0", "no", "off")


def _number(value: Any) -> int | float:
    """A number as it is, true and false as 1 and 0, a text that is a decimal number."""
    if isinstance(value, int | float):
        return value if type(value) is not bool else int(value)
    if not isinstance(value, str):
        raise TypeError
    found = _NUMBER.fullmatch(value.strip())
    if found is None:
        raise ValueError
    if found.lastindex is None:
        return int(found[0])
    number = float(found[0])
    if number in (float("inf"), float("-inf")):
        raise OverflowError
    return number


def _whole(value: Any) -> int:
    """A number without a fraction: 3 and 3.0, not 3.5."""
    number = _number(value)
    if isinstance(number, int):
        return number
    if not number.is_integer():
        raise ValueError
    return int(number)


def _truth(value: Any) -> bool:
    """True, false, 1 and 0, and the texts `true false 1 0 yes no on off` in any case."""
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
        raise ValueError
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    raise ValueError


_CASTS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "text": (as_text, N_("a text")),
    "int": (_whole, N_("a whole number")),
    "number": (_number, N_("a number")),
    "bool": (_truth, N_("true or false")),
}
