"""A flow file's grammar: top level, params, connections, chains, nodes. What its parts mean together is in `check`."""

from __future__ import annotations

import re
from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from flowengine.errors import OptionError
from flowengine.flowfile import schema
from flowengine.flowfile.model import ChainDef, ConnectionDef, FlowDef, NodeDef, NodeKeys
from flowengine.flowfile.problems import Mark, Problems, suggestion
from flowengine.flowfile.reader import Reader, mark_of
from flowengine.flowfile.substitute import Scope, Unset, Value
from flowengine.flowfile.tree import Mapping, Scalar, Sequence, Tree, core_value
from flowengine.i18n import _
from flowengine.node import Action, Context, Node, NodeOptions, Part
from flowengine.options import Duration
from flowengine.plugins import Registry

NAME = re.compile(r"[^\W.][\w-]*")
KINDS = ("flow", "template", "connections")
TOP = ("format", "flow", "template", "use", "with", "about", "params", "connections", "chains")
RESERVED_TOP = ("defaults", "import", "library")
KEYS = tuple(schema.fields(NodeKeys))


class Param(NodeOptions):
    """One entry of `params:`."""

    env: Annotated[str | None, Meta(description="The environment variable that sets it")] = None
    default: Annotated[Any, Meta(description="What it is when nothing sets it")] = None
    about: Annotated[str | None, Meta(description="A word for the people who set it")] = None
    type: Annotated[
        Literal["text", "int", "number", "bool", "duration", "secret"] | None,
        Meta(description="What the value must be; by default what the default value is"),
    ] = None


@dataclass
class Place:
    """What a flow is read with: the node types there are, the shared connections, the folder for state."""

    registry: Registry
    shared: dict[str, ConnectionDef]
    environ: MappingType[str, str]
    state: Path | None = None


def read_params(tree: Tree | None, given: MappingType[str, Value], scope: Scope, problems: Problems) -> None:
    """Give every declared param its value in `scope`: from the instance's `with:`, the environment, or its default."""
    if tree is None:
        return
    if not isinstance(tree, Mapping):
        problems.error(tree.mark, _("'params' is a list of names, each with its options below it"), "params")
        return
    for key, body in tree.items:
        here = problems.at(f"params.{key.text}")
        if NAME.fullmatch(key.text) is None:
            here.error(key.mark, _("a name has letters, digits, - and _ only"))
            continue
        scope.unknown.add(key.text)
        before = problems.count()
        default = body.get("default") if isinstance(body, Mapping) else None
        trimmed = (
            Mapping(body.mark, [i for i in body.items if i[0].text != "default"]) if isinstance(body, Mapping) else body
        )
        param = Reader(here, Scope(scope.folder, environ=scope.environ)).read(trimmed, Param, key.mark)
        if param is None or problems.count() > before:
            continue
        value = _param_value(key, param, default, given.get(key.text), scope, here)
        if value is not None:
            scope.unknown.discard(key.text)
            scope.params[key.text] = value


def _param_value(
    key: Scalar, param: Param, default: Tree | None, given: Value | None, scope: Scope, problems: Problems
) -> Value | None:
    kind = param.type or _kind_of(default)
    mark = default.mark if default is not None else key.mark
    if given is not None:
        text, origin = given.text, _("the value given")
    elif param.env and param.env in scope.environ and scope.environ[param.env] != "":
        text, origin = scope.environ[param.env], _("the environment variable {name}").format(name=param.env)
        mark = key.mark
    elif isinstance(default, Scalar):
        try:
            text, origin = Scope(scope.folder, environ=scope.environ).substitute(default.text), _("the default")
        except Unset as unset:
            problems.error(mark, str(unset))
            return None
    elif default is not None:
        problems.error(mark, _("a default is one text, number or true/false"))
        return None
    else:
        way = (
            _("; set the environment variable {name}, or give a default").format(name=param.env)
            if param.env
            else _(": give a default, or env")
        )
        problems.error(key.mark, _("'{name}' has no value{way}").format(name=key.text, way=way))
        return None
    try:
        return Value(text, _typed(text, kind), secret=kind == "secret")
    except ValueError:
        shown = "***" if kind == "secret" else text[:60]
        problems.error(mark, _("{origin} is '{text}', expected {kind}").format(origin=origin, text=shown, kind=kind))
        return None


