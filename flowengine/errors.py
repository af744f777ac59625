"""The exceptions of the public interface."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from flowengine.i18n import _


class OptionError(ValueError):
    """An option's text is not what it should be. `offset`: where in the text, in characters, if known."""

    def __init__(self, text: str, offset: int | None = None) -> None:
        super().__init__(text)
        self.offset = offset


class Reject(Exception):
    """This message will never go through: no further attempt, `on_error` has it.

    reason: one sentence for the person who reads the dead letter. status: what the far end said, if it did.
    """

    def __init__(self, reason: str, *, status: int | str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class Retry(Exception):
    """Not now: try again with backoff, or `after` so many seconds if the far end said so.

    slow: nobody but a person can mend it (wrong credentials, wrong address): seldom, and loud.
    """

    reason: str = ""
    after: float | None = None
    slow: bool = False
    status: int | str | None = None

    def __init__(
        self, reason: str, *, after: float | None = None, slow: bool = False, status: int | str | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after
        self.slow = slow
        self.status = status


class Missing(Reject):
    """A path or a name leads nowhere in this message. The sentence is made when somebody reads it: absence is common."""

    def __init__(self, path: str, reached: str, value: Any) -> None:
        Exception.__init__(self, path)
        self.path = path
        self.reached = reached
        self.status = None
        self._kind = type(value).__name__
        self._length = len(value) if type(value) is list else 0

    @property
    def reason(self) -> str:  # type: ignore[override]
        """Which path, and how far it leads."""
        found = {
            "dict": _("an object without it"),
            "list": _("a list of {n}").format(n=self._length),
            "str": _("a text"),
            "NoneType": _("nothing"),
            "bool": _("true or false"),
            "int": _("a number"),
            "float": _("a number"),
            "bytes": _("bytes (put json-parse before this node)"),
        }.get(self._kind, self._kind)
        reached = f"'{self.reached}'" if self.reached else _("the payload")
        return _("'{path}' is missing: {reached} is {found}").format(path=self.path, reached=reached, found=found)

    def __str__(self) -> str:
        return self.reason


class Stopping(Exception):
    """The flow takes nothing new: it is being stopped. Whoever sent the message must send it again."""


class Busy(Exception):
    """Too much is unsettled in memory, or nothing can be stored: whoever sent the message must send it again, later."""


class StartError(Exception):
    """A connection or a node cannot start; the text says why and what to do."""


FAULTS: Final = (Exception, SystemExit, asyncio.CancelledError)
"""What a node's code may raise without ending the engine: also `sys.exit()`, and a future that somebody else cancelled."""


def cancelled() -> bool:
    """Whether the current task was asked to end; else a CancelledError in it is some node's own and counts among the faults."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def reason_of(error: BaseException) -> str:
    """One line about an error for the person who reads the dead letter: the words of a Reject, else the type and its words."""
    try:
        text = str(error)
    except FAULTS:
        text = "?"
    return text if isinstance(error, Reject | Retry | StartError) else f"{type(error).__name__}: {text}"
