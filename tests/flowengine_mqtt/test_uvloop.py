"""The session on uvloop, which the engine uses where it can; the other tests run on asyncio's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from flowengine_mqtt.settings import SessionSettings, Tls
from tests.flowengine_mqtt.conftest import QUICK, Watched, until
from tests.support.broker import MosquittoBroker

uvloop = pytest.importorskip("uvloop")


async def scenario(broker: MosquittoBroker, folder: Path, tls: Tls | None) -> None:
    settings = SessionSettings.from_url(broker.url).replace(patience=QUICK, tls=tls)
    session = Watched(settings, folder, {"in": 1})
    session.session.start()
    await session.ready()
    payloads = [b"%d" % number * (1 + number % 7 * 10_000) for number in range(200)]
    await asyncio.gather(*(session.session.publish_qos1("in", payload) for payload in payloads))
    await until(lambda: len(session.messages) == 200, "all messages")
    assert session.payloads() == payloads
    broker.restart()
    await until(lambda: len(session.ups) == 2, "the next connection")
    await session.ready()
    await session.session.publish_qos1("in", b"again")
    await until(lambda: session.payloads()[-1] == b"again", "a message after the restart")
    await session.close()


@pytest.fixture(params=["tcp", "tls"])
def tls(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[list[str], Tls | None]:
    if request.param == "tcp":
        return [], None
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    return [f"certfile {tmp_path}/server.pem", f"keyfile {tmp_path}/server.pem"], Tls(tmp_path / "ca.pem")


@pytest.mark.parametrize("factory", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def test_the_session_works_on_either_loop_with_and_without_tls(
    tmp_path: Path,
    tls: tuple[list[str], Tls | None],
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    listener, settings = tls
    with MosquittoBroker(listener=listener) as broker, asyncio.Runner(loop_factory=factory) as runner:
        runner.run(scenario(broker, tmp_path / "state", settings))