def _kind_of(default: Tree | None) -> str:
    if isinstance(default, Scalar) and default.plain:
        try:
            value = core_value(default.text)
        except ValueError:
            return "text"
        for kind, python in (("bool", bool), ("int", int), ("number", float)):
            if type(value) is python:
                return kind
    return "text"


def _typed(text: str, kind: str) -> Any:
    if kind in ("int", "number", "bool"):
        value = core_value(text)
        good = {"int": type(value) is int, "number": type(value) in (int, float), "bool": type(value) is bool}[kind]
        if not good:
            raise ValueError(text)
        return value
    if kind == "duration":
        Duration(text)
    return text


class FlowReader:
    """Reads one flow (or one instance of a template) into a `FlowDef`."""

    def __init__(self, place: Place, scope: Scope, problems: Problems, name: str) -> None:
        self.place = place
        self.scope = scope
        self.problems = problems
        self.flow = FlowDef(name, problems.source)
        self.declared: set[str] = set()

    def read(self, top: Mapping) -> FlowDef:
        """Read connections and chains; params are in the scope already."""
        declared = top.get("connections")
        if isinstance(declared, Mapping):
            self.declared |= set(declared.keys())
        self.flow.connections = read_connections(declared, self.place, self.scope, self.problems, self.flow.name)
        for name, definition in self.flow.connections.items():
            other = self.place.shared.get(name)
            if other is not None:
                text = _("connection '{name}' is in {file} already").format(name=name, file=other.source)
                self.problems.error(definition.mark, text, f"connections.{name}")
        chains = top.get("chains")
        if isinstance(chains, Mapping) and chains.items:
            for key, body in chains.items:
                self._chain(key.text, body, key.mark)
        elif top.get("use") is None:
            mark = chains.mark if chains is not None else top.mark
            self.problems.error(mark, _("a flow has chains: 'chains:' and below it a name and a list of nodes"), "")
        return self.flow

    def _chain(self, name: str, body: Tree, mark: Mark, *, inline: bool = False) -> None:
        where = f"chains.{name}"
        if not inline and NAME.fullmatch(name) is None:
            self.problems.error(mark, _("a name has letters, digits, - and _ only"), where)
        if not inline and name in ("drop", "dead", "next"):
            self.problems.error(
                mark, _("'{name}' has a meaning of its own and cannot name a chain").format(name=name), where
            )
        chain = self.flow.chains[name] = ChainDef(name, mark, inline=inline)
        if not isinstance(body, Sequence) or not body.items:
            self.problems.error(body.mark, _("a chain is a list of nodes, each on a line with '- '"), where)
            return
        for index, item in enumerate(body.items):
            self._node(chain, index, item)

    def _node(self, chain: ChainDef, index: int, item: Tree) -> None:
        here = self.problems.at(f"chains.{chain.name}[{index}]")
        if isinstance(item, Scalar):
            item = Mapping(item.mark, [(item, Scalar(item.mark, "", True))])
        if not isinstance(item, Mapping) or not item.items:
            here.error(item.mark, _("expected a node: '- TYPE', '- TYPE: {options}' or '- TYPE: VALUE'"))
            return
        key, body = self._type(item, here)
        if key is None or body is None:
            return
        cls = self.place.registry.nodes[key.text]
        here = self.problems.at(f"chains.{chain.name}[{index}] {cls.type}")
        own, stray = self._keys(item, key, cls, body, here)
        before = self.problems.count()

        def inline(nodes: Sequence, where: str) -> str:
            name = f"{chain.name}.{index}.{where}"
            self._chain(name, nodes, nodes.mark, inline=True)
            return name

        reader = Reader(here, self.scope, inline)
        keys = reader.read(own, NodeKeys, key.mark)
        options = None if stray else reader.read(body, cls.Options, key.mark)
        if keys is None or options is None or self.problems.count() > before:
            self.problems.hide(key.mark)
            return
        name = keys.name or cls.type
        if NAME.fullmatch(name) is None:
            here.error(mark_of(own, ["name"]) or key.mark, _("a name has letters, digits, - and _ only"))
        if keys.delivery is not None and not issubclass(cls, Action):
            at = mark_of(item, ["delivery"], key=True) or key.mark
            here.error(at, _("only an action takes 'delivery', and {type} is none").format(type=cls.type))
        context = Context(f"{self.flow.name}/{chain.name}/{name}", self.flow.name, name, self.place.state)
        node = make(cls, options, context, body, key.mark, here)
        bound = self._bind(reader, here)
        if keys.disabled:
            self.flow.set_aside |= {route.text for route, _mark in reader.found.routes}
            return
        if node is None or not bound:
            return
        for problem in node.check():
            here.error(mark_of(body, _path(problem.option), cls.Options.bare) or key.mark, problem.text)
        chain.nodes.append(
            NodeDef(chain.name, index, name, node, keys, key.mark, reader.found.routes, reader.found.references)
        )

    def _type(self, item: Mapping, here: Problems) -> tuple[Scalar | None, Tree | None]:
        """The key that is the node's type, and what stands behind it."""
        types = [(k, v) for k, v in item.items if k.text in self.place.registry.nodes]
        if len(types) > 1:
            here.error(types[1][0].mark, _("two nodes in one item: each node begins with its own '- '"))
            return None, None
        if types:
            return types[0]
        key = next((k for k, _v in item.items if k.text not in KEYS + NodeKeys.RESERVED), item.items[0][0])
        broken = self.place.registry.broken_for(key.text)
        if broken is not None:
            text = _("node '{type}' is not there: its plugin {origin} could not be loaded: {error}")
            here.error(key.mark, text.format(type=key.text, origin=broken.origin, error=broken.error))
        elif key.text in KEYS:
            here.error(key.mark, _("a node needs its type: '{key}' stands beside it").format(key=key.text))
        else:
            hint = suggestion(key.text, self.place.registry.nodes)
            if not hint:
                hint = _("; 'flowengine nodes' lists those there are")
            here.error(key.mark, _("unknown node '{type}'{hint}").format(type=key.text, hint=hint))
        return None, None

    def _keys(
        self, item: Mapping, type_key: Scalar, cls: type[Node], body: Tree, here: Problems
    ) -> tuple[Mapping, bool]:
        """The engine's own keys among an item's; whatever else stands there is said. Also whether options stand astray."""
        own = Mapping(item.mark, [])
        options = schema.fields(cls.Options)
        stray = False
        for key, value in item.items:
            if key is type_key or key.text.startswith("x-"):
                continue
            if key.text in KEYS:
                own.items.append((key, value))
            elif key.text in NodeKeys.RESERVED:
                here.error(key.mark, _("'{key}' is reserved for later").format(key=key.text))
            elif key.text in options:
                stray = True
                text = _("option '{key}' is at the wrong indentation: it belongs under '{type}:', further to the right")
                here.error(key.mark, text.format(key=key.text, type=cls.type))
            else:
                hint = suggestion(key.text, KEYS)
                here.error(
                    key.mark,
                    _("unknown key '{key}' beside {type}{hint}").format(key=key.text, type=cls.type, hint=hint),
                )
        if isinstance(body, Mapping):
            for key, value in list(body.items):
                if key.text in KEYS and key.text not in options:
                    body.items.remove((key, value))
                    text = _("'{key}' is at the wrong indentation: it stands beside '{type}:', not among its options")
                    here.error(key.mark, text.format(key=key.text, type=cls.type))
        return own, stray

    def _bind(self, reader: Reader, here: Problems) -> bool:
        connections = {**self.place.shared, **self.flow.connections}
        good = True
        for ref, wanted, mark in reader.found.refs:
            definition = connections.get(ref.text)
            if definition is None:
                good = False
                if ref.text in self.declared:
                    self.problems.hide(mark)
                    continue
                hint = suggestion(ref.text, connections) or _("; connections are declared under 'connections:'")
                here.error(mark, _("unknown connection '{name}'{hint}").format(name=ref.text, hint=hint))
            elif not isinstance(definition.connection, wanted):
                good = False
                text = _("connection '{name}' is of type {found}, this node needs {wanted}")
                here.error(mark, text.format(name=ref.text, found=definition.connection.type, wanted=wanted.type))  # type: ignore[attr-defined]
            else:
                ref.bind(definition.connection)
                self.flow.uses.add(ref.text)
        return good


