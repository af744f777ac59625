import pytest

from flowengine import OptionError
from flowengine_http.address import Address


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:6699", "127.0.0.1", 6699, True),
        ("127.8.8.8:1", "127.8.8.8", 1, True),
        ("localhost:0", "localhost", 0, True),
        ("[::1]:6699", "::1", 6699, True),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        ("[::]:80", "::", 80, False),
        ("192.168.1.7:65535", "192.168.1.7", 65535, False),
        ("gate.example:6699", "gate.example", 6699, False),
        ("localhost.example:6699", "localhost.example", 6699, False),
    ],
)
def test_an_address_is_a_host_a_port_and_whether_only_this_machine_reaches_it(
    text: str, host: str, port: int, loopback: bool
) -> None:
    address = Address(text)
    assert (address.host, address.port, address.loopback) == (host, port, loopback)
    assert address.at(port) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("6699", "write host:port"),
        ("127.0.0.1", "write host:port"),
        ("127.0.0.1:http", "write host:port"),
        (":6699", "write 127.0.0.1:6699"),
        ("::1:6699", "in brackets"),
        ("http://127.0.0.1:6699", "no scheme"),
        ("127.0.0.1:66999", "the highest is 65535"),
        ("127.0.1:6699", "not an IPv4 address"),
        ("[127.0.0.1]:6699", "not an IPv6 address"),
        ("[]:6699", "no host"),
        ("127.0.0.1:6699/path", "write host:port"),
    ],
)
def test_what_is_no_address_says_what_to_write(text: str, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        Address(text)
