"""An MQTT session that outlives its network connections (MQTT 5 section 4.1)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

import structlog

from flowengine import N_, _
from flowengine_mqtt.errors import Offline
from flowengine_mqtt.network import NetworkConnection
from flowengine_mqtt.outcome import Closed, End
from flowengine_mqtt.publishing import Publishing
from flowengine_mqtt.reconnect import Reconnect
from flowengine_mqtt.settings import ASSUMED_WINDOW, SessionSettings
from flowengine_mqtt.state import SessionState
from flowengine_mqtt.subscriptions import Subscriptions

log = structlog.get_logger(__name__)

#: generation, flags (see `reader`), packet id, topic as its bytes, payload
OnMessage = Callable[[int, int, int, bytes, bytes], None]
#: generation, whether the broker still had our session
OnUp = Callable[[int, bool], None]
#: generation, why
OnDown = Callable[[int, str], None]


class Session:
    """Keeps one session connected: MQTT 5 first, then 3.1.1; reconnects for ever; subscribes what is wanted.

    Everything happens in the event loop; no callback may block. An exception from a callback is logged, and
    its message stays unacknowledged. QoS 1 messages are acknowledged by `acknowledge` alone (see
    `acks.AckLedger`). `receive_maximum` may be set at any time; it counts from the next connection on.
    """

    def __init__(
        self,
        settings: SessionSettings,
        *,
        on_message: OnMessage,
        on_up: OnUp,
        on_down: OnDown,
        state: SessionState,
    ) -> None:
        state.use(settings.client_id, settings.address)
        self.receive_maximum = settings.receive_maximum
        self.generation = 0
        self._settings = settings
        self._state = state
        self._on_message = on_message
        self._on_up = on_up
        self._on_down = on_down
        self._live: NetworkConnection | None = None
        self._publishing: Publishing | None = None
        self._window = 0
        self._reconnect = Reconnect(settings, state.client_id)
        self._ready = asyncio.Event()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._subscriptions = Subscriptions(state, settings.patience.resubscribe, self._tell_ready)

    @property
    def client_id(self) -> str:
        """The client id, by which the broker knows the session."""
        return self._state.client_id

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted the connection there is now."""
        return self._live is not None

    @property
    def ready(self) -> bool:
        """Whether we are connected and the broker has granted all subscriptions."""
        return self._subscriptions.ready

    @property
    def refused(self) -> Mapping[str, str]:
        """The filters that the broker refused, and its reasons."""
        return self._subscriptions.refused

    @property
    def version(self) -> str:
        """The protocol version in use, or tried next: "5" or "3.1.1"."""
        return self._reconnect.version

    @property
    def window(self) -> int:
        """How many QoS 1 messages the broker sends before it waits for an acknowledgement."""
        return self._window if self._live is not None else self._next_window()

    def start(self) -> None:
        """Begin to connect. Call it in the event loop, once."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"mqtt {self.client_id}")

    async def wait_ready(self) -> None:
        """Return once connected and subscribed."""
        await self._ready.wait()

    def set_filters(self, filters: Mapping[str, int]) -> None:
        """Say what to be subscribed to from now on: filter to QoS, as `filters.merge` gives them.

        Raises ValueError for an illegal filter, and for QoS 2.
        """
        self._subscriptions.want(filters)

    def acknowledge(self, generation: int, mids: Iterable[int]) -> None:
        """Send PUBACKs in this order, unless `generation` is past: packet ids are used again."""
        live = self._live
        if live is not None and live.generation == generation:
            live.acknowledge(mids)

    def publish_qos0(self, topic: str, payload: bytes, retain: bool = False, time_left: float | None = None) -> bool:
        """Write a message to the broker; False if there is no connection, or it has been stalled for long.

        time_left: seconds after which the broker shall not deliver it any more, which MQTT 5 alone can tell it.
        Raises PublishRefused if it can never be sent to this broker.
        """
        if self._publishing is None:
            return False
        try:
            self._publishing.qos0(topic, payload, retain, time_left)
        except Offline:
            return False
        return True

    def publish_qos1(
        self, topic: str, payload: bytes, retain: bool = False, time_left: float | None = None
    ) -> asyncio.Future[int]:
        """Send a message; the result is the reason code of its PUBACK (0, or 16: nobody has subscribed).

        Raises, or the future does: Offline without a connection or if it went down before the PUBACK,
        PublishFailed if the broker said no, PublishRefused if it can never be published.
        """
        if self._publishing is None:
            raise Offline(_("not connected to the broker"))
        return self._publishing.qos1(topic, payload, retain, time_left)

    def come_back(self, receive_maximum: int) -> None:
        """Close the connection, with the session kept, and connect again with another window."""
        self.receive_maximum = receive_maximum
        if self._live is not None:
            self._live.disconnect()

    async def disconnect(self, within: float = 2.0) -> None:
        """Send what is queued (flush the ledger before), then DISCONNECT; the session is kept.

        Takes `within` seconds at most.
        """
        self._stop.set()
        if self._live is not None:
            self._live.disconnect()
        if self._task is not None:
            _done, late = await asyncio.wait([self._task], timeout=within if self._live is not None else 0)
            for task in late:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    # Connecting again and again

    async def _run(self) -> None:
        while not self._stop.is_set():
            self.generation += 1
            closed = await self._connect_once(self.generation)
            if self._stop.is_set():
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(self._reconnect.wait(closed)):
                    await self._stop.wait()

    async def _connect_once(self, generation: int) -> Closed:
        self._window = self._next_window()
        connection = NetworkConnection(
            self._settings, self.client_id, self.version, self.receive_maximum, generation, self
        )
        closed = Closed(End.BY_US, _("closed by us"))
        try:
            closed = await connection.open()
        except Exception as problem:
            log.exception(N_("the attempt to connect failed in an unforeseen way"), broker=self._settings.address)
            closed = Closed(End.UNREACHED, str(problem) or type(problem).__name__)
        finally:
            self._down(generation, closed)
        return closed

    def _next_window(self) -> int:
        return self.receive_maximum if self.version == "5" else ASSUMED_WINDOW

    def _down(self, generation: int, closed: Closed) -> None:
        if self._live is None:
            return
        self._live = None
        self._subscriptions.disconnected()
        if self._publishing is not None:
            self._publishing.ended(closed.reason)
            self._publishing = None
        self._call(self._on_down, generation, closed.reason)

    # What a connection tells (network.Listener)

    def accepted(self, connection: NetworkConnection) -> None:
        """CONNACK."""
        session_present = connection.accepted_as.session_present
        self._live = connection
        self._publishing = Publishing(connection)
        self._reconnect.accepted()
        log.info(
            N_("connected to the broker"),
            broker=self._settings.address,
            version=self.version,
            client_id=self.client_id,
            session="resumed" if session_present else "new",
        )
        self._call(self._on_up, connection.generation, session_present)
        self._subscriptions.connected(connection, session_present)

    def message(self, generation: int, flags: int, packet_id: int, topic: bytes, payload: bytes) -> None:
        """PUBLISH."""
        try:
            self._on_message(generation, flags, packet_id, topic, payload)
        except Exception:
            log.exception(N_("a message could not be handled and stays unacknowledged"), mid=packet_id)

    def published(self, packet_id: int, code: int) -> None:
        """PUBACK."""
        if self._publishing is not None:
            self._publishing.confirmed(packet_id, code)

    def subscribed(self, mid: int, codes: Sequence[int]) -> None:
        """SUBACK."""
        self._subscriptions.subscribed(mid, codes)

    def unsubscribed(self, mid: int) -> None:
        """UNSUBACK."""
        self._subscriptions.unsubscribed(mid)

    def _tell_ready(self, ready: bool) -> None:
        if ready:
            self._ready.set()
        else:
            self._ready.clear()

    def _call(self, callback: Callable[[int, bool], None] | Callable[[int, str], None], *args: object) -> None:
        try:
            callback(*args)  # type: ignore[arg-type]
        except Exception:
            log.exception(N_("a callback of the MQTT session failed"))
