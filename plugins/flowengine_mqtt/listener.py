"""Who is told what happens on a network connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from flowengine_mqtt.network import NetworkConnection


class Listener(Protocol):
    """All calls come in the event loop; none may close the connection."""

    def accepted(self, connection: NetworkConnection) -> None:
        """The broker took us in, as `connection.accepted_as` tells. Messages follow."""

    def message(self, generation: int, flags: int, packet_id: int, topic: bytes, payload: bytes) -> None:
        """A PUBLISH arrived. flags: as in `reader`."""

    def published(self, packet_id: int, code: int) -> None:
        """A PUBACK arrived, with its reason code."""

    def subscribed(self, mid: int, codes: Sequence[int]) -> None:
        """A SUBACK arrived, with a reason code for each filter."""

    def unsubscribed(self, mid: int) -> None:
        """An UNSUBACK arrived."""
