"""Connecting a paho client without holding up the event loop."""

from __future__ import annotations

import asyncio
import ssl
import threading
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from flowengine_mqtt.settings import SessionSettings


async def dial(client: Client, settings: SessionSettings, version: str, receive_maximum: int) -> None:
    """Resolve the name, connect, do the TLS handshake and queue a CONNECT that wants the session kept.

    All of it may block for long, so it has a thread of its own: a daemon, and not one of the loop's executor,
    which would hold up the end of the process. If the caller gives up, what the thread still connects is
    closed.

    Raises OSError (ssl.SSLError among them) and ValueError.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def report(problem: Exception | None) -> None:
        if done.done():
            _close(client)
        elif problem is None:
            done.set_result(None)
        else:
            done.set_exception(problem)

    def connect() -> None:
        problem = None
        try:
            _connect(client, settings, version, receive_maximum)
        except Exception as error:
            problem = error
        try:
            loop.call_soon_threadsafe(report, problem)
        except RuntimeError:  # the loop was closed meanwhile
            _close(client)

    threading.Thread(target=connect, name=f"mqtt-connect {settings.address}", daemon=True).start()
    await done


class _ClosesItself(ssl.SSLSocket):
    """paho forgets a socket whose handshake fails, which would stay open until it is collected."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def _connect(client: Client, settings: SessionSettings, version: str, receive_maximum: int) -> None:
    if settings.tls is not None:
        context = settings.tls.context()  # read anew each time: certificates are renewed
        context.sslsocket_class = _ClosesItself
        client.tls_set_context(context)
    if version != "5":
        client.connect(settings.host, settings.port, settings.keepalive)
        return
    properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = settings.session_expiry
    properties.ReceiveMaximum = receive_maximum
    client.connect(settings.host, settings.port, settings.keepalive, clean_start=False, properties=properties)


def _close(client: Client) -> None:
    sock = client.socket()
    if sock is not None:
        sock.close()
