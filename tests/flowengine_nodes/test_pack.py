"""What holds for every node of the pack."""

from __future__ import annotations

import ast
import typing
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

import flowengine_nodes
from flowengine import Meta, Node, NodeOptions

PACK = Path(flowengine_nodes.__file__).parent
NODES = {node.type: node for node in flowengine_nodes.flowengine_nodes()}
each_node = pytest.mark.parametrize("node", NODES.values(), ids=NODES)


def module_of(node: type[Node]) -> str:
    return node.type.replace("-", "_")


def sections(node: type[Node]) -> dict[str, str]:
    """The docstring's parts by their headings; the text before the first one under the empty name."""
    found: dict[str, list[str]] = {"": []}
    heading = ""
    for line in cleandoc(node.__doc__ or "").splitlines():
        if line.endswith(":") and line[:1].isupper() and " " not in line:
            heading = line[:-1]
            found[heading] = []
        else:
            found[heading].append(line)
    return {name: dedent("\n".join(lines)).strip() for name, lines in found.items()}


def described(struct: type[NodeOptions]) -> Iterator[tuple[str, Meta | None]]:
    """Every option with its Meta, also those of structs inside."""
    for name, hint in typing.get_type_hints(struct, include_extras=True).items():
        if typing.get_origin(hint) is typing.ClassVar:
            continue
        extras = typing.get_args(hint)[1:] if typing.get_origin(hint) is typing.Annotated else ()
        yield f"{struct.__qualname__}.{name}", next((m for m in extras if isinstance(m, Meta)), None)
        for inner in structs_in(hint):
            yield from described(inner)


def structs_in(hint: object) -> Iterator[type[NodeOptions]]:
    if isinstance(hint, type) and issubclass(hint, NodeOptions):
        yield hint
    for part in typing.get_args(hint):
        yield from structs_in(part)


def test_every_file_is_one_registered_node() -> None:
    files = {file.stem for file in PACK.glob("*.py") if not file.stem.startswith("_")}
    assert files == {module_of(node) for node in NODES.values()}
    assert all(node.__module__ == f"flowengine_nodes.{module_of(node)}" for node in NODES.values())


def test_the_pack_gives_the_nodes_that_the_flow_file_promises() -> None:
    assert set(NODES) == {
        "json-parse", "cmd-filter", "field-map", "heartbeat-reply", "split",
        "filter", "keep", "copy-to", "run", "log",
    }  # fmt: skip


def test_the_pack_uses_only_the_public_interface() -> None:
    for file in PACK.glob("*.py"):
        for statement in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in statement.names] if isinstance(statement, ast.Import) else []
            if isinstance(statement, ast.ImportFrom):
                names = [statement.module or ""]
            assert not [n for n in names if n.startswith("flowengine.")], file.name


@each_node
def test_the_docstring_says_what_the_node_does_guarantees_and_looks_like(node: type[Node]) -> None:
    parts = sections(node)
    summary, _, rest = parts[""].partition("\n")
    assert summary.endswith(".") and summary[0].isupper()
    assert rest.strip(), "no paragraph after the summary"
    assert parts["Guarantees"]
    assert list(parts) == ["", "Guarantees", "Example"]


@each_node
def test_the_example_is_a_list_of_nodes_with_this_one(node: type[Node]) -> None:
    example = yaml.safe_load(sections(node)["Example"])
    types = [entry if isinstance(entry, str) else next(iter(entry)) for entry in example]
    assert node.type in types


@each_node
def test_every_option_is_described_in_one_sentence_with_an_example(node: type[Node]) -> None:
    for name, meta in described(node.Options):
        assert meta is not None and meta.description, name
        assert meta.description[0].isupper() and not meta.description.endswith("."), name
        assert meta.examples, name


@each_node
def test_the_node_has_a_test_module_at_the_mirrored_place(node: type[Node]) -> None:
    assert (Path(__file__).parent / f"test_{module_of(node)}.py").is_file()
