"""Broker URLs, TLS files, and waiting."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowengine_mqtt.backoff import Backoff
from flowengine_mqtt.settings import Patience, SessionSettings, Tls


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "username", "password"),
    [
        ("mqtt://broker", "broker", 1883, False, None, None),
        ("mqtt://broker:1884/", "broker", 1884, False, None, None),
        ("mqtts://broker", "broker", 8883, True, None, None),
        ("mqtts://broker:1", "broker", 1, True, None, None),
        ("broker", "broker", 1883, False, None, None),
        ("127.0.0.1:1884", "127.0.0.1", 1884, False, None, None),
        ("mqtt://[::1]:1884", "::1", 1884, False, None, None),
        ("mqtt://gate:p%40ss%2F%25@broker", "broker", 1883, False, "gate", "p@ss/%"),
        ("mqtt://ga%3Ate@broker", "broker", 1883, False, "ga:te", None),
        ("gate:secret@broker:1884", "broker", 1884, False, "gate", "secret"),
        ("mqtt://gate:@broker", "broker", 1883, False, "gate", ""),
    ],
)
def test_a_broker_url_is_read(
    url: str, host: str, port: int, tls: bool, username: str | None, password: str | None
) -> None:
    settings = SessionSettings.from_url(url)
    assert (settings.host, settings.port, settings.tls is not None) == (host, port, tls)
    assert (settings.username, settings.password) == (username, password)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "needs a host"),
        ("mqtt://", "needs a host"),
        ("mqtt://:1883", "needs a host"),
        ("broker:notaport", "port from 1 to 65535"),
        ("broker:65536", "port from 1 to 65535"),
        ("broker:0", "port from 1 to 65535"),
        ("a broker", "needs a host"),
        ("http://broker", "begins with mqtt:// or mqtts://, not http://"),
        ("mqtt://broker/topic", "ends after the host and port"),
        ("mqtt://gate:se/cret@broker", "port from 1 to 65535"),
        ("mqtt://gate:secret#x@broker", ""),
        ("mqtt://:secret@broker", "no user name"),
        ("mqtt://[::1", "needs a host"),
    ],
)
def test_a_wrong_broker_url_is_refused_with_one_sentence_without_the_password(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"\.$") as caught:
        SessionSettings.from_url(url)
    assert words in str(caught.value)
    assert "cret" not in str(caught.value)


def test_the_password_is_not_shown() -> None:
    assert "secret" not in repr(SessionSettings.from_url("mqtt://gate:secret@broker"))


def test_a_key_without_a_certificate_is_refused() -> None:
    with pytest.raises(ValueError, match="key but no certificate"):
        Tls(key=Path("key.pem")).context()


def test_a_missing_authority_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        Tls(ca_file=tmp_path / "none.pem").context()


def test_backoff_grows_to_its_bound_with_full_jitter_and_begins_anew_after_a_stable_while() -> None:
    backoff = Backoff(Patience(first=1.0, longest=8.0, stable=10.0))
    bounds = [1.0, 2.0, 4.0, 8.0, 8.0]
    assert all(0 <= backoff.next() <= bound for bound in bounds)
    backoff.held(9.0)
    assert max(backoff.next() for _ in range(200)) > 4.0
    backoff.held(10.0)
    assert backoff.next() <= 1.0


def test_a_slow_wait_is_within_its_range() -> None:
    backoff = Backoff(Patience(slow=(30.0, 60.0)))
    assert all(30.0 <= backoff.slow() <= 60.0 for _ in range(100))
