"""Plugins are found as packages and as single files, and a broken one is kept with its reason."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from flowengine import plugins
from flowengine.plugins import Registry

NODE = "from flowengine import Step\nclass {name}(Step):\n    type = {type!r}\n    def process(self, msg):\n        return msg\n"


def loaded(folder: Path, **files: str) -> Registry:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return plugins.load([folder])


def reason(registry: Registry) -> str:
    (plugin,) = registry.broken
    return plugin.error


def test_the_packs_of_this_project_come_in_by_the_entry_points() -> None:
    registry = plugins.load()
    assert {"mqtt-in", "http-post", "cmd-filter"} <= registry.nodes.keys()
    assert {"mqtt", "http-listener"} <= registry.connections.keys()
    assert registry.broken == []
    assert registry.nodes["split"].origin.startswith("flowengine ")


def test_a_file_is_a_plugin_without_a_hook_and_without_a_change_to_the_search_path(tmp_path: Path) -> None:
    before = list(sys.path)
    registry = loaded(tmp_path, own=NODE.format(name="Own", type="own"), _hidden="1 / 0\n")
    assert registry.nodes["own"].origin == str(tmp_path / "own.py")
    assert registry.broken == []
    assert sys.path == before


def test_what_a_file_only_imports_is_not_its_node(tmp_path: Path) -> None:
    registry = loaded(tmp_path, own="from flowengine import Step\nfrom flowengine_nodes.split import Split\n")
    assert next(p for p in registry.plugins if p.name == "own").nodes == []


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("1 / 0\n", "own.py:1: ZeroDivisionError: division by zero"),
        ("def f(:\n", "own.py:1: SyntaxError: invalid syntax"),
        ("import sys\nsys.exit(3)\n", "own.py:2: SystemExit: 3"),
        (NODE.format(name="Own", type="split"), "the type 'split' is already given by flowengine"),
        ("def flowengine_nodes():\n    return [1]\n", "1 is no class derived from Node"),
        ("def flowengine_nodes():\n    raise OSError('no disk')\n", "own.py:2: OSError: no disk"),
        (
            "from flowengine import Step\nclass Own(Step):\n    pass\ndef flowengine_nodes():\n    return [Own]\n",
            "Own has no 'type'",
        ),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_kept_with_its_reason_and_line(tmp_path: Path, text: str, error: str) -> None:
    registry = loaded(tmp_path, own=text, good=NODE.format(name="Good", type="good"))
    assert error in reason(registry)
    assert "good" in registry.nodes
    assert registry.nodes["split"].origin.startswith("flowengine ")


def test_nothing_of_a_broken_plugin_is_kept(tmp_path: Path) -> None:
    text = NODE.format(name="Own", type="own") + "class Taken(Step):\n    type = 'split'\n"
    registry = loaded(tmp_path, own=text)
    assert "own" not in registry.nodes
    assert registry.broken_for("own") is registry.broken[0]
    assert registry.broken_for("other") is None


def test_a_broken_package_is_known_by_the_types_in_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "plate_pack"
    package.mkdir()
    (package / "__init__.py").write_text("import no_such_module\n")
    (package / "reader.py").write_text(NODE.format(name="Reader", type="plate-reader"))
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("plates", "plate_pack", "flowengine")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    registry = plugins.load()
    assert reason(registry) == "__init__.py:1: ModuleNotFoundError: No module named 'no_such_module'"
    assert registry.broken_for("plate-reader") is registry.broken[0]
