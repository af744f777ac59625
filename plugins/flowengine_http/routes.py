"""Which node answers a request: by method and path, the most specific path first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

import msgspec

from flowengine import Reply, _
from flowengine_http.answers import Refused
from flowengine_http.route_path import RoutePath


class Request(msgspec.Struct, frozen=True):
    """A request that was let in. `path` is decoded; `query` has the first value of each name; `remote` is the
    peer's address."""

    method: str
    path: str
    captures: Mapping[str, str]
    query: Mapping[str, str]
    remote: str
    body: bytes


Handle = Callable[[Request], Awaitable[Reply]]


@dataclass(frozen=True, eq=False)
class Route:
    """One method and path, and who answers there."""

    method: str
    path: RoutePath
    handle: Handle


class Routes:
    """The table of a listener's routes."""

    def __init__(self) -> None:
        self._routes: list[Route] = []

    def add(self, route: Route) -> None:
        """Take a route in. Two of one method and shape are found at load (`HttpIn.claims`); here the first
        one wins."""
        self._routes.append(route)
        self._routes.sort(key=lambda r: r.path.rank)

    def remove(self, route: Route) -> None:
        """Forget a route; requests it has are still answered."""
        self._routes.remove(route)

    def find(self, method: str, raw_path: str) -> tuple[Route, dict[str, str]]:
        """The route for a request and what its path captures.

        Raises Refused: 400 if the path is not UTF-8, 404 if there is no such path, 405 with Allow (RFC 9110
        15.5.6) if it has other methods.
        """
        segments = raw_path[1:].split("/") if raw_path.startswith("/") else []
        if "%" in raw_path:
            try:
                segments = [unquote(s, errors="strict") for s in segments]
            except UnicodeDecodeError:
                raise Refused(400, _("the path is not UTF-8")) from None
        allowed: set[str] = set()
        for route in self._routes:
            captures = route.path.match(segments)
            if captures is not None:
                if route.method == method:
                    return route, captures
                allowed.add(route.method)
        if not allowed:
            raise Refused(404, _("nothing answers on this path"))
        methods = ", ".join(sorted(allowed))
        raise Refused(405, _("this path takes {methods}").format(methods=methods), {"Allow": methods})
