"""What a face terminal says: heartbeats, records of people it knows, records of strangers."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any, Literal, TypeVar, get_args

T = TypeVar("T")

Kind = Literal["heartbeat", "record", "stranger"]
KINDS: tuple[Kind, ...] = get_args(Kind)

DEFAULT_MIX: Mapping[Kind, float] = {"heartbeat": 7, "record": 2, "stranger": 1}
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"

_NAMES = (
    *("王伟", "李娜", "张敏", "刘洋", "陈静", "杨磊", "赵丽", "黄明", "周杰", "吴秀英", "欧阳娜", "诸葛亮"),
    *("Ana García", "John O'Neill", "Zoë Müller", "Олег Иванов", "阿依古丽·买买提", "山田太郎"),
)
_FACES = {"small": 5, "medium": 4, "large": 1}  # about 3, 20 and 60 KB, and how often each is sent
_RECORDS_IN_ONE_MESSAGE = {1: 8, 2: 1, 3: 1}
_PERSON_TYPES = {"1": 9, "2": 1}  # "1" is enrolled, anything else is not: a visitor
_VERIFIED_CODES = {0: 9, 1: 0.6, 4: 0.4}  # 0 is passed


@dataclass(frozen=True, slots=True)
class Report:
    """One message of a terminal, before it is encoded."""

    kind: Kind
    device: str
    payload: dict[str, Any]

    @property
    def records(self) -> list[dict[str, Any]]:
        """The verified records in it; empty for the other kinds."""
        return self.payload["data"] if self.kind == "record" else []


@cache
def face(size: str) -> str:
    """The drawn face `size` (small, medium, large) as terminals send it: a JPEG in base64."""
    return base64.b64encode(files(__package__).joinpath("faces", f"{size}.jpg").read_bytes()).decode("ascii")


class Terminal:
    """Makes the reports of one terminal.

    `seed` makes the reports repeatable but for their times, which come from `clock`. A terminal's times have
    whole seconds and strictly increase, running ahead of the clock where it reports faster than that; a
    person's number begins with the terminal's. So the pair `num` and `time` is of one record only, whatever
    other terminals send.
    """

    def __init__(
        self,
        device: str,
        *,
        mix: Mapping[Kind, float] = DEFAULT_MIX,
        seed: int | None = None,
        clock: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.device = device
        self._kinds = list(mix)
        self._weights = list(mix.values())
        self._random = random.Random(None if seed is None else f"{seed}/{device}")
        self._clock = clock
        self._last = datetime.min

    def report(self) -> Report:
        """The next report, of a kind drawn from the mix."""
        [kind] = self._random.choices(self._kinds, self._weights)
        makers = {"heartbeat": self._heartbeat, "record": self._verified, "stranger": self._stranger}
        return Report(kind, self.device, makers[kind]())

    def _heartbeat(self) -> dict[str, Any]:
        status = {"version": "3.2.14", "personCount": len(_NAMES)}
        return {"cmd": "heartU", "deviceNo": self.device, "time": self._time(), **status}

    def _verified(self) -> dict[str, Any]:
        entries = [self._record() for _ in range(self._draw(_RECORDS_IN_ONE_MESSAGE))]
        return {"cmd": "verifiedRecordU", "deviceNo": self.device, "data": entries}

    def _record(self) -> dict[str, Any]:
        person = self._random.randrange(len(_NAMES))
        return {
            "num": f"{self.device}{person:02d}",
            "name": _NAMES[person],
            "personType": self._draw(_PERSON_TYPES),
            "verifiedCode": self._draw(_VERIFIED_CODES),
            "time": self._time(),
            "deviceNo": self.device,
            **self._measured(82, 99),
        }

    def _stranger(self) -> dict[str, Any]:
        entry = {"time": self._time(), "deviceNo": self.device, **self._measured(5, 60)}
        return {"cmd": "strangerRecordU", "deviceNo": self.device, "data": [entry]}

    def _measured(self, least_alike: float, most_alike: float) -> dict[str, Any]:
        return {
            "similarity": round(self._random.uniform(least_alike, most_alike), 1),
            "temperature": round(self._random.gauss(36.5, 0.2), 1),
            "mask": self._random.random() < 0.1,
            "liveImageBase64": face(self._draw(_FACES)),
        }

    def _draw(self, weights: Mapping[T, float]) -> T:
        return self._random.choices(list(weights), list(weights.values()))[0]

    def _time(self) -> str:
        self._last = max(self._clock().replace(microsecond=0), self._last + timedelta(seconds=1))
        return self._last.strftime(TIME_FORMAT)
