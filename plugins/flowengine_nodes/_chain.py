"""The rule that `run` and `copy-to` share for the chain they name."""

from __future__ import annotations

from collections.abc import Iterator

from flowengine import Problem, Route, _


def chain_problems(route: Route) -> Iterator[Problem]:
    """Refuse `drop`, `dead` and `next`: a copy to one of them does nothing, a detour loses the message."""
    if route.target in Route.ENDS:
        text = _("'{end}' is no chain: give a chain's name or a list of nodes").format(end=route.target)
        yield Problem("chain", text)
