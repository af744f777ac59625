"""What the parts of a flow mean together: who enters which chain, with what known; circles; what can never be reached."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from flowengine.flowfile.model import ChainDef, FlowDef, NodeDef, Project
from flowengine.flowfile.problems import Mark, Problems, Source, suggestion
from flowengine.i18n import _
from flowengine.node import Action, Part, Step
from flowengine.node import Source as SourceNode
from flowengine.options import Route
from flowengine.template import RESERVED, Reference


@dataclass
class Knowledge:
    """What is known of a message at some place: metadata names, and whether `result` and `error` mean something."""

    names: set[str] = field(default_factory=set)
    result: bool = False
    error: bool = False

    def absorb(self, other: Knowledge) -> bool:
        """Know what `other` knows too; whether that was news."""
        before = (len(self.names), self.result, self.error)
        self.names |= other.names
        self.result |= other.result
        self.error |= other.error
        return before != (len(self.names), self.result, self.error)

    def copy(self) -> Knowledge:
        """An independent copy."""
        return Knowledge(set(self.names), self.result, self.error)


def check_flow(flow: FlowDef, problems: Problems) -> None:
    """Say everything that is wrong with one flow whose nodes could all be read."""
    _Checker(flow, problems).run()


def check_claims(project: Project, problems: dict[Source, Problems]) -> None:
    """Say where two parts, of whichever flows, want what only one may have."""
    taken: dict[Hashable, tuple[Source, Mark]] = {}

    def claim(part: Part, source: Source, mark: Mark, where: str) -> None:
        for key, words in part.claims():
            if key in taken:
                other, at = taken[key]
                text = _("{words} is taken already, in {file}:{line}").format(words=words, file=other, line=at[0] + 1)
                problems[source].error(mark, text, where)
            else:
                taken[key] = (source, mark)

    seen: set[str] = set()
    for definitions in (project.shared, *(flow.connections for flow in project.flows)):
        for definition in definitions.values():
            where = f"connections.{definition.name} {definition.connection.type}"
            claim(definition.connection, definition.source, definition.mark, where)
    for flow in project.flows:
        if flow.name in seen:
            problems[flow.source].error((0, 0), _("two flows are named '{name}'").format(name=flow.name), "flow")
        seen.add(flow.name)
        for node in flow.nodes():
            claim(node.node, flow.source, node.mark, node.where)


class _Checker:
    def __init__(self, flow: FlowDef, problems: Problems) -> None:
        self.flow = flow
        self.problems = problems
        self.entry = {name: Knowledge() for name in flow.chains}
        self.exit = {name: Knowledge() for name in flow.chains}

    def run(self) -> None:
        before = self.problems.count()
        for chain in self.flow.chains.values():
            self._shape(chain)
            for node in chain.nodes:
                self._targets(node)
        if self.problems.count() > before:
            return
        self._entered()
        if self._circle():
            return
        self._learn()
        for chain in self.flow.chains.values():
            self._references(chain)
        self._only_drop()

    def _at(self, node: NodeDef) -> Problems:
        return self.problems.at(node.where)

    def _shape(self, chain: ChainDef) -> None:
        names: set[str] = set()
        for place, node in enumerate(chain.nodes):
            if isinstance(node.node, SourceNode) and (place > 0 or chain.inline):
                self._at(node).error(node.mark, _("a source stands first in a chain of its own"))
            if node.name in names:
                text = _("two nodes of this chain are named '{name}': give one a name of its own with 'name:'")
                self._at(node).error(node.mark, text.format(name=node.name))
            names.add(node.name)
            if place + 1 < len(chain.nodes) and not _passes_on(node):
                after = chain.nodes[place + 1]
                text = _("is never reached: {type} before it passes nothing on").format(type=node.node.type)
                self._at(after).error(after.mark, text)

    def _targets(self, node: NodeDef) -> None:
        for route, mark in node.routes:
            if route.text in Route.ENDS:
                continue
            chain = self.flow.chains.get(route.text)
            if chain is None:
                known = [c.name for c in self.flow.chains.values() if not c.inline]
                hint = suggestion(route.text, [*known, *Route.ENDS])
                self._at(node).error(mark, _("unknown chain '{name}'{hint}").format(name=route.text, hint=hint))
            elif chain.nodes and isinstance(chain.nodes[0].node, SourceNode):
                text = _("chain '{name}' begins with a source: messages enter it there and nowhere else")
                self._at(node).error(mark, text.format(name=route.text))

    def _entered(self) -> None:
        targets = {route.text for node in self.flow.nodes() for route, _mark in node.routes}
        for chain in self.flow.chains.values():
            starts = bool(chain.nodes) and isinstance(chain.nodes[0].node, SourceNode)
            if chain.inline or starts or chain.name in targets or not chain.nodes:
                continue
            here = self.problems.at(f"chains.{chain.name}")
            text = _(
                "nobody enters this chain: begin it with a source, or name it in a route, run, copy-to or on_error"
            )
            if chain.name in self.flow.set_aside:
                here.warn(chain.mark, _("only a disabled node enters this chain"))
            else:
                here.error(chain.mark, text)

    def _circle(self) -> bool:
        """Say each circle once, at the route that closes it."""
        done: set[str] = set()
        way: list[str] = []
        found = False

        def visit(name: str) -> None:
            nonlocal found
            way.append(name)
            for node in self.flow.chains[name].nodes:
                for route, mark in node.routes:
                    if route.text in way:
                        circle = [*way[way.index(route.text) :], route.text]
                        text = _("goes in a circle: {way}").format(way=" → ".join(_plain(c) for c in circle))
                        self._at(node).error(mark, text)
                        found = True
                    elif route.text in self.flow.chains and route.text not in done:
                        visit(route.text)
            way.pop()
            done.add(name)

        for name in self.flow.chains:
            if name not in done:
                visit(name)
        return found

    def _learn(self) -> None:
        """Carry what is known along every way until nothing is new."""
        news = True
        while news:
            news = False
            for chain in self.flow.chains.values():
                for node, known, after in self._walk(chain):
                    for route, _mark in node.routes:
                        if route.text in self.entry:
                            on_error = route is node.keys.on_error
                            gives = Knowledge(known.names, known.result, True) if on_error else after
                            news |= self.entry[route.text].absorb(gives)
                    if node is chain.nodes[-1]:
                        news |= self.exit[chain.name].absorb(after)

    def _walk(self, chain: ChainDef) -> Iterator[tuple[NodeDef, Knowledge, Knowledge]]:
        """Each node with what is known before and after it."""
        known = self.entry[chain.name].copy()
        for node in chain.nodes:
            after = known.copy()
            after.names |= set(node.node.metadata())
            after.result |= isinstance(node.node, Action)
            yield node, known, after
            for route, _mark in node.routes:
                if route is node.keys.on_error:
                    after.error |= route.stays
                elif route.text in self.exit:
                    after.absorb(self.exit[route.text])
            known = after

    def _references(self, chain: ChainDef) -> None:
        for node, known, after in self._walk(chain):
            here = after if isinstance(node.node, SourceNode) else known
            for reference, mark in node.references:
                text = _unknown(reference, here)
                if text:
                    self._at(node).error(mark, text)

    def _only_drop(self) -> None:
        hopeful: set[str] = set()
        for _again in self.flow.chains:
            for chain in self.flow.chains.values():
                targets = {r.text for n in chain.nodes for r, _mark in n.routes if r is not n.keys.on_error}
                if any(isinstance(n.node, Action) for n in chain.nodes) or targets & (hopeful | {"dead"}):
                    hopeful.add(chain.name)
        for chain in self.flow.chains.values():
            called = any(_comes_back(n) for n in self.flow.nodes() for r, _mark in n.routes if r.text == chain.name)
            if chain.name not in hopeful and chain.nodes and not called and not self.entry[chain.name].result:
                here = self.problems.at(f"chains.{_plain(chain.name)}")
                here.warn(chain.mark, _("whatever comes in here is dropped: no action and no log on any way"))


def _comes_back(node: NodeDef) -> bool:
    return isinstance(node.node, Step) and node.node.comes_back


def _passes_on(node: NodeDef) -> bool:
    if node.keys.when is not None or not isinstance(node.node, Step):
        return True
    return node.node.passes_on() or (node.keys.on_error is not None and node.keys.on_error.stays)


def _unknown(reference: Reference, known: Knowledge) -> str:
    if reference.root == "result" and not known.result:
        return _("'{name}' is unknown here: no action stands before this node").format(name=reference.text)
    if reference.root == "error" and not known.error:
        return _("'{name}' is unknown here: it is known only where on_error leads").format(name=reference.text)
    if reference.root in RESERVED or reference.root in known.names:
        return ""
    names = sorted(known.names)
    hint = suggestion(reference.root, [*names, *RESERVED])
    if not hint:
        hint = (
            _("; known here: {names}").format(names=", ".join([*names, "payload...."]))
            if names
            else _("; a field of the payload is written payload.{name}").format(name=reference.root)
        )
    return _("unknown reference '{name}'{hint}").format(name=reference.text, hint=hint)


def _plain(chain: str) -> str:
    """A chain's name as a person knows it: of an inline chain, the chain it stands in."""
    return chain.split(".")[0]
