"""The node `cmd-filter`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import msgspec

from flowengine import Message, Meta, NodeOptions, Path, Problem, Route, Routed, Step, _, as_text

_ABSENT = object()


class CmdFilter(Step):
    """Sends each message on by what one field says.

    The field's value is looked up among the keys of `routes`, and the message goes where that route leads: a
    chain, a list of nodes on the spot, `drop`, `dead`, or `next`, which is to stay in this chain. It does not
    come back.

    Keys are text and match a text that is the same, letter by letter. They match numbers too, since devices
    send both: the key `0` matches 0 and "0", and 0.0. The keys `true`, `false` and `null` match those values
    and the same words as text. A message whose field is missing, is a list or an object, or matches no key
    goes to `otherwise`.

    Guarantees:
        Every message takes exactly one route, unchanged; none is lost here unless a route says `drop`. Keeps
        order, id and metadata. No payload fails in this node: one that is no object (bytes, a list, a number)
        goes to `otherwise`.

    Example:
        - cmd-filter:
            field: cmd
            routes:
              heartU: drop
              verifiedRecordU: next
            otherwise: dead
        - log: "verified: {payload.data}"
    """

    type = "cmd-filter"

    class Options(NodeOptions):
        routes: Annotated[
            dict[str, Route],
            Meta(
                description="Where to go for each value of the field",
                examples=[{"heartU": "heartbeat", "strangerRecordU": "drop"}],
            ),
        ]
        otherwise: Annotated[
            Route,
            Meta(
                description="Where all other messages go, also those without the field",
                examples=["unknown", "drop"],
            ),
        ]
        field: Annotated[
            Path, Meta(description="The field in the payload that decides", examples=["cmd", "header.type"])
        ] = Path("cmd")

    def setup(self) -> None:
        path: Path = self.options.field
        self._find = path.find
        self._key = path.segments[0] if len(path.segments) == 1 else None
        self._otherwise = _sender(self.options.otherwise)
        # Texts and numbers are keys of one table, so that a message costs one look into it.
        self._table: dict[Any, Callable[[Message], Message | Routed]] = {}
        self._twice: list[Problem] = []
        numbers: dict[float, str] = {}
        for key, route in self.options.routes.items():
            self._table[key] = _sender(route)
            number = _number(key)
            if number is None:
                continue
            if number in numbers:
                text = _("'{key}' and '{other}' are the same number").format(key=key, other=numbers[number])
                self._twice.append(Problem(f"routes.{key}", text))
            numbers[number] = key
            self._table[number] = self._table[key]

    def check(self) -> Iterable[Problem]:
        return self._twice

    def process(self, msg: Message) -> Message | Routed:
        payload = msg.payload
        if self._key is not None and type(payload) is dict:
            value = payload.get(self._key, _ABSENT)
        else:
            value = self._find(payload, _ABSENT)
        kind = type(value)
        if kind is str or kind is int or kind is float:
            return self._table.get(value, self._otherwise)(msg)
        if kind is bool or value is None:
            return self._table.get(as_text(value), self._otherwise)(msg)
        return self._otherwise(msg)

    def passes_on(self) -> bool:
        return any(route.stays for route in (*self.options.routes.values(), self.options.otherwise))


def _stay(msg: Message) -> Message:
    return msg


def _sender(route: Route) -> Callable[[Message], Message | Routed]:
    return _stay if route.stays else route.to


def _number(key: str) -> int | float | None:
    """The number that a key reads as (RFC 8259 section 6), or None; `007` is none."""
    try:
        value = msgspec.json.decode(key)
    except (ValueError, RecursionError):
        return None
    return value if type(value) in (int, float) else None
