"""Discovery of nodes with pluggy: packages by their entry point in group `flowengine`, and single files beside the flows folder.

A plugin that cannot be imported is kept as broken, with its error: a warning, and an error only where a flow uses what it
would have given.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from inspect import isclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy
from msgspec import inspect

from flowengine.i18n import _
from flowengine.node import Action, Connection, Node, Source, Step

if TYPE_CHECKING:
    import click

GROUP = "flowengine"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)
_BASES = (Node, Step, Action, Source, Connection)


class Hooks:
    """The hooks a plugin may implement; none is called per message."""

    @hookspec
    def flowengine_nodes(self) -> Iterable[type[Node]]:  # type: ignore[empty-body]
        """Return the node classes this plugin adds."""

    @hookspec
    def flowengine_connections(self) -> Iterable[type[Connection]]:  # type: ignore[empty-body]
        """Return the connection classes this plugin adds."""

    @hookspec
    def flowengine_cli(self, group: click.Group) -> None:
        """Add commands to the `flowengine` command."""


@dataclass
class Plugin:
    """One plugin, whole or broken. origin: the package with its version, or the file."""

    name: str
    origin: str
    error: str = ""
    nodes: list[str] = field(default_factory=list)
    connections: list[str] = field(default_factory=list)
    source: str = ""


@dataclass
class Registry:
    """The node and connection types that are there, and the plugins they come from."""

    nodes: dict[str, type[Node]] = field(default_factory=dict)
    connections: dict[str, type[Connection]] = field(default_factory=dict)
    plugins: list[Plugin] = field(default_factory=list)
    manager: pluggy.PluginManager = field(default_factory=lambda: pluggy.PluginManager(GROUP))

    @property
    def broken(self) -> list[Plugin]:
        """The plugins that could not be loaded."""
        return [p for p in self.plugins if p.error]

    def broken_for(self, node_type: str) -> Plugin | None:
        """The broken plugin that would probably have given `node_type`: its text names it."""
        quoted = (f'"{node_type}"', f"'{node_type}'")
        wanted = node_type.replace("-", "_")
        for plugin in self.broken:
            if any(q in plugin.source for q in quoted) or Path(plugin.origin).stem == wanted:
                return plugin
        return None

    def add(self, module: object, plugin: Plugin) -> None:
        """Register a plugin's module and take what its hooks return; a hook that raises makes the plugin broken."""
        self.plugins.append(plugin)
        try:
            self.manager.register(module, plugin.name)
            self._take(module, plugin)
        except Exception as error:
            plugin.error = _reason(error)
            if self.manager.is_registered(module):
                self.manager.unregister(module)

    def _take(self, module: object, plugin: Plugin) -> None:
        found_nodes: list[type[Node]] = list(_call(module, "flowengine_nodes"))
        found_connections: list[type[Connection]] = list(_call(module, "flowengine_connections"))
        if isinstance(module, ModuleType) and not hasattr(module, "flowengine_nodes"):
            found_nodes += [c for c in _classes(module) if issubclass(c, Node)]
        if isinstance(module, ModuleType) and not hasattr(module, "flowengine_connections"):
            found_connections += [c for c in _classes(module) if issubclass(c, Connection)]
        _check(found_nodes, Node, self.nodes)
        _check(found_connections, Connection, self.connections)
        for cls in (*found_nodes, *found_connections):
            cls.origin = plugin.origin
        self.nodes.update((cls.type, cls) for cls in found_nodes)
        self.connections.update((cls.type, cls) for cls in found_connections)
        plugin.nodes = [c.type for c in found_nodes]
        plugin.connections = [c.type for c in found_connections]


def _check(classes: Iterable[Any], base: type[Any], known: Mapping[str, type[Any]]) -> None:
    """Raise for a class that is none of its kind, has no type or a taken one, or options that msgspec cannot tell."""
    for cls in classes:
        if base not in getattr(cls, "__mro__", ()):
            raise TypeError(_("{found} is no class derived from {base}").format(found=cls, base=base.__name__))
        if not isinstance(getattr(cls, "type", None), str):
            raise TypeError(_("{name} has no 'type'").format(name=cls.__name__))
        other = known.get(cls.type)
        if other is not None and other is not cls:
            text = _("the type '{type}' is already given by {other}")
            raise ValueError(text.format(type=cls.type, other=other.origin))
        inspect.type_info(cls.Options)


def _call(module: object, hook: str) -> Iterable[Any]:
    function = getattr(module, hook, None)
    return function() if function is not None else ()


def _classes(module: ModuleType) -> list[type[Any]]:
    """The node classes that a file defines itself; a local plugin needs no hook."""
    return [
        cls
        for cls in vars(module).values()
        if isclass(cls) and issubclass(cls, _BASES) and cls.__module__ == module.__name__ and "type" in vars(cls)
    ]


def _reason(error: BaseException) -> str:
    """The error and the line it comes from, for the person who mends the plugin."""
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename and f.filename != __file__
    ]
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}:{error.lineno}: {type(error).__name__}: {error.msg}"
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: " if frames else ""
    return f"{where}{type(error).__name__}: {error}"


def load(folders: Iterable[Path] = ()) -> Registry:
    """Find every plugin: installed packages first, then each `*.py` file of `folders`, loaded by path; `sys.path` stays."""
    registry = Registry()
    registry.manager.add_hookspecs(Hooks)
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        _load_package(registry, point)
    for folder in folders:
        for file in sorted(folder.glob("*.py")):
            if not file.name.startswith("_"):
                _load_file(registry, file)
    return registry


def _load_package(registry: Registry, point: EntryPoint) -> None:
    dist = point.dist
    plugin = Plugin(point.name, f"{dist.name} {dist.version}" if dist else point.value)
    if registry.manager.has_plugin(plugin.name):
        return
    try:
        module = point.load()
    except (Exception, SystemExit) as error:
        plugin.error = _reason(error)
        plugin.source = _package_text(point.module)
        registry.plugins.append(plugin)
        return
    registry.add(module, plugin)


def _package_text(module: str) -> str:
    """All Python text of a package that cannot be imported, to find the types in it that it would have given."""
    try:
        spec: ModuleSpec | None = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        spec = None
    folders = spec.submodule_search_locations if spec is not None else None
    files = [f for folder in folders or () for f in sorted(Path(folder).rglob("*.py"))]
    if spec is not None and spec.origin is not None and not files:
        files = [Path(spec.origin)]
    return "\n".join(f.read_text(encoding="utf-8", errors="replace") for f in files if f.is_file())


def _load_file(registry: Registry, file: Path) -> None:
    plugin = Plugin(file.stem, str(file))
    name = f"flowengine_local.{file.stem}"
    try:
        plugin.source = file.read_text(encoding="utf-8", errors="replace")
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise ImportError(_("not a Python file"))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        plugin.error = _reason(error)
        registry.plugins.append(plugin)
        return
    registry.add(module, plugin)
