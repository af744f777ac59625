"""A checked flow: what the flow file says, with its nodes made and its names resolved, ready to be compiled."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from msgspec import Meta

from flowengine.condition import Condition
from flowengine.delivery.settings import Delivery
from flowengine.flowfile.problems import Mark, Source
from flowengine.i18n import _
from flowengine.node import Connection, Node, NodeOptions
from flowengine.options import Route
from flowengine.template import Reference

_NAME = re.compile(r"[^\W.][\w-]*")


def name_fault(name: str) -> str:
    """What keeps `name` from naming a flow, chain, node, connection or param; the empty text where nothing does."""
    return "" if _NAME.fullmatch(name) else _("a name begins with a letter or digit, and has letters, digits, - and _")


class NodeKeys(NodeOptions):
    """The engine's own keys, which stand beside the type of every node."""

    RESERVED: ClassVar[tuple[str, ...]] = ("timeout", "retry", "then")

    name: Annotated[str | None, Meta(description="The node's durable name; the default is its type")] = None
    about: Annotated[str | None, Meta(description="A word for the people who read this")] = None
    when: Annotated[Condition | None, Meta(description="When this is false the node is passed by")] = None
    on_error: Annotated[
        Route | None,
        Meta(
            description="Where a message goes when the node has given it up: dead (default), drop, next, a chain or nodes"
        ),
    ] = None
    delivery: Annotated[Delivery | None, Meta(description="How the engine delivers this action's messages")] = None
    disabled: Annotated[bool, Meta(description="Leave this node out")] = False


class Unread(Node):
    """Stands where a node could not be read, so that the rest of its flow can still be checked. What it does is not known.

    words: every text in it, among them the chains it may lead to.
    """

    type = "?"

    def __init__(self, words: frozenset[str]) -> None:
        self.words = words


@dataclass(eq=False)
class NodeDef:
    """One node in its place. mark: where it stands. routes, references: each with its place.

    where: `chains.records[3] http-post`, as errors say it.
    """

    chain: str
    where: str
    name: str
    node: Node
    keys: NodeKeys
    mark: Mark
    routes: list[tuple[Route, Mark]] = field(default_factory=list)
    references: list[tuple[Reference, Mark]] = field(default_factory=list)


@dataclass(eq=False)
class ChainDef:
    """A named list of nodes. inline: it stood on the spot as a route's target. where: as errors say it."""

    name: str
    where: str
    mark: Mark
    nodes: list[NodeDef] = field(default_factory=list)
    inline: bool = False


@dataclass(eq=False)
class ConnectionDef:
    """One connection."""

    name: str
    mark: Mark
    source: Source
    connection: Connection


@dataclass(eq=False)
class FlowDef:
    """One flow, whole. source: the file with its chains. file, mark: where its name stands; another one for an instance."""

    name: str
    source: Source
    file: Source
    mark: Mark = (0, 0)
    about: str = ""
    chains: dict[str, ChainDef] = field(default_factory=dict)
    connections: dict[str, ConnectionDef] = field(default_factory=dict)
    uses: set[str] = field(default_factory=set)
    """The connections that its nodes name, its own and shared ones."""
    set_aside: set[str] = field(default_factory=set)
    """Chains that disabled nodes would enter."""

    def nodes(self) -> list[NodeDef]:
        """All nodes, in the order of the file."""
        return [node for chain in self.chains.values() for node in chain.nodes]


@dataclass(eq=False)
class Project:
    """All flows of a run, and the connections they share."""

    flows: list[FlowDef] = field(default_factory=list)
    shared: dict[str, ConnectionDef] = field(default_factory=dict)
