"""The option type `Address`: where a listener listens, as `127.0.0.1:6699`, `[::1]:6699` or
`0.0.0.0:6699`."""

from __future__ import annotations

import ipaddress
import re

from flowengine import OptionError, OptionType, _

_ADDRESS = re.compile(r"(?:\[(?P<six>[^\]]*)\]|(?P<host>[^:\[\]/\s]*)):(?P<port>\d{1,5})")


class Address(OptionType):
    """A host and a port with a colon between; an IPv6 address stands in brackets (RFC 3986 section 3.2.2).
    Port 0 takes any free one.

    host: without brackets. port: 0 to 65535. loopback: whether only this machine reaches it.
    """

    def __init__(self, value: str) -> None:
        super().__init__(value)
        found = _ADDRESS.fullmatch(value)
        if found is None:
            raise OptionError(_malformed(value))
        self.host: str = found["six"] if found["six"] is not None else found["host"]
        self.port = int(found["port"])
        if not self.host:
            raise OptionError(
                _("no host: write 127.0.0.1:{port} for this machine only, 0.0.0.0:{port} for all").format(
                    port=self.port
                )
            )
        if self.port > 65535:
            raise OptionError(
                _("{port} is not a port: the highest is 65535").format(port=self.port), found.start("port")
            )
        address = _ip(self.host)
        if found["six"] is not None and not isinstance(address, ipaddress.IPv6Address):
            raise OptionError(_("'{host}' in brackets is not an IPv6 address").format(host=self.host))
        if address is None and re.fullmatch(r"[\d.]+", self.host):
            raise OptionError(_("'{host}' is not an IPv4 address").format(host=self.host))
        self.loopback = address.is_loopback if address is not None else self.host.lower() == "localhost"

    def at(self, port: int) -> str:
        """The address as text, with the port that was really taken."""
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _malformed(value: str) -> str:
    if "://" in value:
        return _("an address to listen on has no scheme: write 127.0.0.1:6699")
    if value.count(":") > 1 and "[" not in value:
        return _("an IPv6 address stands in brackets: write [::1]:6699")
    return _("not an address to listen on: write host:port, as in 127.0.0.1:6699")