def read_connections(
    tree: Tree | None, place: Place, scope: Scope, problems: Problems, flow: str
) -> dict[str, ConnectionDef]:
    """Read a `connections:` mapping."""
    found: dict[str, ConnectionDef] = {}
    if tree is None:
        return found
    if not isinstance(tree, Mapping):
        problems.error(
            tree.mark, _("'connections' is a list of names, each with '{TYPE: options}' behind it"), "connections"
        )
        return found
    for key, body in tree.items:
        here = problems.at(f"connections.{key.text}")
        if NAME.fullmatch(key.text) is None:
            here.error(key.mark, _("a name has letters, digits, - and _ only"))
            continue
        if isinstance(body, Scalar):
            body = Mapping(body.mark, [(body, Scalar(body.mark, "", True))])
        if not isinstance(body, Mapping) or len(body.items) != 1:
            here.error(
                body.mark, _("expected one type with its options: '{name}: {{TYPE: options}}'").format(name=key.text)
            )
            continue
        type_key, options_tree = body.items[0]
        cls = place.registry.connections.get(type_key.text)
        if cls is None:
            _unknown_connection(type_key, place.registry, here)
            continue
        here = problems.at(f"connections.{key.text} {cls.type}")
        options = Reader(here, scope).read(options_tree, cls.Options, type_key.mark)
        if options is None:
            continue
        identity = f"{flow}/{key.text}" if flow else key.text
        connection = make(
            cls, options, Context(identity, flow, key.text, place.state), options_tree, type_key.mark, here
        )
        if connection is None:
            continue
        for problem in connection.check():
            here.error(mark_of(options_tree, _path(problem.option), cls.Options.bare) or type_key.mark, problem.text)
        found[key.text] = ConnectionDef(key.text, type_key.mark, problems.source, connection)
    return found


