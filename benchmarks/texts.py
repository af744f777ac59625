"""What the report says, in English and Chinese."""

from __future__ import annotations

from typing import Literal

Language = Literal["en", "zh-CN"]
LANGUAGES: tuple[Language, ...] = ("en", "zh-CN")
Text = tuple[str, str]
"""In English, in Chinese"""


def said(text: Text, language: Language) -> str:
    """The text in this language."""
    return text[LANGUAGES.index(language)]


SYSTEMS: dict[str, tuple[Text, Text]] = {
    "flowengine": (
        ("flowengine", "flowengine"),
        (
            "`flowengine run` as shipped: acknowledges a record once the backend or its disk has it, keeps the "
            "order of each device, tries again, answers a command once the broker has it.",
            "`flowengine run`,出厂设置:后端或磁盘收下记录后才确认;保持每台设备的顺序;失败会重试;"
            "代理收下指令后才应答 HTTP。",
        ),
    ),
    "script": (
        ("hand-written script", "手写脚本"),
        (
            "benchmarks/opponents/limit: what one writes for speed on flowengine's own packages, with no engine: paho "
            "(buffered, MQTT 5), ClientSession, orjson, uvloop. Acknowledges once the backend has answered, keeps the "
            "order of each device, answers a command once the broker has it. Does not store or try again.",
            "benchmarks/opponents/limit:用 flowengine 所用的同一批软件包、为速度手写、没有引擎:paho(带缓冲,MQTT 5)、"
            "ClientSession、orjson、uvloop。后端应答后才确认;保持每台设备的顺序;代理收下指令后才应答 HTTP。不落盘,不重试。",
        ),
    ),
    "limit": (
        ("the same, tuned", "同上,极限调优"),
        (
            "The same script with TUNED=1: it decodes only the fields that are passed on, copies them as bytes, and "
            "speaks MQTT 3.1.1, which costs paho less.",
            "同一脚本,TUNED=1:只解码要转发的字段,按原字节复制;使用 MQTT 3.1.1,paho 的开销更小。",
        ),
    ),
    "node-red": (
        ("Node-RED 4", "Node-RED 4"),
        (
            "The equal flow, without its editor. Acknowledges a message when it gets it, so what it holds is lost "
            "with it; posts without regard to order; answers a command before it is sent; does not try again.",
            "等价的流程,不带编辑器。收到消息就确认,因此进程退出时手中的消息会丢失;发送不保证顺序;"
            "指令尚未发出就应答;不重试。",
        ),
    ),
    "seed": (
        ("the script replaced", "被替换的脚本"),
        (
            "tests/seed/app.py as its author wrote it. Serves one device, so it gets everything from one; "
            "subscribes at QoS 0 without a session, so what comes while it is away is lost; does not try again.",
            "tests/seed/app.py,保持作者原样。只服务一台设备,因此全部消息都来自一台;以 QoS 0 订阅且没有会话,"
            "离线期间的消息会丢失;不重试。",
        ),
    ),
    "mqttwarn": (
        ("mqttwarn", "mqttwarn"),
        (
            "Passes records on and does nothing else of the work: no heartbeats, no commands. Acknowledges a "
            "message when it gets it; posts without regard to order; does not try again.",
            "只转发记录,不处理心跳和指令。收到消息就确认;发送不保证顺序;不重试。",
        ),
    ),
}
"""By name: the title, and what it does"""

