"""What the report says, in English and Chinese."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.texts import Text

TITLE: Text = ("How the cost of a message grows", "一条消息的开销如何增长")
MADE: Text = (
    "Written by `python -m benchmarks.growth report` from what `make bench-growth` measured. [中文](GROWTH.zh-CN.md)",
    "由 `python -m benchmarks.growth report` 根据 `make bench-growth` 的测量结果生成。[English](GROWTH.md)",
)
READING: Text = (
    "CPU time of the flowengine process for each record of 1.5 KB, {rate} records a second, from the broker to the backend, with "
    "the shipped settings. Each point was measured beside an engine with the first value of its curve, in turn with it, and the "
    "ratio of the two is what counts: medians of {rounds} rounds, with the spread of the rounds in brackets. The band in "
    "the plots is the target.",
    "flowengine 进程处理每条 1.5 KB 记录所用的 CPU 时间:每秒 {rate} 条,从代理到后端,随附的默认设置。测量每个点时,旁边都有一个"
    "处于曲线第一个取值的引擎,两者轮流加载,取其比值:{rounds} 轮的中位数,括号内是各轮的范围。图中的色带为目标。",
)
CPU: Text = ("CPU, µs a message", "每条消息 CPU(微秒)")
RATIO: Text = ("ratio", "比值")
IDLE: Text = ("idle, ms of CPU a second", "空闲时每秒 CPU(毫秒)")
WITHIN: Text = ("Within the target of {within:g} times.", "在 {within:g} 倍的目标之内。")
BEYOND: Text = ("Beyond the target of {within:g} times.", "超出 {within:g} 倍的目标。")
GROWING: Text = (
    "It may grow in proportion: {slope:.2f} µs for each one more.",
    "允许成比例增长:每多一个 {slope:.2f} 微秒。",
)
FAILED: Text = ("Failed at {value}: {reason}", "{value} 处失败:{reason}")
AXES: Mapping[str, tuple[Text, Text]] = {
    "devices": (("Devices", "设备数"), ("devices", "设备")),
    "flows": (("Flows, a connection each", "流程数,各用一个连接"), ("flows", "流程")),
    "flows on one connection": (("Flows on one connection", "流程数,共用一个连接"), ("flows", "流程")),
    "steps": (("Steps in a chain", "一条链中的步骤数"), ("steps", "步骤")),
    "copies": (("Copies of each message", "每条消息的副本数"), ("copies", "副本")),
    "stored for others": (("Stored for another backend", "为另一后端存储的消息数"), ("rows", "行")),
    "drained": (("Stored messages, delivered", "送达已存储的消息"), ("rows at the start", "开始时的行数")),
}
"""By axis: its title, and what is counted along it."""
