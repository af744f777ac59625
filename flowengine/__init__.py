"""flowengine: pipelines from devices that speak MQTT to backends that speak HTTP, configured by YAML.

This module is the whole public interface for nodes; `flowengine.testing` is the one for their tests.
"""

from typing import Annotated

from msgspec import Meta

from flowengine.condition import Condition
from flowengine.errors import Busy, Missing, OptionError, Reject, Retry, StartError, Stopping
from flowengine.i18n import N_, _
from flowengine.logs import shorten
from flowengine.message import Failure, Message, Outcome, Reply, Result
from flowengine.node import (
    Action,
    Connection,
    Context,
    Drop,
    Emit,
    Node,
    NodeOptions,
    Problem,
    Source,
    Step,
    StepResult,
)
from flowengine.options import Duration, OptionType, Path, Ref, Route, Routed, Secret
from flowengine.plugins import hookimpl
from flowengine.template import Reference, Template, Topic, Tree, Url, as_text, check_name

__version__ = "0.1.0"

__all__ = [
    "N_",
    "Action",
    "Annotated",
    "Busy",
    "Condition",
    "Connection",
    "Context",
    "Drop",
    "Duration",
    "Emit",
    "Failure",
    "Message",
    "Meta",
    "Missing",
    "Node",
    "NodeOptions",
    "OptionError",
    "OptionType",
    "Outcome",
    "Path",
    "Problem",
    "Ref",
    "Reference",
    "Reject",
    "Reply",
    "Result",
    "Retry",
    "Route",
    "Routed",
    "Secret",
    "Source",
    "StartError",
    "Step",
    "StepResult",
    "Stopping",
    "Template",
    "Topic",
    "Tree",
    "Url",
    "_",
    "as_text",
    "check_name",
    "hookimpl",
    "shorten",
]
