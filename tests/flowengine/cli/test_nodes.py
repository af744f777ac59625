"""`flowengine nodes` and `flowengine plugins`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flowengine import plugins
from flowengine.flowfile import project
from flowengine.flowfile.describe import describe
from flowengine.plugins import Registry
from tests.flowengine.cli.commands import flowengine

LOCAL = '''
from flowengine import Message, Step


class Upper(Step):
    """Makes a text upper case.

    Guarantees:
        Keeps order.

    Example:
        - upper
    """

    type = "upper"

    def process(self, msg: Message) -> Message:
        return msg.with_payload(msg.payload.upper())
'''


@pytest.fixture(scope="module")
def registry() -> Registry:
    return plugins.load()


def every_type() -> list[str]:
    """The types of all installed nodes and connections."""
    found = plugins.load()
    return sorted([*found.nodes, *found.connections])


def test_the_list_names_every_node_with_what_it_does(tmp_path: Path) -> None:
    done = flowengine("nodes", cwd=tmp_path)
    assert done.returncode == 0
    for node_type in every_type():
        assert f"\n  {node_type} " in done.stdout


def test_one_node_is_shown_with_options_guarantees_example_and_origin(tmp_path: Path) -> None:
    done = flowengine("nodes", "field-map", cwd=tmp_path)
    for word in ("(a step, flowengine 0.1.0)", "fields.NAME.cast (", "Guarantees", "- field-map:"):
        assert word in done.stdout


def test_json_has_the_same(tmp_path: Path) -> None:
    shown = json.loads(flowengine("nodes", "split", "--json", cwd=tmp_path).stdout)
    assert (shown["type"], shown["kind"], shown["options"][0]["name"]) == ("split", "step", "path")
    listed = json.loads(flowengine("nodes", "--json", cwd=tmp_path).stdout)
    assert {"mqtt-in", "http-post", "mqtt"} <= {entry["type"] for entry in listed}


def test_an_unknown_type_gets_a_suggestion(tmp_path: Path) -> None:
    done = flowengine("nodes", "htp-post", cwd=tmp_path)
    assert done.returncode == 1
    assert "there is no node 'htp-post', did you mean 'http-post'?" in done.stderr


def test_local_plugins_are_found_beside_the_flows(tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "upper.py").write_text(LOCAL, encoding="utf-8")
    done = flowengine("nodes", "upper", cwd=tmp_path)
    assert f"upper (a step, {Path('plugins/upper.py')})" in done.stdout
    listed = json.loads(flowengine("plugins", "--json", cwd=tmp_path).stdout)
    assert {"name": "upper", "nodes": ["upper"], "error": ""}.items() <= listed[-1].items()


def test_a_folder_named_by_plugins_is_found_too(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "upper.py").write_text(LOCAL, encoding="utf-8")
    assert "upper" in flowengine("nodes", "--plugins", "mine", cwd=tmp_path).stdout


def test_plugins_says_what_is_broken_and_why(tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "bad.py").write_text("x = (\n", encoding="utf-8")
    done = flowengine("plugins", cwd=tmp_path)
    assert done.returncode == 0
    assert "broken" in done.stdout
    assert "bad.py:1: SyntaxError" in done.stdout


def test_a_plugin_whose_commands_fail_leaves_the_others_working(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    text = "from flowengine import hookimpl\n\n\n@hookimpl\ndef flowengine_cli(group):\n    raise RuntimeError('no')\n"
    (tmp_path / "mine" / "loud.py").write_text(text, encoding="utf-8")
    done = flowengine("nodes", "split", "--plugins", "mine", cwd=tmp_path)
    assert done.returncode == 0
    assert "the plugin loud could not add its commands: RuntimeError: no" in done.stderr


@pytest.mark.parametrize("node_type", every_type())
def test_every_node_says_what_it_does_what_it_guarantees_and_shows_an_example(
    node_type: str, registry: Registry
) -> None:
    said = describe({**registry.nodes, **registry.connections}[node_type])
    assert said.summary.endswith(".")
    assert said.guarantees
    assert said.example
    assert all(option.description for option in said.options)


SURROUNDINGS = """flow: example
connections:
  gate: {mqtt: "mqtt://127.0.0.1"}
  commands: {http-listener: "127.0.0.1:6699"}
params:
  token: {default: secret}
chains:
  in:
    - mqtt-in: {connection: gate, topic: "a/{device}"}
    - run: example
    - log
  records: [log]
  heartbeat: [log]
  unknown: [log]
  audit: [log]
  enrich: [log]
  strangers: [log]
  uses:
    - http-in: {connection: commands, path: /uses}
    - cmd-filter:
        routes: {a: records, b: heartbeat, c: unknown, d: audit, e: enrich, f: strangers}
        otherwise: drop
"""


@pytest.mark.parametrize("node_type", every_type())
def test_every_example_is_a_flow_file_that_checks(node_type: str, registry: Registry, tmp_path: Path) -> None:
    example = describe({**registry.nodes, **registry.connections}[node_type]).example
    if node_type in registry.connections:
        text = SURROUNDINGS.replace('  gate: {mqtt: "mqtt://127.0.0.1"}\n', "") if "gate:" in example else SURROUNDINGS
        text = text.replace('  commands: {http-listener: "127.0.0.1:6699"}\n', "") if "commands:" in example else text
        text = text.replace("connections:\n", "connections:\n" + indented(example, 2), 1).replace(
            "    - run: example\n", ""
        )
    elif example.startswith(("- mqtt-in", "- http-in")):
        text = SURROUNDINGS.replace("    - run: example\n", "") + "  example:\n" + indented(example + "\n- log", 4)
    else:
        text = SURROUNDINGS + "  example:\n" + indented(example, 4)
    (tmp_path / "example.yaml").write_text(text, encoding="utf-8")
    loaded = project.load([tmp_path], registry, environ={})
    assert [str(p) for p in loaded.errors] == []


def indented(text: str, by: int) -> str:
    """The text, moved to the right."""
    return "".join(f"{' ' * by}{line}\n" for line in text.splitlines())
