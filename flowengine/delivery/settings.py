"""What a flow file may say of an action's delivery: the key `delivery` beside its type."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from msgspec import Meta

from flowengine.i18n import N_
from flowengine.node import NodeOptions
from flowengine.options import Duration
from flowengine.template import Template


class StoreAfter(Duration):
    """A length of time, or `never`."""

    kind: ClassVar[str] = N_("duration, or never")
    schema: ClassVar[dict[str, Any]] = {**Duration.schema, "pattern": rf"{Duration.schema['pattern']}|^never$"}

    def __init__(self, value: str | float) -> None:
        self.never = value == "never"
        super().__init__("0" if self.never else value)
        self.text = value


class Delivery(NodeOptions):
    """How the engine delivers an action's messages."""

    order_by: Annotated[
        Template | None,
        Meta(
            description="Messages of one value go in order, one in flight; by default the device, else the topic; "
            "`none` gives order up",
            examples=["{device}"],
        ),
    ] = None
    id_from: Annotated[
        Template | None,
        Meta(
            description="Makes the message's id from its content, so that a repeat carries the same Idempotency-Key",
            examples=["{device}/{payload.user_id}/{payload.bot_time}"],
        ),
    ] = None
    store_after: Annotated[
        StoreAfter,
        Meta(
            description="A message not delivered this long after its first attempt goes to the disk; "
            "0 stores each one first, never none",
            examples=["50ms", "0", "never"],
        ),
    ] = StoreAfter("50ms")
    give_up_after: Annotated[
        Duration, Meta(description="A message that failed this long after its first attempt is dead", examples=["72h"])
    ] = Duration("72h")
    expire_after: Annotated[
        Duration | None,
        Meta(description="A message this old is worthless: it is dropped as `expired`", examples=["30s"]),
    ] = None
    concurrency: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | None,
        Meta(
            description="How many messages may be in flight at once; by default 128, or what the action needs",
            examples=[32],
        ),
    ] = None
