"""Option types: what an option's text means, read once, at load.

A node's options struct names these as the types of its fields; the checker, the JSON schema and the docs learn from them what an
option is. A pack may define its own: derive from `OptionType`, take the text in `__init__`, raise ValueError with one sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from flowengine.errors import Missing, OptionError
from flowengine.i18n import N_, _

if TYPE_CHECKING:
    from flowengine.message import Message
    from flowengine.template import Reference


class OptionType:
    """Base of all option types. `OptionType(value)` reads the value as it stands in the flow file.

    schema: JSON schema (draft-07) of what may stand there.
    references: what it reads from a message, so that unknown names are found at load.
    kind: what sort of value it is, in a word or two, for help and docs; by default the class's name.
    judges: an action asks it of the answer that it has just heard, so `result` is known there whatever stands before the action.
    """

    schema: ClassVar[dict[str, Any]] = {"type": "string"}
    kind: ClassVar[str] = ""
    judges: ClassVar[bool] = False
    references: tuple[Reference, ...] = ()

    def __init__(self, value: Any) -> None:
        self.text = value

    @staticmethod
    def literal(value: str, before: str) -> str:
        """Make a substituted `value` mean only itself, given the text that stands `before` it."""
        return value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.text == other.text

    def __hash__(self) -> int:
        return hash((type(self), str(self.text)))


_SEGMENT = re.compile(r'"([^"]+)"|([^."]+)')


class Path(OptionType):
    """A path in the payload: `data.0.num`, empty for the whole; a key that holds a dot stands in double quotes."""

    def __init__(self, value: str) -> None:
        super().__init__(value)
        segments: list[str] = []
        at = 0
        while at < len(value) or (value and at == len(value) and value[-1] == "."):
            found = _SEGMENT.match(value, at)
            if found is None or (found.end() < len(value) and value[found.end()] != "."):
                raise OptionError(_("not a path: write keys and list places with dots between, as in data.0.num"), at)
            segments.append(found[1] or found[2])
            at = found.end() + 1
        self.segments = tuple(segments)

    def get(self, payload: Any) -> Any:
        """Return what stands there; raise Missing, with the path and how far it leads, where nothing does."""
        value = payload
        for count, segment in enumerate(self.segments):
            if type(value) is dict and segment in value:
                value = value[segment]
            elif type(value) is list and segment.isdecimal() and int(segment) < len(value):
                value = value[int(segment)]
            else:
                raise Missing(self.text, ".".join(self.segments[:count]), value)
        return value

    def reader(self) -> Callable[[Message], Any]:
        """A function that gets it from a message's payload: as `get`, and faster where the path is one key."""
        get = self.get
        if len(self.segments) != 1:
            return lambda msg: get(msg.payload)
        key = self.segments[0]

        def read(msg: Message) -> Any:
            payload = msg.payload
            if type(payload) is dict:
                try:
                    return payload[key]
                except KeyError:
                    pass
            return get(payload)

        return read

    def find(self, payload: Any, default: Any = None) -> Any:
        """Return what stands there, or `default`."""
        try:
            return self.get(payload)
        except Missing:
            return default


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)?")


class Duration(OptionType):
    """A length of time: `50ms`, `10s`, `5m`, `72h`, `7d`; a bare number is seconds. `.seconds` is a float."""

    schema: ClassVar[dict[str, Any]] = {
        "type": ["string", "number"],
        "pattern": r"^\d+(\.\d+)?\s*(ms|s|min|m|h|d)?$",
        "minimum": 0,
    }

    def __init__(self, value: str | float) -> None:
        super().__init__(value)
        found = _DURATION.fullmatch(str(value).strip())
        if found is None:
            raise OptionError(_("not a length of time: write it as 50ms, 10s, 5m, 72h or 7d"))
        self.seconds = float(found[1]) * _UNITS[found[2] or "s"]


class Secret(OptionType):
    """A text that is never shown: not in logs, not in errors, not in `repr`. `.value` is the text itself."""

    def __init__(self, value: str) -> None:
        super().__init__("***" if value else "")
        self.value = value

    def __bool__(self) -> bool:
        return bool(self.value)


ConnectionT = TypeVar("ConnectionT")


class Ref(OptionType, Generic[ConnectionT]):
    """The name of a connection: `Ref[MqttConnection]`. `.target` is the connection itself once the flow is loaded."""

    kind: ClassVar[str] = N_("a connection's name")

    def __init__(self, value: str) -> None:
        super().__init__(value)
        self._target: ConnectionT | None = None

    @property
    def target(self) -> ConnectionT:
        """The connection; raises RuntimeError before the flow is loaded."""
        if self._target is None:
            raise RuntimeError(f"connection {self.text!r} is not bound yet")
        return self._target

    def bind(self, target: ConnectionT) -> None:
        """The loader, and a test, say which connection this is."""
        self._target = target


class Route(OptionType):
    """Where a message goes next: a chain's name, a list of nodes on the spot, `drop`, `dead`, or `next` (stay in this chain).

    A step returns `route.to(msg)` to send the message there for good, `route.call(msg)` to have it come back.
    """

    schema: ClassVar[dict[str, Any]] = {"$ref": "#/definitions/route"}
    ENDS: ClassVar[tuple[str, ...]] = ("drop", "dead", "next")

    def __init__(self, value: str) -> None:
        super().__init__(value)
        self.target: Any = value

    @property
    def stays(self) -> bool:
        """Whether the message stays in its chain."""
        return bool(self.target == "next")

    def to(self, msg: Message) -> Routed:
        """The message leaves this chain for the target."""
        return Routed(self, msg)

    def call(self, msg: Message) -> Routed:
        """The message goes through the target and comes back to the next node of this chain."""
        return Routed(self, msg, comes_back=True)


class Routed:
    """A message on its way to a route's target; what `Route.to` and `Route.call` return."""

    __slots__ = ("comes_back", "msg", "route")

    def __init__(self, route: Route, msg: Message, comes_back: bool = False) -> None:
        self.route = route
        self.msg = msg
        self.comes_back = comes_back
