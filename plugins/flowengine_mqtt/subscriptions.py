"""Keeping the broker's subscriptions of a session equal to the filters that are wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from flowengine import N_, _
from flowengine_mqtt.filters import check_filter
from flowengine_mqtt.network import NetworkConnection
from flowengine_mqtt.state import SessionState

log = structlog.get_logger(__name__)


class Subscriptions:
    """What is subscribed is recorded in the session's state. A resumed session then needs no SUBSCRIBE: one
    would make the broker send its retained messages again.

    `on_change` is told, whenever it may have changed, whether we are connected and all that is wanted is
    granted.
    """

    def __init__(self, state: SessionState, resubscribe: float, on_change: Callable[[bool], None]) -> None:
        self.wanted: dict[str, int] = {}
        self.refused: dict[str, str] = {}
        self._state = state
        self._resubscribe = resubscribe
        self._on_change = on_change
        self._connection: NetworkConnection | None = None
        self._subscribing: dict[int, list[str]] = {}
        self._unsubscribing: dict[int, list[str]] = {}
        self._retry: asyncio.TimerHandle | None = None

    @property
    def ready(self) -> bool:
        """Whether there is a connection and the broker has granted all that is wanted."""
        return self._connection is not None and not self.refused and not self._subscribing

    def want(self, filters: Mapping[str, int]) -> None:
        """Say what is wanted: filter to QoS, none overlapping another. Raises ValueError for illegal ones."""
        for topic_filter, qos in filters.items():
            check_filter(topic_filter)
            if qos not in (0, 1):
                raise ValueError(
                    _(
                        "Topic filter {filter!r}: QoS {qos} cannot be used; the MQTT library confirms QoS 2 "
                        "before the message is safe. Use 1."
                    ).format(filter=topic_filter, qos=qos)
                )
        self.wanted = dict(filters)
        self.refused = {each: why for each, why in self.refused.items() if each in self.wanted}
        if self._connection is not None:
            self._adjust(self._connection)

    def connected(self, connection: NetworkConnection, session_present: bool) -> None:
        """A connection is up: subscribe what its session lacks."""
        self._connection = connection
        self.refused.clear()
        if not session_present and self._state.filters:
            log.warning(
                N_("the broker has lost our session; what it held back for us while we were away is gone"),
                client_id=self._state.client_id,
                broker=self._state.broker,
            )
            self._state.filters = {}
        self._adjust(connection)

    def disconnected(self) -> None:
        """The connection is gone, and answers that had not come."""
        self._connection = None
        self._subscribing.clear()
        self._unsubscribing.clear()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._changed()

    def subscribed(self, mid: int, codes: Sequence[int]) -> None:
        """SUBACK: from 0x80 on a refusal (section 3.9.3)."""
        filters = self._subscribing.pop(mid, [])
        for topic_filter, code in zip(filters, codes, strict=False):
            qos = self.wanted.get(topic_filter)
            if code >= 0x80:
                reason = f"{ReasonCode(PacketTypes.SUBACK, identifier=code)} (0x{code:02X})"
                self._state.filters.pop(topic_filter, None)
                self.refused[topic_filter] = reason
                log.error(
                    N_("the broker refused a subscription; nothing will come in on it"),
                    filter=topic_filter,
                    reason=reason,
                    client_id=self._state.client_id,
                )
                continue
            self.refused.pop(topic_filter, None)
            if qos is None:
                continue  # no longer wanted; its UNSUBSCRIBE is under way
            if code < qos:
                log.warning(
                    N_("the broker grants a lower QoS than asked for; messages may be lost on the way"),
                    filter=topic_filter,
                    asked=qos,
                    granted=code,
                )
            self._state.filters[topic_filter] = qos
        self._record()
        if self.refused and self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(self._resubscribe, self._try_refused)
        self._changed()

    def unsubscribed(self, mid: int) -> None:
        """UNSUBACK."""
        for topic_filter in self._unsubscribing.pop(mid, []):
            if topic_filter not in self.wanted:
                self._state.filters.pop(topic_filter, None)
        self._record()

    def _adjust(self, connection: NetworkConnection) -> None:
        """Subscribe first and unsubscribe then: nothing is missed when a wider filter replaces others."""
        have = self._state.filters
        missing = {each: qos for each, qos in self.wanted.items() if have.get(each, -1) != qos}
        stale = [each for each in have if each not in self.wanted]
        if missing or stale:
            # None: asked, no answer yet. If we end before it comes, the next start asks again.
            have.update(dict.fromkeys([*missing, *stale]))
            self._record()
            self._subscribing.update(connection.subscribe(missing))
            self._unsubscribing.update(connection.unsubscribe(stale))
        self._changed()

    def _try_refused(self) -> None:
        self._retry = None
        if self._connection is not None and self.refused:
            self._subscribing.update(self._connection.subscribe({each: self.wanted[each] for each in self.refused}))

    def _changed(self) -> None:
        self._on_change(self.ready)

    def _record(self) -> None:
        try:
            self._state.save()
        except OSError as problem:
            # Without it the next start subscribes again; that costs retained messages that come twice.
            log.error(N_("a session's file cannot be written"), file=str(self._state.path), problem=str(problem))
