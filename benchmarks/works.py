"""The works that are measured: what is sent, to whom, and what a system must be able to do for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.broker import Window
from benchmarks.systems.system import Ability, Delivery

Tier = Literal["core", "rest"]
Way = Literal["start", "load", "commands", "backlog", "outbox"]

_MIX = ("heartbeat",) * 14 + ("record",) * 5 + ("stranger",)
BACKLOG = 50_000


@dataclass(frozen=True, slots=True)
class Work:
    """One work.

    title: in English and Chinese. way: how it is measured, see measure.py. plan: the fields of the generator's Plan. beside: of a
    second generator that runs meanwhile. delay_ms: how long the backend takes.
    window: the only setting of the broker with which it makes sense.
    """

    name: str
    title: tuple[str, str]
    tier: Tier = "core"
    way: Way = "load"
    needs: frozenset[Ability] = frozenset({"records"})
    plan: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, Any] | None = None
    delay_ms: int = 0
    delivery: Delivery = "ordered"
    window: Window | None = None


_HEARTBEATS: frozenset[Ability] = frozenset({"heartbeats"})
_COMMANDS: frozenset[Ability] = frozenset({"commands"})
_MANY_PER_S = {"warm_up": 0.5, "seconds": 1.0}

_ALL = (
    Work("start", ("Start to first work done", "从启动到完成第一项工作"), way="start", needs=frozenset()),
    Work("records-1.5k", ("Records of 1.5 KB, 50 devices", "1.5 KB 记录,50 台设备"), plan=_MANY_PER_S),
    Work(
        "records-60k",
        ("Records of 60 KB, 50 devices", "60 KB 记录,50 台设备"),
        plan={**_MANY_PER_S, "size": 60_000, "window": 128},
    ),
    Work("one-device", ("Records of 1.5 KB, one device", "1.5 KB 记录,1 台设备"), plan={**_MANY_PER_S, "devices": 1}),
    Work(
        "heartbeats",
        ("Heartbeats flat out", "心跳全速"),
        needs=_HEARTBEATS,
        plan={**_MANY_PER_S, "kinds": ("heartbeat",)},
    ),
    Work(
        "heartbeats-200",
        ("Heartbeats at 200/s", "心跳每秒 200 个"),
        needs=_HEARTBEATS,
        plan={"kinds": ("heartbeat",), "rate": 200, "warm_up": 0.3, "seconds": 1.5},
    ),
    Work(
        "commands",
        ("Commands by HTTP, 16 clients", "HTTP 指令,16 个客户端"),
        way="commands",
        needs=_COMMANDS,
        plan=_MANY_PER_S,
    ),
    Work(
        "records-300k",
        ("Records of 300 KB, 50 devices", "300 KB 记录,50 台设备"),
        tier="rest",
        plan={**_MANY_PER_S, "size": 300_000, "window": 32},
    ),
    Work(
        "one-device-unordered",
        ("Records of 1.5 KB, one device, order given up", "1.5 KB 记录,1 台设备,放弃顺序"),
        tier="rest",
        plan={**_MANY_PER_S, "devices": 1},
        delivery="unordered",
    ),
    Work(
        "flood",
        ("Records of 1.5 KB, 50 devices, 1,000 under way", "1.5 KB 记录,50 台设备,同时在途 1000 条"),
        tier="rest",
        plan={**_MANY_PER_S, "window": 1000},
        window="wide",
    ),
    Work(
        "batches",
        ("Records of 1.5 KB, 50 devices, up to 50 in one POST", "1.5 KB 记录,50 台设备,最多 50 条一次 POST"),
        tier="rest",
        needs=frozenset({"records", "batches"}),
        plan=_MANY_PER_S,
        delivery="batches",
    ),
    Work(
        "backend-1ms",
        ("Records of 1.5 KB, a backend of 1 ms", "1.5 KB 记录,后端 1 毫秒"),
        tier="rest",
        plan=_MANY_PER_S,
        delay_ms=1,
    ),
    Work(
        "backend-30ms",
        ("Records of 1.5 KB, a backend of 30 ms", "1.5 KB 记录,后端 30 毫秒"),
        tier="rest",
        plan={"warm_up": 1.0, "seconds": 2.0, "window": 200},
        delay_ms=30,
    ),
    Work(
        "backend-200ms",
        ("Records of 1.5 KB, a backend of 200 ms", "1.5 KB 记录,后端 200 毫秒"),
        tier="rest",
        plan={"warm_up": 2.0, "seconds": 4.0, "window": 100},
        delay_ms=200,
    ),
    Work(
        "heartbeats-200-beside-records",
        ("Heartbeats at 200/s while records run flat out", "心跳每秒 200 个,同时记录全速"),
        tier="rest",
        needs=_HEARTBEATS | {"records"},
        plan={"kinds": ("heartbeat",), "rate": 200, "warm_up": 0.6, "seconds": 2.0},
        beside={"warm_up": 0.1, "seconds": 3.0},
    ),
    Work(
        "mix",
        (
            "70 % heartbeats, 25 % records of 1.5 KB, 5 % strangers, for a minute",
            "70% 心跳、25% 记录(1.5 KB)、5% 陌生人,持续一分钟",
        ),
        tier="rest",
        needs=_HEARTBEATS | {"records"},
        plan={"kinds": _MIX, "warm_up": 1.0, "seconds": 60.0},
    ),
    Work(
        "backlog",
        (
            f"{BACKLOG:,} records that waited at the broker while the system was down",
            f"系统停机期间在代理处积压的 {BACKLOG:,} 条记录",
        ),
        tier="rest",
        way="backlog",
        needs=frozenset({"records", "many devices", "session"}),
        window="wide",
    ),
    Work(
        "outbox",
        (
            f"{BACKLOG:,} records that came while the backend was down",
            f"后端停机期间到达的 {BACKLOG:,} 条记录",
        ),
        tier="rest",
        way="outbox",
        needs=frozenset({"records", "many devices", "outbox"}),
        window="wide",
    ),
)
WORKS = {work.name: work for work in _ALL}
"""By name, in the order in which they are measured"""
