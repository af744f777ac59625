"""Which client a node gets, on asyncio's loop and on uvloop."""

from typing import Any

import aiohttp
import httptools
import pytest
from aiohttp.client_proto import ResponseHandler

from flowengine_http import choosing
from flowengine_http.choosing import open_client, try_out
from flowengine_http.direct import DirectClient
from flowengine_http.session import SessionClient
from tests.flowengine_http.scripted import answering, scripted

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Log:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.warnings: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **more: Any) -> None:
        self.warnings.append((event, more))


@pytest.fixture(autouse=True)
def not_tried_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "_usable", None)


async def test_the_aiohttp_that_is_installed_is_used_the_fast_way() -> None:
    """If this fails after an upgrade, the fast client must learn what changed in aiohttp, or stay with the release before."""
    await try_out()
    log = Log()
    client = await open_client(timeout=1, ca="", log=log)
    await client.close()
    assert isinstance(client, DirectClient)
    assert log.warnings == []


def _gone(*_args: object) -> Any:
    raise AttributeError("not in this release")


@pytest.mark.parametrize(
    ("holder", "name", "instead"),
    [
        (httptools, "HttpResponseParser", _gone),
        (aiohttp.ClientRequest, "headers", property(lambda _self: {}, lambda _self, _value: None)),
        (aiohttp.TCPConnector, "connect", _gone),
        (ResponseHandler, "should_close", property(lambda _self: True)),
        (ResponseHandler, "connection_lost", lambda _self, _failure: None),
    ],
)
async def test_where_aiohttp_is_otherwise_nodes_post_the_plain_way_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, holder: type, name: str, instead: object
) -> None:
    log = Log()
    with monkeypatch.context() as patch:
        patch.setattr(holder, name, instead, raising=False)  # an instance sets its own `headers`
        clients = [await open_client(timeout=1, ca="", log=log) for _ in range(2)]
    async with scripted(answering(OK)) as server:
        for client in clients:
            assert isinstance(client, SessionClient)
            assert (await client.post(server.url, {}, b"")).body == b"ok"
            await client.close()
    ((event, more),) = log.warnings
    assert "the plain way" in event
    assert more["reason"]


async def test_it_is_tried_out_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    times = 0

    async def count() -> None:
        nonlocal times
        times += 1

    monkeypatch.setattr(choosing, "try_out", count)
    for _ in range(3):
        await (await open_client(timeout=1, ca="", log=Log())).close()
    assert times == 1