TITLE: Text = ("flowengine beside what people use instead", "flowengine 与其他方案的对比")
MADE: Text = (
    "Written by `python -m benchmarks report` from what `make bench` measured; how is in [README.md](README.md). "
    "[中文](RESULTS.zh-CN.md)",
    "由 `python -m benchmarks report` 根据 `make bench` 的测量结果生成,测量方法见 [README.md](README.md)。"
    "[English](RESULTS.md)",
)
READING: Text = (
    "Machines change their speed while one measures, so the systems take turns within a round, and the ratios are "
    "of figures from one round. Each figure is the median over the rounds, and in brackets stands between what the "
    "middle half of the rounds lies. "
    '"flowengine ÷ it" above 1 is good for a rate, below 1 for CPU, latency and memory.',
    "机器的速度在测量过程中会变化,因此各系统在同一轮中轮流运行,比值取自同一轮。每个数字是各轮的中位数,"
    "括号内是中间一半轮次所在的区间。“flowengine ÷ 它”:速率大于 1 为好,CPU、延迟和内存小于 1 为好。",
)
MACHINE: Text = ("Machine", "机器")
VERSIONS: Text = ("Versions", "版本")
SUMMARY: Text = ("At a glance", "一览")
WORK: Text = ("work", "工作")
SYSTEM: Text = ("system", "系统")
DOES: Text = ("what it does", "做了什么")
RATE: Text = ("per second", "每秒")
RATIO: Text = ("flowengine ÷ it", "flowengine ÷ 它")
CPU: Text = ("CPU, µs a message", "每条消息 CPU(微秒)")
CPU_RATIO: Text = ("CPU, flowengine ÷ it", "CPU,flowengine ÷ 它")
P50: Text = ("p50, ms", "p50(毫秒)")
P99: Text = ("p99, ms", "p99(毫秒)")
MEMORY: Text = ("memory, MB", "内存(MB)")
CLEAR: Text = ("seconds until clear", "清空用时(秒)")
START: Text = ("seconds", "秒")
LOST: Text = ("lost", "丢失")
REPEATED: Text = ("repeated", "重复")
SWAPPED: Text = ("out of order", "乱序")
ROUNDS: Text = ("rounds", "轮数")
WINDOW: dict[str, Text] = {
    "default": (
        "Mosquitto as it comes (20 messages in flight to a client)",
        "Mosquitto 默认设置(每个客户端在途 20 条)",
    ),
    "wide": (
        "Mosquitto with a wide window (in flight and queued without bound)",
        "Mosquitto 宽窗口(在途和排队不限)",
    ),
}
ALONE: Text = ("What the rig can do without a system", "不接任何系统时测量装置的上限")
ALONE_READING: Text = (
    "Generator and Mosquitto with a program that only acknowledges and answers, and the sink with clients that send the next "
    "request as soon as they are answered. On a machine of two cores the rig shares one, and the system has the other: a rate is "
    "the system's own where its CPU a message times its rate is close to a whole core. Where the rig's comes to a whole core, "
    "too, as with records of 60 KB, a faster system could not show it.",
    "发生器和 Mosquitto 面对一个只确认和应答的程序；后端面对得到应答就立即发送下一个请求的客户端。在两核机器上，装置共用一个核，"
    "系统独占另一个：每条消息的 CPU 乘以速率接近一整个核时，速率就是系统自己的上限。装置自身也用满一个核时（例如 60 KB 的记录），"
    "更快的系统也显示不出来。",
)
PART: Text = ("part", "部分")
PARTS: dict[str, Text] = {"broker": ("generator and Mosquitto", "发生器和 Mosquitto"), "sink": ("sink", "后端")}
NOT_MADE: Text = ("Not made for this work: {names}.", "不具备此项能力:{names}。")
FAILED: Text = ("Failed: {name}: {error}", "失败:{name}:{error}")
LATENCY: dict[str, Text] = {
    "posts": (
        "Latency: from sending to the arrival at the backend, with as many under way as the generator allows.",
        "延迟:从发送到抵达后端,在途数量为发生器允许的上限。",
    ),
    "replies": ("Latency: from sending to the reply.", "延迟:从发送到收到回复。"),
    "drain": (
        "Rate: from the first arrival at the backend to the last. Memory: with half of the backlog waiting.",
        "速率:从首条抵达后端到末条抵达。内存:还剩一半积压时。",
    ),
}
MORE: Text = ("more is better", "越大越好")
LESS: Text = ("less is better", "越小越好")
PLOT_RATE: Text = ("Messages per second", "每秒消息数")
PLOT_CPU: Text = ("CPU microseconds a message", "每条消息的 CPU 微秒数")
PLOT_MEMORY: Text = ("Memory after records of 1.5 KB, MB", "处理 1.5 KB 记录后的内存(MB)")
PLOT_START: Text = ("Seconds from start to the first work done", "从启动到完成第一项工作(秒)")
PLOT_P99: Text = ("Heartbeats at 200/s: p99 of the reply, ms", "每秒 200 个心跳:回复的 p99(毫秒)")
PLOT_OTHER: Text = ("Memory, start and latency", "内存、启动与延迟")
