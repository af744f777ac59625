"""What a node says of itself: its docstring and its options struct, in the reader's language."""

from __future__ import annotations

import inspect as python_inspect
import re
import typing
from typing import Any

import msgspec
from msgspec import inspect

from flowengine.flowfile import schema
from flowengine.i18n import _
from flowengine.node import Action, Connection, Part, Source
from flowengine.options import OptionType


class Option(msgspec.Struct, frozen=True):
    """One option, for people. default: as it would stand in the file, empty where there is none. named: names of the
    writer's choice stand below it."""

    name: str
    kind: str
    description: str
    required: bool
    default: str
    examples: list[str]
    bare: bool
    named: bool
    options: list[Option] = []


class Description(msgspec.Struct, frozen=True):
    """One node or connection. kind: source, step, action or connection."""

    type: str
    kind: str
    summary: str
    text: str
    guarantees: str
    example: str
    origin: str
    options: list[Option]

    @staticmethod
    def kinds() -> dict[str, str]:
        """The kinds in the order in which they are shown, each with its title in the reader's language."""
        return {
            "source": _("Sources: where messages come in"),
            "step": _("Steps: what is done with them"),
            "action": _("Actions: where they go"),
            "connection": _("Connections: what nodes talk through"),
        }

    @property
    def kind_name(self) -> str:
        """The kind in the reader's language."""
        names = {
            "source": _("a source"),
            "step": _("a step"),
            "action": _("an action"),
            "connection": _("a connection"),
        }
        return names[self.kind]


def sections(cls: type[Part]) -> dict[str, str]:
    """The docstring's summary, text, guarantees and example, in English: the catalogue's msgids."""
    doc = python_inspect.cleandoc(cls.__doc__ or "")
    parts = re.split(r"^(Guarantees|Example):\s*$", doc, flags=re.MULTILINE)
    summary, _blank, text = parts[0].strip().partition("\n\n")
    found = {"summary": _joined(summary), "text": _paragraphs(text), "guarantees": "", "example": ""}
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        clean = python_inspect.cleandoc("\n" + body.strip("\n")).strip()
        found[title.lower()] = clean if title == "Example" else _paragraphs(clean)
    return found


def _joined(text: str) -> str:
    return " ".join(text.split())


def _paragraphs(text: str) -> str:
    """Lines of a paragraph joined; lists and blank lines stay."""
    return "\n".join(_joined(p) for p in re.split(r"\n\s*\n|\n(?=\s*- )", text.strip()) if p.strip())


def describe(cls: type[Part]) -> Description:
    """All that is known of a node or connection class."""
    said = sections(cls)
    kind = "connection" if issubclass(cls, Connection) else "source" if issubclass(cls, Source) else "step"
    if issubclass(cls, Action):
        kind = "action"
    return Description(
        cls.type,
        kind,
        _(said["summary"]),
        _(said["text"]),
        _(said["guarantees"]),
        said["example"],
        cls.origin,
        options_of(cls.Options),
    )


def options_of(struct: type[msgspec.Struct]) -> list[Option]:
    """The options of a struct, and of the structs inside it."""
    found = []
    for name, field in schema.fields(struct).items():
        info, meta, _nullable = schema.unwrap(field.type)
        inner = info.value_type if isinstance(info, inspect.DictType) else info
        nested = schema.struct_of(inner)
        found.append(
            Option(
                name,
                _kind(info),
                _(meta.get("description", "")),
                field.required,
                _default(field),
                [_as_it_stands(e) for e in meta.get("examples", ())],
                name == schema.bare_option(struct),
                isinstance(info, inspect.DictType),
                options_of(nested) if nested is not None else [],
            )
        )
    return found


def flat(options: list[Option], above: str = "") -> list[tuple[str, Option]]:
    """Options and those inside them, each with its whole name: `reply.timeout`, `fields.NAME.cast`."""
    found = []
    for option in options:
        found.append((above + option.name, option))
        joint = ".NAME." if option.named else "."
        found += flat(option.options, f"{above}{option.name}{joint}")
    return found


def _as_it_stands(example: Any) -> str:
    """An example as it may be written in a flow file."""
    return example if isinstance(example, str) else msgspec.json.encode(example).decode()


def _default(field: inspect.Field) -> str:
    value = field.default
    if isinstance(value, OptionType):
        value = value.text
    if (
        value is None
        or value is msgspec.NODEFAULT
        or value == ""
        or isinstance(value, msgspec.Struct | msgspec.UnsetType)
    ):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _kind(info: inspect.Type) -> str:
    """What sort of value stands there, in words."""
    info, _meta, _nullable = schema.unwrap(info)
    match info:
        case inspect.CustomType(cls=cls):
            return _(words(typing.get_origin(cls) or cls))
        case inspect.StrType():
            return _("text")
        case inspect.BoolType():
            return _("true or false")
        case inspect.IntType():
            return _("whole number")
        case inspect.FloatType():
            return _("number")
        case inspect.LiteralType(values=values):
            return " | ".join(str(v) for v in values)
        case inspect.ListType(item_type=item):
            return _("list: {kind}").format(kind=_kind(item))
        case inspect.DictType(value_type=value):
            return _("names: {kind}").format(kind=_kind(value))
        case inspect.StructType():
            return _("options")
        case _:
            return _("any value")


def words(cls: type) -> str:
    """What an option type is called, in English: `RoutePath` is `route path`, unless the type says better."""
    own = getattr(cls, "kind", "")
    return own or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", cls.__name__).lower()
