"""The general nodes: reading, sorting, shaping, copying and logging messages."""

from collections.abc import Iterable

from flowengine import Node, hookimpl
from flowengine_nodes.cmd_filter import CmdFilter
from flowengine_nodes.copy_to import CopyTo
from flowengine_nodes.field_map import FieldMap
from flowengine_nodes.filter import Filter
from flowengine_nodes.heartbeat_reply import HeartbeatReply
from flowengine_nodes.json_parse import JsonParse
from flowengine_nodes.keep import Keep
from flowengine_nodes.log import Log
from flowengine_nodes.run import Run
from flowengine_nodes.split import Split


@hookimpl
def flowengine_nodes() -> Iterable[type[Node]]:
    """The nodes of this pack."""
    return [CmdFilter, CopyTo, FieldMap, Filter, HeartbeatReply, JsonParse, Keep, Log, Run, Split]
