"""A flow file's grammar: chains and nodes. What its parts mean together is in `check`."""

from __future__ import annotations

from flowengine.flowfile import schema
from flowengine.flowfile.model import ChainDef, FlowDef, NodeDef, NodeKeys, Unread, name_fault
from flowengine.flowfile.parts import Place, ask, broken, make, read_connections
from flowengine.flowfile.problems import Mark, Problems, nearest, suggestion
from flowengine.flowfile.reader import Found, Reader
from flowengine.flowfile.substitute import Scope
from flowengine.flowfile.tree import Mapping, Scalar, Sequence, Tree, mark_of, scalars
from flowengine.i18n import _
from flowengine.node import Action, Context, Node
from flowengine.options import Route

KEYS = tuple(schema.fields(NodeKeys))


class FlowReader:
    """Reads one flow (or one instance of a template) into a `FlowDef`."""

    def __init__(self, place: Place, scope: Scope, problems: Problems, flow: FlowDef) -> None:
        self.place = place
        self.scope = scope
        self.problems = problems
        self.flow = flow
        self.declared: set[str] = set(place.declared)

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
                if fault := self._chain_fault(key.text):
                    self.problems.error(key.mark, fault, f"chains.{key.text}")
                self._chain(ChainDef(key.text, f"chains.{key.text}", key.mark), body)
        elif not isinstance(declared, Mapping) or not any(isinstance(body, Sequence) for _key, body in declared.items):
            mark = chains.mark if chains is not None and not _empty(chains) else top.mark
            self.problems.error(mark, _("a flow has chains: 'chains:' and below it a name and a list of nodes"), "")
        return self.flow

    def _chain_fault(self, name: str) -> str:
        if name in Route.ENDS:
            return _("'{name}' has a meaning of its own and cannot name a chain").format(name=name)
        return name_fault(name)

    def _chain(self, chain: ChainDef, body: Tree) -> None:
        self.flow.chains[chain.name] = chain
        if not isinstance(body, Sequence) or not body.items:
            at = chain.mark if _empty(body) else body.mark
            self.problems.error(at, _("a chain is a list of nodes, each on a line with '- '"), chain.where)
            chain.nodes.append(_unread(chain, f"{chain.where}[0]", body, body.mark))
            return
        for index, item in enumerate(body.items):
            node = self._node(chain, index, item)
            if node is not None:
                chain.nodes.append(node)

    def _node(self, chain: ChainDef, index: int, item: Tree) -> NodeDef | None:
        """One node, read or `Unread`; None where it is disabled."""
        where = f"{chain.where}[{index}]"
        here = self.problems.at(where)
        if isinstance(item, Scalar) and item.text:
            item = Mapping(item.mark, [(item, Scalar(item.mark, "", True))])
        if not isinstance(item, Mapping) or not item.items:
            here.error(item.mark, _("expected a node: '- TYPE', '- TYPE: {options}' or '- TYPE: VALUE'"))
            return _unread(chain, where, item, item.mark)
        key, body = self._type(item, here)
        if key is None or body is None:
            return _unread(chain, where, item, item.mark)
        cls = self.place.registry.nodes[key.text]
        where = f"{where} {cls.type}"
        here = self.problems.at(where)
        before = self.problems.count()
        own, astray = self._keys(item, key, cls, body, here)
        written = own.get("name")
        name = written.text if isinstance(written, Scalar) and written.text else cls.type
        reader = Reader(here, self.scope, lambda nodes, option: self._inline(chain, name, where, nodes, option))
        keys = reader.read(own, NodeKeys, key.mark)
        options = None if astray else reader.read(body, cls.Options, key.mark)
        if fault := name_fault(name):
            here.error(mark_of(own, ["name"]) or key.mark, fault)
        if keys is not None and keys.delivery is not None and not issubclass(cls, Action):
            at = mark_of(item, ["delivery"], key=True) or key.mark
            here.error(at, _("only an action takes 'delivery', and {type} is none").format(type=cls.type))
        bound = self._bind(reader, here)
        node = None
        if keys is not None and options is not None and bound:
            context = Context(f"{self.flow.name}/{chain.name}/{name}", self.flow.name, name, self.place.state)
            node = make(cls, options, context, key.mark, here)
        if node is not None and not ask(node, body, key.mark, here):
            node = None
        if keys is not None and keys.disabled:
            self.flow.set_aside |= {route.text for route, _mark in reader.found.routes}
            return None
        if node is None or keys is None or self.problems.count() > before:
            return _unread(chain, where, item, key.mark, name, keys, reader.found)
        found = reader.found
        return NodeDef(chain.name, where, name, node, keys, key.mark, found.routes, found.references)

    def _inline(self, chain: ChainDef, node: str, where: str, nodes: Sequence, option: str) -> str:
        """Make a chain of nodes on the spot. Its name is made of names, so that it lasts when nodes are added before it."""
        name = f"{chain.name}.{node}.{option}"
        self._chain(ChainDef(name, f"{where}.{option}", nodes.mark, inline=True), nodes)
        return name

    def _type(self, item: Mapping, here: Problems) -> tuple[Scalar | None, Tree | None]:
        """The key that is the node's type, and what stands behind it."""
        types = [(k, v) for k, v in item.items if k.text in self.place.registry.nodes and k.text not in KEYS]
        if len(types) > 1:
            here.error(types[1][0].mark, _("two nodes in one item: each node begins with its own '- '"))
            return None, None
        if types:
            return types[0]
        key = next((k for k, _v in item.items if k.text not in KEYS + NodeKeys.RESERVED), item.items[0][0])
        plugin = self.place.registry.broken_for(key.text)
        head = key.text.partition(":")[0]
        if plugin is not None:
            here.error(key.mark, broken(plugin, key.text))
        elif key.text in KEYS:
            here.error(key.mark, _("a node needs its type: '{key}' stands beside it").format(key=key.text))
        elif head != key.text and head in self.place.registry.nodes:
            here.error(key.mark, _("a space is missing after '{key}:'").format(key=head))
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
            elif isinstance(value, Sequence) and key.text not in self.flow.chains:
                text = _("'{key}' is at the wrong indentation: it belongs under '{section}:', further to the left")
                here.error(key.mark, text.format(key=key.text, section="chains"))
                self._chain(ChainDef(key.text, f"chains.{key.text}", key.mark), value)
            else:
                hint = suggestion(key.text, KEYS)
                text = _("unknown key '{key}' beside {type}{hint}")
                here.error(key.mark, text.format(key=key.text, type=cls.type, hint=hint))
        if isinstance(body, Mapping):
            for key, value in list(body.items):
                if _empty(value) and key.text in options:
                    break  # what follows may be meant for this option: the reader says so
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
                if ref.text in self.declared or name_fault(nearest(ref.text, self.declared) or "a"):
                    self.problems.hide(mark)
                    continue
                hint = suggestion(ref.text, connections)
                if not hint:
                    hint = _("; connections are declared under 'connections:'")
                    self.declared.add(ref.text)
                here.error(mark, _("unknown connection '{name}'{hint}").format(name=ref.text, hint=hint))
            elif not isinstance(definition.connection, wanted):
                good = False
                text = _("connection '{name}' is of type {found}, this node needs {wanted}")
                here.error(mark, text.format(name=ref.text, found=definition.connection.type, wanted=wanted.type))  # type: ignore[attr-defined]
            else:
                ref.bind(definition.connection)
                self.flow.uses.add(ref.text)
        return good


def _empty(tree: Tree) -> bool:
    return isinstance(tree, Scalar) and tree.plain and tree.text == ""


def _unread(
    chain: ChainDef,
    where: str,
    tree: Tree,
    mark: Mark,
    name: str = "",
    keys: NodeKeys | None = None,
    found: Found | None = None,
) -> NodeDef:
    """What stands for a node that could not be read: all that is known of it."""
    found = found or Found()
    words = frozenset(scalar.text for scalar in scalars(tree))
    return NodeDef(chain.name, where, name, Unread(words), keys or NodeKeys(), mark, found.routes, found.references)
