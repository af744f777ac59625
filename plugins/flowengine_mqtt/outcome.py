"""How an attempt to connect came out: accepted, with what the broker allows, and why it ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the broker said in its CONNACK; `receive_maximum` is how many QoS 1 messages it takes at once."""

    session_present: bool = False
    receive_maximum: int = 65535
    maximum_packet_size: int | None = None
    maximum_qos: int = 1


class End(Enum):
    """How a connection ended, or did not come about."""

    UNREACHED = auto()
    """No connection: name, network, TLS."""
    REFUSED = auto()
    """CONNACK with a reason code."""
    DISCONNECTED = auto()
    """DISCONNECT from the broker, with a reason code (MQTT 5)."""
    CLOSED = auto()
    """The broker closed it without a word."""
    TIMED_OUT = auto()
    """The broker did not answer."""
    BY_US = auto()


@dataclass(frozen=True, slots=True)
class Closed:
    """The end of a connection.

    `code` is the broker's reason code (of MQTT 5; those of 3.1.1 are translated) where it gave one, `held`
    how many seconds the connection lasted after its CONNACK, None if there was none.
    """

    end: End
    reason: str
    code: int | None = None
    held: float | None = None
