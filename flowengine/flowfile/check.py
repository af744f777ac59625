"""What the parts of a flow mean together: who enters which chain, with what known; circles; what can never be reached."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field

from flowengine.flowfile.model import ChainDef, FlowDef, NodeDef, Project, Unread, name_fault
from flowengine.flowfile.problems import Mark, Problems, Source, nearest, suggestion
from flowengine.i18n import _
from flowengine.node import Action, Step
from flowengine.node import Source as SourceNode
from flowengine.options import Route
from flowengine.template import RESERVED, Reference


@dataclass
class Knowledge:
    """What is known of a message at some place: metadata names, and whether `result` and `error` mean something.

    open: a node before could not be read, so there may be more.
    """

    names: set[str] = field(default_factory=set)
    result: bool = False
    error: bool = False
    open: bool = False

    def absorb(self, other: Knowledge) -> bool:
        """Know what `other` knows too; whether that was news."""
        before = self.copy()
        self.names |= other.names
        self.result |= other.result
        self.error |= other.error
        self.open |= other.open
        return before != self

    def copy(self) -> Knowledge:
        """An independent copy."""
        return Knowledge(set(self.names), self.result, self.error, self.open)


def check_flow(flow: FlowDef, problems: Problems) -> None:
    """Say everything that is wrong with one flow. Of nodes that could not be read the best is thought: one mistake, one error."""
    _Checker(flow, problems).run()


def check_claims(project: Project, problems: dict[Source, Problems]) -> None:
    """Say where two parts, of whichever flows, want what only one may have; names of flows among it."""
    taken: dict[Hashable, tuple[str, Source, Mark]] = {}

    def claim(claims: Iterable[tuple[Hashable, str]], flow: str, source: Source, mark: Mark, where: str) -> None:
        for key, words in claims:
            if key in taken:
                other, file, at = taken[key]
                place = f"{file}:{at[0] + 1}"
                if other != flow:
                    place = _("flow {name}, {place}").format(name=other, place=place) if other else place
                text = _("{words} is taken already, in {place}").format(words=words, place=place)
                by = Problems(source, problems[source].found, where, flow if source != sources.get(flow) else "")
                by.error(mark, text)
            else:
                taken[key] = (flow, source, mark)

    sources = {flow.name: flow.file for flow in project.flows}
    for definition in project.shared.values():
        where = f"connections.{definition.name} {definition.connection.type}"
        claim(definition.connection.claims(), "", definition.source, definition.mark, where)
    for flow in project.flows:
        claim([(("flow", flow.name), _("the name '{name}'").format(name=flow.name))], "", flow.file, flow.mark, "flow")
        for definition in flow.connections.values():
            where = f"connections.{definition.name} {definition.connection.type}"
            claim(definition.connection.claims(), flow.name, definition.source, definition.mark, where)
        wrong = {(p.source, p.mark) for p in problems[flow.source].found if p.severity == "error"}
        for node in flow.nodes():
            if (flow.source, node.mark) in wrong:
                continue  # where it stands it cannot stay, so what it wants is no second mistake
            claim(node.node.claims(), flow.name, flow.source, node.mark, node.where)


class _Checker:
    def __init__(self, flow: FlowDef, problems: Problems) -> None:
        self.flow = flow
        self.problems = problems
        self.entry = {name: Knowledge() for name in flow.chains}
        self.exit = {name: Knowledge() for name in flow.chains}
        self.meant: set[str] = set()
        """Chains that an unknown name was probably meant for, and unknown names that are near to none."""

    def run(self) -> None:
        for chain in self.flow.chains.values():
            self._shape(chain)
            for node in chain.nodes:
                self._targets(node)
        self._entered()
        self._circle()
        self._learn()
        for chain in self.flow.chains.values():
            self._references(chain)
        if not any(p.severity == "error" and p.source == self.flow.source for p in self.problems.found):
            self._only_drop()

    def _at(self, node: NodeDef) -> Problems:
        return self.problems.at(node.where)

    def _shape(self, chain: ChainDef) -> None:
        names: set[str] = set()
        for place, node in enumerate(chain.nodes):
            if isinstance(node.node, SourceNode) and (place > 0 or chain.inline):
                self._at(node).error(node.mark, _("a source stands first in a chain of its own"))
            elif place and not _passes_on(chain.nodes[place - 1]):
                text = _("is never reached: {type} before it passes nothing on")
                self._at(node).error(node.mark, text.format(type=chain.nodes[place - 1].node.type))
            elif node.name in names:
                text = _("two nodes of this chain are named '{name}': give one a name of its own with 'name:'")
                self._at(node).error(node.mark, text.format(name=node.name))
            if node.name:
                names.add(node.name)

    def _targets(self, node: NodeDef) -> None:
        for route, mark in node.routes:
            if route.text in Route.ENDS:
                continue
            chain = self.flow.chains.get(route.text)
            if chain is None:
                known = [c.name for c in self.flow.chains.values() if not c.inline]
                near = nearest(route.text, known)
                said = route.text in self.meant or (near is not None and name_fault(near))
                self.meant.add(near or route.text)
                if said:  # once for a chain that is not there, or for its name
                    continue
                hint = suggestion(route.text, [*known, *Route.ENDS])
                hint = hint or _("; chains of this flow: {names}").format(names=", ".join(known[:12]))
                self._at(node).error(mark, _("unknown chain '{name}'{hint}").format(name=route.text, hint=hint))
            elif _starts(chain) and not chain.inline:
                text = _("chain '{name}' begins with a source: messages enter it there and nowhere else")
                self._at(node).error(mark, text.format(name=route.text))

    def _entered(self) -> None:
        targets = {route.text for node in self.flow.nodes() for route, _mark in node.routes} | self.meant
        for node in self.flow.nodes():
            if isinstance(node.node, Unread):
                targets |= node.node.words
        for name in self.meant & self.entry.keys():
            self.entry[name].open = True
        for chain in self.flow.chains.values():
            first = chain.nodes[0].node if chain.nodes else None
            if chain.inline or chain.name in targets or first is None or isinstance(first, SourceNode | Unread):
                continue
            here = self.problems.at(chain.where)
            self.entry[chain.name].open = True
            text = _(
                "nobody enters this chain: begin it with a source, or name it in a route, run, copy-to or on_error"
            )
            if chain.name in self.flow.set_aside:
                here.warn(chain.mark, _("only a disabled node enters this chain"))
            else:
                here.error(chain.mark, text)

    def _circle(self) -> None:
        """Say each circle once, at the route that closes it."""
        done: set[str] = set()
        way: list[str] = []

        def visit(name: str) -> None:
            way.append(name)
            for node in self.flow.chains[name].nodes:
                for route, mark in node.routes:
                    if route.text in way and not _starts(self.flow.chains[route.text]):
                        circle = [*way[way.index(route.text) :], route.text]
                        text = _("goes in a circle: {way}").format(way=" → ".join(_plain(c) for c in circle))
                        self._at(node).error(mark, text)
                        self.entry[route.text].open = True
                    elif route.text in self.flow.chains and route.text not in done and route.text not in way:
                        visit(route.text)
            way.pop()
            done.add(name)

        for name in self.flow.chains:
            if name not in done:
                visit(name)

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
                    for word in node.node.words & self.entry.keys() if isinstance(node.node, Unread) else ():
                        news |= self.entry[word].absorb(Knowledge(set(after.names), True, True, True))
                    if node is chain.nodes[-1]:
                        news |= self.exit[chain.name].absorb(after)

    def _walk(self, chain: ChainDef) -> Iterator[tuple[NodeDef, Knowledge, Knowledge]]:
        """Each node with what is known before and after it."""
        known = self.entry[chain.name].copy()
        for node in chain.nodes:
            after = known.copy()
            after.names |= set(node.node.metadata())
            after.result |= isinstance(node.node, Action)
            after.open |= isinstance(node.node, Unread)
            yield node, known, after
            for route, _mark in node.routes:
                if route is node.keys.on_error:
                    after.error |= route.stays
                elif route.text in self.exit:
                    after.absorb(self.exit[route.text])
            known = after

    def _references(self, chain: ChainDef) -> None:
        for node, known, after in self._walk(chain):
            first = node is chain.nodes[0] and not chain.inline
            here = after if isinstance(node.node, SourceNode) or (first and isinstance(node.node, Unread)) else known
            for reference, mark in node.references:
                text = _unknown(reference, here)
                if text:
                    self._at(node).error(mark, text)

    def _only_drop(self) -> None:
        hopeful = set(self.flow.set_aside)
        for _again in self.flow.chains:
            for chain in self.flow.chains.values():
                targets = {r.text for n in chain.nodes for r, _mark in n.routes if r is not n.keys.on_error}
                unknown = targets - self.flow.chains.keys() - set(Route.ENDS)
                acts = any(isinstance(n.node, Action | Unread) for n in chain.nodes)
                if acts or unknown or targets & (hopeful | {"dead"}):
                    hopeful.add(chain.name)
        for chain in self.flow.chains.values():
            called = any(_comes_back(n) for n in self.flow.nodes() for r, _mark in n.routes if r.text == chain.name)
            if chain.name not in hopeful and chain.nodes and not called and not self.entry[chain.name].result:
                here = self.problems.at(chain.where)
                here.warn(chain.mark, _("whatever comes in here is dropped: no action and no log on any way"))


def _starts(chain: ChainDef) -> bool:
    return bool(chain.nodes) and isinstance(chain.nodes[0].node, SourceNode)


def _comes_back(node: NodeDef) -> bool:
    return isinstance(node.node, Step) and node.node.comes_back


def _passes_on(node: NodeDef) -> bool:
    if node.keys.when is not None or not isinstance(node.node, Step):
        return True
    return node.node.passes_on() or (node.keys.on_error is not None and node.keys.on_error.stays)


def _unknown(reference: Reference, known: Knowledge) -> str:
    if known.open:
        return ""
    if reference.root == "result" and not known.result:
        return _("'{name}' is unknown here: no action stands before this node").format(name=reference.text)
    if reference.root == "error" and not known.error:
        return _("'{name}' is unknown here: it is known only where on_error leads").format(name=reference.text)
    if reference.root in RESERVED or reference.root in known.names:
        return ""
    names = sorted(known.names)
    hint = suggestion(reference.root, [*names, *RESERVED])
    if not hint:
        hint = _("; a field of the payload is written payload.{name}").format(name=reference.root)
        if names:
            hint = _("; known here: {names}").format(names=", ".join(names)) + hint
    return _("unknown reference '{name}'{hint}").format(name=reference.text, hint=hint)


def _plain(chain: str) -> str:
    """A chain's name as a person knows it: of an inline chain, the chain it stands in."""
    return chain.split(".")[0]
