"""A checked flow: what the flow file says, with its nodes made and its names resolved, ready to be compiled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from msgspec import Meta

from flowengine.condition import Condition
from flowengine.delivery.settings import Delivery
from flowengine.flowfile.problems import Mark, Source
from flowengine.node import Connection, Node, NodeOptions
from flowengine.options import Route
from flowengine.template import Reference


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


@dataclass(eq=False)
class NodeDef:
    """One node in its place. mark: where it stands. routes, references: each with its place."""

    chain: str
    index: int
    name: str
    node: Node
    keys: NodeKeys
    mark: Mark
    routes: list[tuple[Route, Mark]] = field(default_factory=list)
    references: list[tuple[Reference, Mark]] = field(default_factory=list)

    @property
    def where(self) -> str:
        """`chains.records[3] http-post`, as errors say it."""
        return f"chains.{self.chain}[{self.index}] {self.node.type}"


@dataclass(eq=False)
class ChainDef:
    """A named list of nodes. inline: it stood on the spot as a route's target."""

    name: str
    mark: Mark
    nodes: list[NodeDef] = field(default_factory=list)
    inline: bool = False


@dataclass(eq=False)
class ConnectionDef:
    """One connection. flow: whose it is, or the empty text where the folder shares it."""

    name: str
    mark: Mark
    source: Source
    connection: Connection


@dataclass(eq=False)
class FlowDef:
    """One flow, whole."""

    name: str
    source: Source
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
