"""What a flow file may say of an action's delivery: the key `delivery` beside its type."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from flowengine.node import NodeOptions
from flowengine.options import Duration
from flowengine.template import Template


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
    give_up_after: Annotated[
        Duration, Meta(description="A message that failed this long after its first attempt is dead", examples=["72h"])
    ] = Duration("72h")
    expire_after: Annotated[
        Duration | None,
        Meta(description="A message this old is worthless: it is dropped as `expired`", examples=["30s"]),
    ] = None
    concurrency: Annotated[int, Meta(description="How many messages may be in flight at once", ge=1, le=1024)] = 32
