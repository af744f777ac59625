"""Why a message could not be published."""

from __future__ import annotations

from flowengine import Reject, Retry


class Offline(Retry):
    """There is no connection to the broker, or it went down before the broker confirmed: publish again."""


class PublishFailed(Retry):
    """The broker answered no for now, or until a person mends it (`slow`); the text says why."""


class PublishRefused(Reject):
    """The message can never be published as it is; the text says why."""


class BrokerError(Exception):
    """The embedded broker cannot be started; the text says what to do."""
