"""Nodes that speak HTTP: http-in, http-reply, http-post, and the connection http-listener. Built on
aiohttp."""

from __future__ import annotations

from flowengine import Connection, Node, hookimpl
from flowengine_http.http_in import HttpIn
from flowengine_http.http_post import HttpPost
from flowengine_http.http_reply import HttpReply
from flowengine_http.listener import HttpListener

__all__ = ["HttpIn", "HttpListener", "HttpPost", "HttpReply"]


@hookimpl
def flowengine_nodes() -> list[type[Node]]:
    return [HttpIn, HttpReply, HttpPost]


@hookimpl
def flowengine_connections() -> list[type[Connection]]:
    return [HttpListener]
