"""The JSON schema of a whole flow file (draft-07), so that editors complete names and options and show what they mean."""

from __future__ import annotations

from typing import Any

from flowengine.flowfile import schema
from flowengine.flowfile.describe import describe
from flowengine.flowfile.model import NodeKeys
from flowengine.flowfile.params import Param
from flowengine.i18n import _
from flowengine.node import NodeOptions, Part
from flowengine.plugins import Registry

Schema = dict[str, Any]


def flow_schema(registry: Registry) -> Schema:
    """The schema of flow files, templates and connections files, with the nodes and connections of `registry`."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": _("A flow of flowengine"),
        "type": "object",
        "properties": _top(),
        "patternProperties": {"^x-": {}},
        "additionalProperties": False,
        "definitions": {
            "node": _node(registry),
            "nodes": {"type": "array", "items": {"$ref": "#/definitions/node"}, "minItems": 1},
            "route": {
                "description": _("A chain's name, drop, dead, next, or a list of nodes"),
                "anyOf": [
                    {"enum": ["drop", "dead", "next"]},
                    {"type": "string"},
                    {"$ref": "#/definitions/nodes"},
                ],
            },
            "connection": _connection(registry),
            "param": schema.of_options(Param),
        },
    }


def _top() -> Schema:
    def text(description: str) -> Schema:
        return {"type": "string", "description": description}

    return {
        "format": {"enum": [1], "description": _("The format of this file; may be left out")},
        "flow": text(_("The flow's name: the file runs")),
        "template": text(_("The template's name: the file runs only where a flow uses it")),
        "use": text(_("The file of the template that this flow is an instance of")),
        "with": {"type": "object", "description": _("The values of the template's params")},
        "about": text(_("What this flow is for")),
        "params": {
            "type": "object",
            "description": _("What may be set from outside; ${name} stands for the value"),
            "additionalProperties": {"$ref": "#/definitions/param"},
        },
        "connections": {
            "type": "object",
            "description": _("What nodes talk through, by name"),
            "additionalProperties": {"$ref": "#/definitions/connection"},
        },
        "chains": {
            "type": "object",
            "description": _("Named lists of nodes; a message passes from each to the next"),
            "additionalProperties": {"$ref": "#/definitions/nodes"},
        },
    }


def _node(registry: Registry) -> Schema:
    """One object with every type as a property: that is what makes editors complete types and options best."""
    keys = schema.of_options(NodeKeys)["properties"]
    types = {name: _part(cls) for name, cls in sorted(registry.nodes.items())}
    alone = [name for name, cls in sorted(registry.nodes.items()) if not _needs(cls.Options)]
    descriptions = {name: types[name]["description"] for name in alone}
    return {
        "if": {"type": "string"},
        "then": {"anyOf": [{"const": name, "description": text} for name, text in descriptions.items()]},
        "else": {
            "type": "object",
            "title": _("a node"),
            "properties": {**types, **keys},
            "patternProperties": {"^x-": {}},
            "additionalProperties": False,
            "minProperties": 1,
        },
    }


def _needs(options: type[NodeOptions]) -> bool:
    return any(field.required for field in schema.fields(options).values())


def _part(cls: type[Part]) -> Schema:
    said = describe(cls)
    options = schema.of_options(cls.Options)
    if not _needs(cls.Options):
        choices = options.pop("anyOf", None) or [options]
        options = {"anyOf": [*choices, {"type": "null"}]}
    markdown = [said.summary, said.text, said.guarantees, f"```yaml\n{said.example}\n```" if said.example else ""]
    return {"description": said.summary, "markdownDescription": "\n\n".join(m for m in markdown if m), **options}


def _connection(registry: Registry) -> Schema:
    types = {name: _part(cls) for name, cls in sorted(registry.connections.items())}
    alone = [name for name, cls in sorted(registry.connections.items()) if not _needs(cls.Options)]
    one: Schema = {
        "type": "object",
        "properties": types,
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    return {"anyOf": [one, {"type": "string", "enum": alone}]} if alone else one
