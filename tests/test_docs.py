"""What people read: every link leads somewhere, every command and every flow in it works, both languages say the same."""

from __future__ import annotations

import ast
import itertools
import re
import shlex
from pathlib import Path

import click
import pytest

import flowengine
from flowengine import plugins
from flowengine.cli.main import root
from flowengine.flowfile import project

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
CHINESE = DOCS / "zh-CN"
EXAMPLE = ROOT / "examples" / "plate-reader"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("examples/**/*.md")])
PAIRS = [
    *((page, CHINESE / page.relative_to(DOCS)) for page in sorted(DOCS.glob("*.md"))),
    *((ROOT / f"{name}.md", ROOT / f"{name}.zh-CN.md") for name in ("README", "CONTRIBUTING", "CHANGELOG")),
    (EXAMPLE / "README.md", EXAMPLE / "README.zh-CN.md"),
]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"^(?: {3,4}| {7,})(?=\S)(.*)$", re.MULTILINE)
_VARIABLE = re.compile(r"\$\{env:(\w+)}")


def name_of(value: object) -> str:
    return value.relative_to(ROOT).as_posix() if isinstance(value, Path) else str(value)


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return [text for kind, text in _FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def headings(page: Path) -> list[str]:
    return re.findall(r"^(#+ .*)$", prose(page), re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    texts = [re.sub(r"^#+ ", "", heading).lower() for heading in headings(page)]
    return {re.sub(r"[^\w\- ]", "", text).replace(" ", "-") for text in texts}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in link:
            continue
        target, _hash, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=name_of)
def test_both_languages_have_the_same_sections_and_the_same_code(english: Path, chinese: Path) -> None:
    levels = [[heading.split()[0] for heading in headings(page)] for page in (english, chinese)]
    assert levels[0] == levels[1]
    assert [len(block.splitlines()) for block in blocks(english, "yaml")] == [
        len(block.splitlines()) for block in blocks(chinese, "yaml")
    ]
    assert sorted(commands(english)) == sorted(commands(chinese))


def test_every_document_stands_in_both_languages() -> None:
    english = {page.relative_to(DOCS) for page in DOCS.rglob("*.md") if CHINESE not in page.parents}
    assert english == {page.relative_to(CHINESE) for page in CHINESE.rglob("*.md")}


def test_every_node_and_connection_has_a_page() -> None:
    registry = plugins.load()
    for folder in (DOCS / "nodes", CHINESE / "nodes"):
        assert {page.stem for page in folder.glob("*.md")} - {"README"} == {*registry.nodes, *registry.connections}


def commands(page: Path) -> set[str]:
    """Every `flowengine ...` command that a page names: in code blocks, and in the text between backticks."""
    text = page.read_text(encoding="utf-8")
    lines = [line for kind, block in _FENCE.findall(text) if kind in ("", "text", "sh") for line in block.splitlines()]
    named = [*_INDENTED.findall(prose(page)), *(line.removeprefix("$ ") for line in lines if line.startswith("$ "))]
    named += re.findall(r"`(flowengine [^`]+)`", prose(page))
    found = set()
    for line in named:
        match = re.match(r"(?:[A-Z_]+=\S+ )*(?:\S*/)?(flowengine .*)", line)
        if match:
            found.add(match[1].strip())
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_exists_with_its_options(page: Path) -> None:
    wrong = []
    for line in sorted(commands(page)):
        words = list(itertools.takewhile(lambda word: word not in (">", "|", "&"), shlex.split(line)))
        problem = unknown(words[1:])
        if problem:
            wrong.append(f"{line}: {problem}")
    assert wrong == []


def unknown(words: list[str]) -> str:
    """The first word that the command line does not know, or nothing."""
    command: click.Command = commands_of_all()
    while words and isinstance(command, click.Group) and not words[0].startswith("-"):
        found = command.commands.get(words[0])
        if found is None:
            return words[0]
        command, words = found, words[1:]
    known = {name for option in command.params for name in option.opts} | {"--help", "-h"}
    return next((word for word in words if word.startswith("-") and word not in known), "")


def commands_of_all() -> click.Group:
    """The root command with what plugins add."""
    if "simulate" not in root.commands:
        plugins.load().manager.hook.flowengine_cli(group=root)
    return root


@pytest.mark.parametrize("page", [DOCS / "commands.md", CHINESE / "commands.md"], ids=name_of)
def test_every_option_of_every_command_is_explained_and_no_other(page: Path) -> None:
    sections = re.split(r"^#{2,3} flowengine ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    explained = {section.split("\n", 1)[0]: set(re.findall(r"--[a-z][a-z-]*", section)) for section in sections}
    there = {
        name: {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        for name, command in every_command(commands_of_all())
    }
    assert explained == there


def every_command(group: click.Group, before: str = "") -> list[tuple[str, click.Command]]:
    """Every command with its name, those in groups too; of `new`, which only holds one command, that one alone."""
    found: list[tuple[str, click.Command]] = []
    for name, command in group.commands.items():
        if not isinstance(command, click.Group):
            found.append((before + name, command))
            continue
        if len(command.commands) > 1:
            found.append((before + name, command))
        found += every_command(command, f"{before}{name} ")
    return found


@pytest.mark.parametrize("page", [p for p in PAGES if any("chains:" in b for b in blocks(p, "yaml"))], ids=name_of)
def test_every_flow_passes_the_check(page: Path, tmp_path: Path) -> None:
    for number, text in enumerate(blocks(page, "yaml")):
        named = re.match(r"# (flows/\S+)\n", text)
        if named is None and not re.search(r"^chains:", text, re.MULTILINE):
            continue
        # Flows of one page are flows of one folder where the page says their names, else they have nothing to do with another.
        file = tmp_path / (named[1] if named else f"{number}/flow.yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    environment = {
        name: "x" for file in tmp_path.rglob("*.yaml") for name in _VARIABLE.findall(file.read_text("utf-8"))
    }
    folders = sorted(folder for folder in tmp_path.iterdir() if folder.is_dir())
    assert folders
    for folder in folders:
        loaded = project.load([folder], plugins.load([EXAMPLE / "plugins"]), environ=environment)
        assert [str(problem) for problem in loaded.problems] == []
        assert loaded.project.flows


@pytest.mark.parametrize("page", [DOCS / "writing-a-node.md", CHINESE / "writing-a-node.md"], ids=name_of)
def test_the_worked_node_is_the_example(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for file in ("plugins/plate_normalize.py", "tests/test_plate_normalize.py", "flows/plates.yaml", "pytest.ini"):
        assert (EXAMPLE / file).read_text(encoding="utf-8") in text, file


@pytest.mark.parametrize("page", [DOCS / "troubleshooting.md", CHINESE / "troubleshooting.md"], ids=name_of)
def test_what_troubleshooting_explains_is_what_the_code_says(page: Path) -> None:
    said = list(texts_in_the_code())
    for heading in headings(page):
        quoted = re.fullmatch(r"### `(.*)`", heading)
        if quoted:
            parts = [part.strip() for part in quoted[1].split("…") if part.strip()]
            assert any(all(part in text for part in parts) for text in said), heading


def texts_in_the_code() -> list[str]:
    folders = [Path(flowengine.__file__).parent, ROOT / "plugins"]
    trees = [ast.parse(file.read_text(encoding="utf-8")) for folder in folders for file in folder.rglob("*.py")]
    constants = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [value for value in constants if isinstance(value, str)]


@pytest.mark.parametrize("page", [DOCS / "guarantees.md", CHINESE / "guarantees.md"], ids=name_of)
def test_every_fault_of_the_suite_has_one_row_in_the_table_and_every_row_its_test(page: Path) -> None:
    suite = {
        node.name
        for file in (ROOT / "tests" / "faults").glob("test_*.py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }
    rows = re.findall(r"^\|.*`(test_\w+)` \|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(suite)
