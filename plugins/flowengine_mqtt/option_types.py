"""Option types of this pack: a broker's URL, a topic pattern, a QoS, how to speak TLS."""

from __future__ import annotations

from typing import Any, ClassVar

from flowengine import Annotated, Meta, NodeOptions, OptionError, OptionType, Template, _, check_name
from flowengine_mqtt.embedded import embedded_port
from flowengine_mqtt.settings import SessionSettings
from flowengine_mqtt.topics import TopicPattern


class BrokerUrl(OptionType):
    """`mqtt://user:password@host:port`, `mqtts://host`, or `embedded:` (`embedded:PORT`).

    embedded: the port of the embedded broker, or None. settings: what the URL says otherwise.
    """

    def __init__(self, value: str) -> None:
        super().__init__(value)
        self.embedded = embedded_port(value)
        self.settings = SessionSettings.from_url(value if self.embedded is None else f"127.0.0.1:{self.embedded}")


class Pattern(OptionType):
    """A topic pattern: an MQTT filter in which `{name}` captures a part of a level."""

    literal = Template.literal

    def __init__(self, value: str) -> None:
        super().__init__(value)
        self.pattern = TopicPattern(value)
        for name in self.pattern.names:
            check_name(name)


class Qos(OptionType):
    """0 or 1. QoS 2 is refused: the client library acknowledges it before the message is delivered."""

    schema: ClassVar[dict[str, Any]] = {"type": ["integer", "string"], "enum": [0, 1, "0", "1"]}

    def __init__(self, value: str | int) -> None:
        super().__init__(value)
        if str(value) == "2":
            raise OptionError(
                _("QoS 2 is not used: write 1, which delivers at least once, and tell repeats by the Idempotency-Key")
            )
        if str(value) not in ("0", "1"):
            raise OptionError(_("a QoS is 0 or 1, not '{value}'").format(value=value))
        self.level = int(value)


class TlsOptions(NodeOptions):
    """How to speak TLS to the broker; the URL begins with mqtts://."""

    ca: Annotated[
        str | None, Meta(description="File with the authorities to trust; the system's by default", examples=["ca.pem"])
    ] = None
    certificate: Annotated[
        str | None, Meta(description="File with the client's certificate", examples=["client.pem"])
    ] = None
    key: Annotated[str | None, Meta(description="File with the certificate's key", examples=["client.key"])] = None
    insecure: Annotated[bool, Meta(description="Do not check who the broker is; for trying things out")] = False
