"""JSON schema (draft-07) of option structs, from their types: one for validation, one for editors.

In a file that is edited, `${param}` may stand for any value, and option types are what their own `schema` says. When a file is
loaded, substitution is done and option types have read their texts: there they are left alone.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from flowengine.i18n import _
from flowengine.node import NodeOptions
from flowengine.options import OptionType, Route

Schema = dict[str, Any]
SUBSTITUTED = r"\$\{.+\}"
_TEXT = ["string", "number", "boolean"]
"""What an editor takes for a text that stands without quotes."""


@cache
def fields(options: type[msgspec.Struct]) -> dict[str, inspect.Field]:
    """The fields of an options struct by name, as msgspec sees them."""
    info = inspect.type_info(options)
    assert isinstance(info, inspect.StructType)
    return {field.encode_name: field for field in info.fields}


def unwrap(info: inspect.Type) -> tuple[inspect.Type, Schema, bool]:
    """The type below `Annotated` and `| None`, what Meta says of it, and whether null may stand."""
    meta: Schema = {}
    nullable = False
    while True:
        if isinstance(info, inspect.Metadata):
            meta = {**(info.extra_json_schema or {}), **meta}
            info = info.type
        elif isinstance(info, inspect.UnionType) and any(isinstance(t, inspect.NoneType) for t in info.types):
            nullable = True
            rest = tuple(t for t in info.types if not isinstance(t, inspect.NoneType))
            info = rest[0] if len(rest) == 1 else inspect.UnionType(rest)
        else:
            return info, meta, nullable


@cache
def validation(options: type[msgspec.Struct]) -> Schema:
    """The schema that values are checked against when a flow file is loaded."""
    return _struct(options, editor=False)


def of_options(options: type[msgspec.Struct]) -> Schema:
    """The schema of what may stand in a file: for editors and for `flowengine schema`."""
    schema = _struct(options, editor=True)
    bare = getattr(options, "bare", "")
    if not bare:
        return schema
    return {"anyOf": [schema, schema["properties"][bare]]}


def _struct(options: type[msgspec.Struct], editor: bool) -> Schema:
    properties = {}
    required = []
    for name, field in fields(options).items():
        properties[name] = _property(field, editor)
        if field.required:
            required.append(name)
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = required
    return schema


def _property(field: inspect.Field, editor: bool) -> Schema:
    info, meta, nullable = unwrap(field.type)
    schema = _type(info, editor)
    if not editor:
        return {"anyOf": [schema, {"type": "null"}]} if nullable and schema else schema
    schema = _substitutable(schema)
    if "description" in meta:
        schema["description"] = _(meta["description"])
    if "examples" in meta:
        schema["examples"] = meta["examples"]
    default = _default(field)
    if default is not None:
        schema["default"] = default
    return schema


def _default(field: inspect.Field) -> Any:
    value = field.default
    if isinstance(value, OptionType):
        value = value.text
    return value if isinstance(value, str | int | float | bool) and value != "" else None


def _type(info: inspect.Type, editor: bool) -> Schema:
    info, _meta, _nullable = unwrap(info)
    match info:
        case inspect.CustomType(cls=cls):
            if not editor:
                return {}
            own = dict(getattr(cls, "schema", {}))
            return {**own, "type": _TEXT} if own.get("type") == "string" else own
        case inspect.StructType(cls=cls):
            return of_options(cls) if editor else _struct(cls, editor)
        case inspect.StrType():
            kinds: Any = _TEXT if editor else "string"
            return {"type": kinds, **_sized(info, "Length"), **({"pattern": info.pattern} if info.pattern else {})}
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.IntType() | inspect.FloatType():
            return _number(info)
        case inspect.LiteralType(values=values):
            return {"enum": list(values)}
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            return {"type": "array", "items": _type(item, editor), **_sized(info, "Items")}
        case inspect.DictType(value_type=value):
            return {"type": "object", "additionalProperties": _type(value, editor), **_sized(info, "Properties")}
        case _:
            return {}


def _number(info: inspect.IntType | inspect.FloatType) -> Schema:
    schema: Schema = {"type": "integer" if isinstance(info, inspect.IntType) else "number"}
    for key, value in (
        ("minimum", info.ge),
        ("exclusiveMinimum", info.gt),
        ("maximum", info.le),
        ("exclusiveMaximum", info.lt),
    ):
        if value is not None:
            schema[key] = value
    return schema


def _sized(info: Any, what: str) -> Schema:
    found = ((f"min{what}", info.min_length), (f"max{what}", info.max_length))
    return {key: value for key, value in found if value is not None}


def _substitutable(schema: Schema) -> Schema:
    """Let `${param}` stand where a number, a choice or true/false is wanted."""
    if schema.get("type") in ("integer", "number", "boolean"):
        return {**schema, "type": [schema["type"], "string"], "pattern": SUBSTITUTED}
    if "enum" in schema:
        return {"anyOf": [schema, {"type": "string", "pattern": SUBSTITUTED}]}
    return schema


def struct_of(info: inspect.Type) -> type[msgspec.Struct] | None:
    """The struct class a type stands for, if it is one."""
    inner, _meta, _nullable = unwrap(info)
    return inner.cls if isinstance(inner, inspect.StructType) else None


def is_route(info: inspect.Type) -> bool:
    """Whether the type is `Route`."""
    inner, _meta, _nullable = unwrap(info)
    return isinstance(inner, inspect.CustomType) and issubclass(inner.cls, Route)


def bare_option(options: type[msgspec.Struct]) -> str:
    """The option that may stand alone, or the empty text."""
    return options.bare if issubclass(options, NodeOptions) else ""
