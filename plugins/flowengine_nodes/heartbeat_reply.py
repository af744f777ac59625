"""The node `heartbeat-reply`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from time import time as now
from typing import Annotated

from flowengine import Message, Meta, NodeOptions, Problem, Step, _
from flowengine_nodes._timezone import TimeZone

# What Python's strftime and C99's know on every platform (`%-d` and `%s` are of some only, `%i` of none).
_DIRECTIVE = re.compile(r"%([aAwdbBmyYHIMSfpzZjUWcxXGuVFTDRe%])|%.?")


class HeartbeatReply(Step):
    """Makes the answer to a heartbeat: an object with `cmd` and the time.

    The payload becomes `{"cmd": "heartD", "time": "2026-03-02 08:00:01"}`, in this order, whatever it was.
    The time is now, when the answer is made, not when the heartbeat came; in the time zone of the machine
    unless `timezone` names another. Windows has no time zone database of its own: there the Python package
    `tzdata`, which is installed with flowengine, is used.

    Guarantees:
        One answer for each heartbeat; it fails on no payload. Keeps order, id and metadata, so the next node
        knows the `device` to answer.

    Example:
        - heartbeat-reply: {cmd: heartD, time_format: "%Y-%m-%d %H:%M:%S", timezone: Asia/Shanghai}
        - log: "to {device}: {payload}"
    """

    type = "heartbeat-reply"

    class Options(NodeOptions):
        cmd: Annotated[str, Meta(description="What the answer's field 'cmd' says", examples=["heartD"])] = "heartD"
        time_format: Annotated[
            str,
            Meta(
                description="How the time is written, in the directives of strftime",
                examples=["%Y-%m-%d %H:%M:%S"],
            ),
        ] = "%Y-%m-%d %H:%M:%S"
        timezone: Annotated[
            TimeZone | None,
            Meta(
                description="The IANA name of the time zone; without it the machine's",
                examples=["Asia/Shanghai", "UTC"],
            ),
        ] = None

    def setup(self) -> None:
        self._zone = self.options.timezone.zone if self.options.timezone is not None else None
        self._second = -1
        self._answer: dict[str, str] = {}
        self._within_second = "%f" in self.options.time_format

    def check(self) -> Iterable[Problem]:
        for found in _DIRECTIVE.finditer(self.options.time_format):
            if found[1] is None:
                text = _("'{directive}' is no part of a time format: write it as %Y-%m-%d %H:%M:%S")
                yield Problem("time_format", text.format(directive=found[0]))

    def process(self, msg: Message) -> Message:
        moment = now()
        # Heartbeats of one second share one answer: no node changes a payload, and writing the time is what
        # costs here.
        if int(moment) != self._second or self._within_second:
            self._second = int(moment)
            self._answer = {"cmd": self.options.cmd, "time": self._written(moment)}
        return msg.with_payload(self._answer)

    def _written(self, moment: float) -> str:
        return datetime.fromtimestamp(moment, self._zone).astimezone(self._zone).strftime(self.options.time_format)
