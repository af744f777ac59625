"""The connection `mqtt`: one session at a broker, shared by mqtt-in and mqtt-out nodes."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal

from flowengine import (
    N_,
    Annotated,
    Busy,
    Connection,
    Duration,
    Meta,
    NodeOptions,
    Outcome,
    Problem,
    Secret,
    StartError,
    Stopping,
    _,
)
from flowengine_mqtt.acks import AckLedger, Entry, when_all
from flowengine_mqtt.dispatch import Dispatch, Subscriber
from flowengine_mqtt.embedded import EmbeddedBroker
from flowengine_mqtt.errors import BrokerError
from flowengine_mqtt.option_types import BrokerUrl, TlsOptions
from flowengine_mqtt.reader import DUP, QOS_1
from flowengine_mqtt.session import Session
from flowengine_mqtt.settings import SessionSettings, Tls
from flowengine_mqtt.state import SessionState

_SMALLEST_WINDOW = 8
_REFUSED_LONG_AGO = 60.0


class MqttConnection(Connection):
    """One session at an MQTT broker, kept connected for ever.

    MQTT 5 is tried first, then 3.1.1. The client id is made once and kept in the state folder, and the session lives on at
    the broker for `session_expiry` while flowengine is away, so that what devices send meanwhile is fetched afterwards.
    `embedded:` starts a Mosquitto on 127.0.0.1:1883 (`embedded:1884` on another port), or, where none is installed, a
    stand-in for trying things out.

    Guarantees:
        QoS 1 messages are acknowledged in the order of arrival, and only when every chain that had them has settled or
        stored them; what is not acknowledged comes again after a reconnect. A message that matches no mqtt-in is
        acknowledged and counted. One for a flow that could not start is not acknowledged; once those take half of the window,
        such messages are subscribed to no more, loudly.

    Example:
        gate: {mqtt: {url: "mqtt://user:secret@broker.example:1883"}}
    """

    type = "mqtt"

    class Options(NodeOptions):
        bare: ClassVar[str] = "url"
        url: Annotated[
            BrokerUrl,
            Meta(
                description="The broker: mqtt://host:port, mqtts:// for TLS, or embedded: for one that is started here",
                examples=["mqtt://127.0.0.1:1883"],
            ),
        ]
        username: Annotated[str | None, Meta(description="User name, if it is not in the URL")] = None
        password: Annotated[
            Secret, Meta(description="Password, if it is not in the URL", examples=["${env:MQTT_PASSWORD}"])
        ] = Secret("")
        client_id: Annotated[str | None, Meta(description="Client id, where the broker wants a certain one")] = None
        version: Annotated[
            Literal["auto", "5", "3.1.1"], Meta(description="Protocol version; auto tries 5 and then 3.1.1")
        ] = "auto"
        tls: Annotated[TlsOptions | None, Meta(description="How to speak TLS; the URL begins with mqtts://")] = None
        keepalive: Annotated[
            Duration, Meta(description="Seconds after which a silent connection is probed", examples=["30s"])
        ] = Duration("30s")
        session_expiry: Annotated[
            Duration,
            Meta(description="How long the broker keeps the session while we are away (MQTT 5)", examples=["7d"]),
        ] = Duration("7d")

    def setup(self) -> None:
        self.unmatched = 0
        self.refused = 0
        self._refused_at = 0.0
        self._refusing = False
        self._withheld = 0
        self._press_at = 0
        self._dispatch = Dispatch()
        self._broker: EmbeddedBroker | None = None
        self._session: Session | None = None
        self._ledger: AckLedger | None = None
        self._stopping = False

    def check(self) -> Iterable[Problem]:
        options = self.options
        if options.tls is not None and not options.url.text.startswith("mqtts://"):
            yield Problem("tls", _("TLS needs a URL that begins with mqtts://"))
        if options.tls is not None and options.tls.key and not options.tls.certificate:
            yield Problem("tls.key", _("a key goes with a certificate: name that, too"))
        if options.url.embedded is not None and (options.username or options.password):
            yield Problem("url", _("the embedded broker knows no users: leave username and password out"))
        if not 0 < options.keepalive.seconds <= 65535:
            yield Problem("keepalive", _("between 1s and 65535s"))

    def claims(self) -> Iterable[tuple[Hashable, str]]:
        if self.options.client_id:
            address = self.options.url.settings.address
            words = _("client id '{id}' at {broker}").format(id=self.options.client_id, broker=address)
            yield ("mqtt client id", address, self.options.client_id), words

    async def open(self) -> None:
        folder = self.context.state
        if folder is None:
            raise StartError(_("an MQTT connection needs a state folder"))
        options = self.options
        if options.url.embedded is not None:
            self._broker = EmbeddedBroker(folder, port=options.url.embedded)
            try:
                await self._broker.start()
            except (BrokerError, OSError) as error:
                self._broker = None
                raise StartError(str(error)) from None
        flow = self.context.flow or "shared"
        try:
            settings = self._settings()
            state = SessionState(folder, flow, self.context.name)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise StartError(_("the MQTT session cannot be set up: {reason}").format(reason=error)) from None
        self._session = Session(
            settings, on_message=self._on_message, on_up=self._on_up, on_down=self._on_down, state=state
        )
        self._ledger = AckLedger(self._session.acknowledge, asyncio.get_running_loop().call_soon)

    def _settings(self) -> SessionSettings:
        options = self.options
        settings: SessionSettings = options.url.settings
        changes: dict[str, Any] = {
            "client_id": options.client_id,
            "version": options.version,
            "keepalive": max(1, int(options.keepalive.seconds)),
            "session_expiry": int(options.session_expiry.seconds),
        }
        if self._broker is not None and options.version == "auto":
            changes["version"] = self._broker.version
        if options.username is not None:
            changes["username"] = options.username
        if options.password:
            changes["password"] = options.password.value
        if options.tls is not None:
            tls = options.tls
            files = [None if f is None else Path(f) for f in (tls.ca, tls.certificate, tls.key)]
            changes["tls"] = Tls(files[0], files[1], files[2], tls.insecure)
            changes["tls"].context()
        return settings.replace(**changes)

    async def start(self) -> None:
        assert self._session is not None
        self._session.set_filters(self.filters())
        self._session.start()

    async def stop(self) -> None:
        self._stopping = True

    async def close(self) -> None:
        if self._ledger is not None:
            self._ledger.flush()
        if self._session is not None:
            await self._session.disconnect()
        if self._broker is not None:
            await self._broker.stop()
            self._broker = None
        if self.unmatched:
            self.log.warning("messages came that match no mqtt-in; they were acknowledged", count=self.unmatched)

    def ready(self) -> str | None:
        if self._session is None or not self._session.ready:
            return None
        filters = self.filters()
        address = self.options.url.settings.address
        return f"mqtt://{address} " + (", ".join(filters) or "-")

    def subscribe(self, subscriber: Subscriber) -> None:
        """Have messages that match go to a subscriber; its filters are subscribed to at `start`."""
        self._dispatch.add(subscriber)

    def filters(self) -> dict[str, int]:
        """What is subscribed to: the union of what all mqtt-in nodes want, each filter at the highest QoS asked for."""
        return self._dispatch.filters(left_out=True)

    @property
    def session(self) -> Session:
        """The session; raises RuntimeError before `open`."""
        if self._session is None:
            raise RuntimeError("the MQTT connection is not open")
        return self._session

    def _on_up(self, generation: int, session_present: bool) -> None:
        assert self._ledger is not None
        self._refusing = False
        self._withheld = 0
        self._press_at = self.session.window * 3 // 4
        self._ledger.connected(generation, session_present)

    def _on_down(self, _generation: int, _reason: str) -> None:
        assert self._ledger is not None and self._session is not None
        if time.monotonic() - self._refused_at > _REFUSED_LONG_AGO:
            self._session.receive_maximum = self.options.url.settings.receive_maximum
        self._ledger.disconnected()

    def _refuse(self) -> None:
        """There is no room: close the connection, whose session keeps what is unacknowledged, and come back with a smaller
        window; after a minute without that, the next connection has the whole window again."""
        assert self._session is not None
        if not self._refusing:
            self._refusing = True
            self.refused += 1
            self._refused_at = time.monotonic()
            window = max(_SMALLEST_WINDOW, self._session.receive_maximum // 2)
            self.log.warning(
                "no room for more messages: the connection is closed for now, its session kept", window=window
            )
            self._session.come_back(window)

    def _on_message(self, generation: int, flags: int, packet_id: int, topic: bytes, payload: bytes) -> None:
        if self._stopping or self._refusing:
            return
        targets = self._dispatch.targets(flags, topic)
        ledger = self._ledger
        assert ledger is not None
        entry: Entry | None = None
        settled: Callable[[Outcome], None] | None = None
        if flags & QOS_1:
            if not targets and self._withhold(topic):
                return
            entry = ledger.received(generation, packet_id, topic, payload, bool(flags & DUP))
            if entry is None:
                return
            settled = entry.settle if len(targets) < 2 else when_all(entry, len(targets))
        if not targets:
            self.unmatched += 1
            if entry is not None:
                entry.settle()
            return
        try:
            for emit, meta in targets:
                emit(payload, meta, settled, expendable=entry is None)
        except Stopping:
            if entry is not None and len(targets) == 1:
                ledger.refused(entry)  # or those of other flows, which come after it, were not acknowledged
            return
        except Busy:
            if entry is not None:
                ledger.refused(entry)
            self._refuse()
            return
        if entry is not None and len(ledger.pending) >= self._press_at:
            targets[0][0].press()

    def _withhold(self, topic: bytes) -> bool:
        """Whether a message is for a flow that was left out. Then it is not acknowledged, and the broker keeps it for a start at
        which the flow is well.

        It takes up a place of the window, which the other flows need as well. When half of it is gone, the broker is told that
        nobody takes such messages, rather than that somebody has them.
        """
        if not self._dispatch.awaited(topic):
            return False
        self._withheld += 1
        if self._withheld == max(1, self.session.window // 2):
            self.log.error(
                N_("messages wait at the broker for a flow that could not start; later ones are lost"),
                waiting=self._withheld,
            )
            self.session.set_filters(self._dispatch.filters(left_out=False))
        return True
