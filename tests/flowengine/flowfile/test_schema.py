"""The schema that editors use says what the checker says, and the one in the repository is fresh."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from flowengine import plugins
from flowengine.flowfile import schema
from flowengine.flowfile.describe import describe
from flowengine.flowfile.editor import flow_schema
from tests.flowengine.flowfile.folder import HEAD, SHARED, load

ROOT = Path(__file__).parents[3]
FILE = ROOT / "schemas" / "flow.schema.json"
SHIPPED = plugins.load()
SCHEMA = json.loads(FILE.read_text(encoding="utf-8"))
FLOWS = sorted(f for folder in ("flows", "examples") for f in (ROOT / folder).rglob("*.yaml"))


def complaints(text: str, of: dict[str, Any] = SCHEMA) -> list[str]:
    """What the schema says of a file."""
    return [error.message for error in Draft7Validator(of).iter_errors(yaml.safe_load(text))]


def test_the_schema_in_the_repository_is_fresh() -> None:
    assert json.loads(json.dumps(flow_schema(SHIPPED))) == SCHEMA, "run `make schema`"


def test_the_schema_is_valid_draft_7() -> None:
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"
    Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", FLOWS, ids=[str(f.relative_to(ROOT)) for f in FLOWS])
def test_the_flows_of_this_repository_are_accepted(path: Path) -> None:
    registry = plugins.load(
        folder for folder in [path.parent.parent / "plugins"] if path.is_relative_to(ROOT / "examples")
    )
    assert complaints(path.read_text(encoding="utf-8"), flow_schema(registry)) == []


def test_the_example_of_every_node_and_connection_is_accepted() -> None:
    for cls in SHIPPED.nodes.values():
        example = describe(cls).example
        chain = "".join(f"    {line}\n" for line in example.splitlines())
        assert complaints(f"flow: a\nchains:\n  c:\n{chain}") == [], cls.type
    for kind in SHIPPED.connections.values():
        connections = "".join(f"  {line}\n" for line in describe(kind).example.splitlines())
        assert complaints(f"connections:\n{connections}") == [], kind.type


@pytest.mark.parametrize(
    "body",
    [
        "    - http-post: {url: 'http://x', ulr: a}\n",
        "    - http-post: {}\n",
        "    - http-pots: {url: 'http://x'}\n",
        "    - log: {text: [a]}\n",
        "    - log: a\n      onerror: b\n",
        "    - log: a\n      disabled: perhaps\n",
        "    - log: a\n      delivery: {concurrency: 0}\n",
        "    - cmd-filter: {routes: {a: drop}}\n",
    ],
)
def test_what_the_checker_refuses_the_schema_refuses(tmp_path: Path, body: str) -> None:
    assert complaints(HEAD + body) != []
    assert load(tmp_path, {"a.yaml": HEAD + body, "s.yaml": SHARED}).errors != []


@pytest.mark.parametrize(
    "text",
    [
        "flow: a\nformat: 2\n",
        "flow: a\nabuot: x\n",
        "flow: a\nparams: {p: {defualt: 1}}\n",
        "flow: a\nparams: {p: {type: txt}}\n",
        "connections: {a: {mqtt: {ulr: x}}}\n",
        "connections: {a: {mqtt: {url: x}, http-listener: {}}}\n",
        "flow: a\nchains: {c: []}\n",
    ],
)
def test_the_top_of_a_file_is_checked_too(text: str) -> None:
    assert complaints(text) != []


@pytest.mark.parametrize(
    "text",
    [
        "template: t\nparams: {p: {env: P, default: 1, about: x}}\nx-ours: [1]\n",
        "flow: a\nuse: t.yaml\nwith: {device: 0012}\n",
        HEAD + "    - log: a\n      delivery: {concurrency: '${n}'}\n      disabled: '${off}'\n",
        HEAD
        + "    - json-parse\n    - log\n    - json-parse:\n      name: again\n    - log: {text: 5}\n      x-note: 1\n",
        HEAD + "    - cmd-filter: {routes: {0: drop, a: [log: x]}, otherwise: [json-parse, log: y]}\n",
        HEAD + "    - log: a\n      on_error: next\n      when: payload.a == 1\n",
    ],
)
def test_what_the_checker_takes_the_schema_takes(text: str) -> None:
    assert complaints(text) == []


def test_every_option_is_described() -> None:
    def walk(properties: dict[str, Any], where: str) -> None:
        for name, option in properties.items():
            assert option.get("description"), f"{where}.{name}"

    for cls in [*SHIPPED.nodes.values(), *SHIPPED.connections.values()]:
        walk(schema.of_options(cls.Options).get("properties", {}), cls.type)


def test_validation_is_about_the_same_options_as_the_editors_schema() -> None:
    for cls in [*SHIPPED.nodes.values(), *SHIPPED.connections.values()]:
        checked = schema.validation(cls.Options)
        edited = schema.of_options(cls.Options)
        edited = next((s for s in edited.get("anyOf", ()) if s.get("type") == "object"), edited)
        assert checked["properties"].keys() == edited["properties"].keys()
        assert checked.get("required") == edited.get("required")
