"""Nodes and connections from their options: they are made here, asked what they say of themselves, and may fail at it."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowengine.errors import OptionError
from flowengine.flowfile.model import ConnectionDef, name_fault
from flowengine.flowfile.problems import Mark, Problems, suggestion
from flowengine.flowfile.reader import Reader
from flowengine.flowfile.substitute import Scope
from flowengine.flowfile.tree import Mapping, Scalar, Sequence, Tree, mark_of
from flowengine.i18n import _
from flowengine.node import Context, Node, Part
from flowengine.plugins import Plugin, Registry


@dataclass
class Place:
    """What a flow is read with: the node types there are, the shared connections, the folder for state.

    declared: the names of all shared connections, also of those that could not be read.
    """

    registry: Registry
    shared: dict[str, ConnectionDef]
    environ: MappingType[str, str]
    state: Path | None = None
    declared: set[str] = field(default_factory=set)


def make(cls: Any, options: Any, context: Context, mark: Mark, here: Problems) -> Any:
    """Make a node or connection; what its `setup` refuses is an error, and what it dies of is one too."""
    try:
        part: Part = cls(options, context)
    except OptionError as error:
        here.error(mark, str(error))
    except Exception as error:
        _died(cls, "setup", error, mark, here)
    else:
        return part
    return None


def ask(part: Part, tree: Tree, mark: Mark, here: Problems) -> bool:
    """Have a part, whose connections are bound, check itself; whether it could be asked at all that will be asked of it."""
    asked = "check"
    try:
        for problem in part.check():
            path = problem.option.split(".") if problem.option else []
            here.error(mark_of(tree, path, part.Options.bare) or mark, problem.text)
        asked = "claims"
        list(part.claims())
        asked = "metadata"
        if isinstance(part, Node):
            list(part.metadata())
    except Exception as error:
        _died(type(part), asked, error, mark, here)
        return False
    return True


def _died(cls: type[Part], method: str, error: Exception, mark: Mark, here: Problems) -> None:
    text = _("{type} ({origin}) failed in {method}(): {error}")
    said = f"{type(error).__name__}: {error}"
    here.error(mark, text.format(type=cls.type, origin=cls.origin, method=method, error=said))


def broken(plugin: Plugin, what: str) -> str:
    """What to say of a type whose plugin could not be loaded."""
    text = _("'{type}' is not there: its plugin {origin} could not be loaded: {error}")
    return text.format(type=what, origin=plugin.origin, error=plugin.error)


def read_connections(
    tree: Tree | None, place: Place, scope: Scope, problems: Problems, flow: str
) -> dict[str, ConnectionDef]:
    """Read a `connections:` mapping."""
    found: dict[str, ConnectionDef] = {}
    if tree is None:
        return found
    if not isinstance(tree, Mapping):
        text = _("'connections' is a list of names, each with '{TYPE: options}' behind it")
        problems.error(tree.mark, text, "connections")
        return found
    if any(isinstance(body, Sequence) for _key, body in tree.items):
        key = next(key for key, body in tree.items if isinstance(body, Sequence))
        text = _("a list of nodes is a chain, and stands under 'chains:'")
        problems.error(key.mark, text, f"connections.{key.text}")
    for key, body in tree.items:
        if isinstance(body, Sequence):
            continue
        definition = _connection(key, body, place, scope, problems, flow)
        if definition is not None:
            found[key.text] = definition
    return found


def _connection(
    key: Scalar, body: Tree, place: Place, scope: Scope, problems: Problems, flow: str
) -> ConnectionDef | None:
    here = problems.at(f"connections.{key.text}")
    if fault := name_fault(key.text):
        here.error(key.mark, fault)
        return None
    if isinstance(body, Scalar) and body.text:
        body = Mapping(body.mark, [(body, Scalar(body.mark, "", True))])
    if not isinstance(body, Mapping) or len(body.items) != 1:
        text = _("expected one type with its options: '{name}: {{TYPE: options}}'")
        here.error(body.mark, text.format(name=key.text))
        return None
    type_key, tree = body.items[0]
    cls = place.registry.connections.get(type_key.text)
    if cls is None:
        _unknown_type(type_key, place.registry, here)
        return None
    here = problems.at(f"connections.{key.text} {cls.type}")
    options = Reader(here, scope).read(tree, cls.Options, type_key.mark)
    if options is None:
        return None
    context = Context(f"{flow}/{key.text}" if flow else key.text, flow, key.text, place.state)
    connection = make(cls, options, context, type_key.mark, here)
    if connection is None or not ask(connection, tree, type_key.mark, here):
        return None
    return ConnectionDef(key.text, type_key.mark, problems.source, connection)


def _unknown_type(key: Scalar, registry: Registry, here: Problems) -> None:
    plugin = registry.broken_for(key.text)
    if plugin is not None:
        here.error(key.mark, broken(plugin, key.text))
        return
    hint = suggestion(key.text, registry.connections) or "; " + ", ".join(sorted(registry.connections))
    here.error(key.mark, _("unknown connection type '{type}'{hint}").format(type=key.text, hint=hint))
