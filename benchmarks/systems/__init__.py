"""The systems under test, one module each."""

from __future__ import annotations

from benchmarks.systems.flowengine import FlowEngine
from benchmarks.systems.limit_script import LimitScript, Script
from benchmarks.systems.mqttwarn import MqttWarn
from benchmarks.systems.nodered import NodeRed
from benchmarks.systems.seed_script import SeedScript
from benchmarks.systems.system import System

SYSTEMS: dict[str, type[System]] = {
    system.name: system for system in (FlowEngine, Script, LimitScript, NodeRed, SeedScript, MqttWarn)
}
"""By name, in the order of tables"""