def _unknown_connection(key: Scalar, registry: Registry, here: Problems) -> None:
    broken = registry.broken_for(key.text)
    if broken is not None:
        text = _("connection type '{type}' is not there: its plugin {origin} could not be loaded: {error}")
        here.error(key.mark, text.format(type=key.text, origin=broken.origin, error=broken.error))
        return
    hint = suggestion(key.text, registry.connections) or "; " + ", ".join(sorted(registry.connections))
    here.error(key.mark, _("unknown connection type '{type}'{hint}").format(type=key.text, hint=hint))


def make(cls: Any, options: Any, context: Context, tree: Tree, mark: Mark, here: Problems) -> Any:
    """Make a node or connection; what its `setup` refuses is an error, and what it dies of is one too."""
    try:
        part: Part = cls(options, context)
    except OptionError as error:
        here.error(mark, str(error))
    except Exception as error:
        text = _("{type} ({origin}) failed while it was set up: {error}")
        here.error(mark, text.format(type=cls.type, origin=cls.origin, error=f"{type(error).__name__}: {error}"))
    else:
        return part
    return None


def _path(option: str) -> list[Any]:
    return option.split(".") if option else []


__all__ = ["NAME", "RESERVED_TOP", "TOP", "FlowReader", "Param", "Place", "read_connections", "read_params"]
