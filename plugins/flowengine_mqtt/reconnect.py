"""After a connection has ended: which protocol version to try next, how long to wait, what to say."""

from __future__ import annotations

import time

import structlog

from flowengine import N_
from flowengine_mqtt.backoff import Backoff
from flowengine_mqtt.duel import DuelWatch
from flowengine_mqtt.outcome import Closed, End
from flowengine_mqtt.settings import SessionSettings

log = structlog.get_logger(__name__)

UNSUPPORTED_VERSION = 0x84
#: Reason codes of a CONNACK that only a person can mend (section 3.2.2.2).
_NEEDS_A_PERSON = {0x85, 0x86, 0x87, 0x8A, 0x8C, 0x95, 0x99, 0x9A, 0x9B, 0x9C, 0x9D}


class Reconnect:
    """Knows how a session's connections have ended so far. version: the protocol version to try next."""

    def __init__(self, settings: SessionSettings, client_id: str) -> None:
        self.version = "5" if settings.version == "auto" else settings.version
        self._settings = settings
        self._client_id = client_id
        self._version_works = settings.version != "auto"
        self._backoff = Backoff(settings.patience)
        self._duel = DuelWatch()
        self._last_reason = ""

    def accepted(self) -> None:
        """The broker took us in, so it knows the version."""
        self._version_works = True

    def wait(self, closed: Closed) -> float:
        """How many seconds to wait after such an end; says what is to be said about it."""
        facts = {"broker": self._settings.address, "client_id": self._client_id, "reason": closed.reason}
        if closed.held is not None:
            self._backoff.held(closed.held)
            self._last_reason = ""
        elif self._other_version(closed):
            return 0.0
        wait = self._backoff.next()
        duel_begins = self._duel.ended(closed, time.monotonic())
        refused = closed.end is End.REFUSED and closed.code in _NEEDS_A_PERSON
        if self._duel.on or refused:
            wait = self._backoff.slow()
        facts["again_in"] = f"{wait:.1f} s"
        if duel_begins:
            log.error(
                N_(
                    "thrown off by the broker again and again just after it took us in, most likely because "
                    "another program uses the same client id; stop it, or give one of them another client_id"
                ),
                **facts,
            )
        elif refused:
            log.error(N_("the broker refuses us"), code=f"0x{closed.code:02X}", **facts)
        elif closed.held is not None:
            log.warning(N_("connection to the broker lost"), **facts)
        elif closed.reason != self._last_reason:
            log.warning(N_("no connection to the broker"), **facts)
        else:
            log.debug(N_("still no connection to the broker"), **facts)
        if closed.held is None:
            self._last_reason = closed.reason
        return wait

    def _other_version(self, closed: Closed) -> bool:
        """Whether to try another protocol version at once after a connection that was not accepted."""
        if self._settings.version != "auto" or closed.held is not None:
            return False
        unsupported = closed.end is End.REFUSED and closed.code == UNSUPPORTED_VERSION
        # Brokers that know 3.1.1 only may also close the connection without a word, or (amqtt) wait for the rest of
        # a CONNECT that they misread.
        silent = closed.end in (End.CLOSED, End.TIMED_OUT) and not self._version_works
        if not (unsupported or silent):
            return False
        self._version_works = False
        self.version = "3.1.1" if self.version == "5" else "5"
        log.debug(N_("trying another protocol version"), version=self.version, reason=closed.reason)
        return self.version == "3.1.1"
