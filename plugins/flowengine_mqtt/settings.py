"""What an MQTT session needs to know: where the broker is, who we are, how patient to be."""

from __future__ import annotations

import dataclasses
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from flowengine import _

Version = Literal["auto", "5", "3.1.1"]

#: How many unacknowledged messages a broker sends a 3.1.1 client, which cannot say; Mosquitto's default.
ASSUMED_WINDOW = 20

_SCHEMES = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, slots=True)
class Tls:
    """How to speak TLS. Without `ca_file` the system's authorities are trusted.

    `insecure` turns off every check of the broker's certificate: traffic is encrypted, but to whom is not
    known.
    """

    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    insecure: bool = False

    def context(self) -> ssl.SSLContext:
        """Read the files. Raises OSError (ssl.SSLError) if one is wrong, ValueError for a key alone."""
        if self.key is not None and self.certificate is None:
            raise ValueError(_("TLS has a key but no certificate; give both, or the certificate alone."))
        context = ssl.create_default_context(cafile=None if self.ca_file is None else str(self.ca_file))
        if self.certificate is not None:
            context.load_cert_chain(str(self.certificate), None if self.key is None else str(self.key))
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


@dataclass(frozen=True, slots=True)
class Patience:
    """Times in seconds that say how a session waits.

    `first` and `longest` bound the backoff between connection attempts, of which a random part is taken (full
    jitter); it begins anew once a connection held for `stable`. `slow` is the range of waits after a refusal
    that only a person can mend, and in a duel over a client id. `resubscribe` is the wait before a refused
    subscription is tried again.
    """

    connect: float = 10.0
    first: float = 0.5
    longest: float = 30.0
    stable: float = 30.0
    slow: tuple[float, float] = (30.0, 60.0)
    resubscribe: float = 60.0


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Where and how to connect.

    `receive_maximum` is the window asked for: how many QoS 1 messages may be unacknowledged at once (MQTT 5
    only). `session_expiry` (seconds) is how long the broker keeps the session while we are away (MQTT 5
    only).
    """

    host: str
    port: int = 1883
    tls: Tls | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    client_id: str | None = None
    version: Version = "auto"
    keepalive: int = 30
    receive_maximum: int = 512
    session_expiry: int = 7 * 24 * 3600
    patience: Patience = Patience()

    @classmethod
    def from_url(cls, url: str) -> SessionSettings:
        """Read `mqtt://user:password@host:port`, `mqtts://host`, `host:port` or `host`.

        User and password may be percent-encoded. The port is 1883, or 8883 for mqtts. Raises ValueError with
        one sentence; it never repeats the password.
        """
        address = url if "://" in url else f"mqtt://{url}"
        try:
            parts = urlsplit(address)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ValueError(_("A broker's URL needs a host, and a port from 1 to 65535.")) from None
        if parts.scheme not in _SCHEMES:
            raise ValueError(
                _("A broker's URL begins with mqtt:// or mqtts://, not {scheme}://.").format(scheme=parts.scheme)
            )
        if not host or any(character.isspace() for character in host) or port == 0:
            raise ValueError(_("A broker's URL needs a host, and a port from 1 to 65535."))
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError(
                _("A broker's URL ends after the host and port; write / ? # in a user name or password as %2F %3F %23.")
            )
        if parts.password is not None and not parts.username:
            raise ValueError(_("A broker's URL has a password but no user name."))
        return cls(
            host=host,
            port=port or _SCHEMES[parts.scheme],
            tls=Tls() if parts.scheme == "mqtts" else None,
            username=unquote(parts.username) if parts.username else None,
            password=None if parts.password is None else unquote(parts.password),
        )

    def replace(self, **changes: object) -> SessionSettings:
        """The same with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    @property
    def address(self) -> str:
        """`host:port`, for logs and for telling brokers apart."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
