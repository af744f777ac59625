"""Collect every text that a person reads into flowengine/locale, bring the translations up to date and compile them.

Texts come from `_()` and `N_()` in the code, from the docstrings and option descriptions of nodes, from log events,
and from click, whose help pages speak through our catalogue. Run it by `make messages`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import click
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from flowengine import plugins
from flowengine.flowfile.describe import Option, options_of, sections, words
from flowengine.options import OptionType

ROOT = Path(__file__).parents[1]
LOCALE = ROOT / "flowengine" / "locale"
LANGUAGES = ("zh",)
KEYWORDS = {"_": None, "N_": None, "gettext": None, "ngettext": (1, 2)}
_EVENT = re.compile(r"""log\.(?:debug|info|warning|error|exception)\(\s*(?:N_\(\s*)?("[^"]+"(?:\s*"[^"]+")*)""")


def template() -> Catalog:
    """Every text there is, with no translation."""
    catalog = Catalog(project="flowengine", version="", copyright_holder="flowengine contributors", fuzzy=False)
    for folder in (ROOT / "flowengine", ROOT / "plugins", ROOT / "tools", Path(click.__file__).parent):
        for name, _line, message, comments, context in extract_from_dir(folder, keywords=KEYWORDS):
            place = f"click/{name}" if folder.name == "click" else f"{folder.name}/{name}"
            catalog.add(message, locations=[(place, 0)], auto_comments=comments, context=context)
    for text, place in (*nodes(), *kinds(), *events()):
        catalog.add(text, locations=[(place, 0)])
    return catalog


def nodes() -> Iterator[tuple[str, str]]:
    """What nodes and connections say of themselves, and what the engine's own options say."""
    registry = plugins.load()
    for cls in (*registry.nodes.values(), *registry.connections.values()):
        place = f"node {cls.type}"
        said = sections(cls)
        yield from ((said[part], place) for part in ("summary", "text", "guarantees") if said[part])
        yield from ((text, place) for text in descriptions(cls.Options))
    from flowengine.flowfile.model import NodeKeys
    from flowengine.flowfile.params import Param

    for struct in (NodeKeys, Param):
        yield from ((text, "flow file") for text in descriptions(struct))


def descriptions(struct: type) -> Iterator[str]:
    """The descriptions of a struct's options, and of those inside it."""

    def walk(options: list[Option]) -> Iterator[str]:
        for option in options:
            if option.description:
                yield option.description
            yield from walk(option.options)

    yield from walk(options_of(struct))


def kinds() -> Iterator[tuple[str, str]]:
    """What the types of options are called."""

    def below(cls: type[OptionType]) -> Iterator[type[OptionType]]:
        for inner in cls.__subclasses__():
            yield inner
            yield from below(inner)

    yield from ((words(cls), "option type") for cls in below(OptionType) if cls.__module__.startswith("flowengine"))


def events() -> Iterator[tuple[str, str]]:
    """Log events: they are written in English and translated where a person reads them."""
    for folder in ("flowengine", "plugins"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for found in _EVENT.finditer(file.read_text(encoding="utf-8")):
                text = "".join(re.findall(r'"([^"]*)"', found[1]))
                yield text, file.relative_to(ROOT).as_posix()


def po_path(language: str) -> Path:
    """Where a language's translations stand."""
    return LOCALE / language / "LC_MESSAGES" / "flowengine.po"


def updated(language: str, texts: Catalog) -> Catalog:
    """The language's translations, with new texts added and old ones taken out."""
    path = po_path(language)
    if path.exists():
        with path.open("rb") as file:
            catalog = read_po(file, locale=language)
    else:
        catalog = Catalog(locale=language, project="flowengine")
    catalog.update(texts, no_fuzzy_matching=True, update_creation_date=False)
    catalog.obsolete.clear()
    return catalog


def compiled(catalog: Catalog) -> bytes:
    """The catalogue as gettext reads it."""
    out = BytesIO()
    write_mo(out, catalog)
    return out.getvalue()


def main() -> int:
    """Write the catalogues; say what is not translated."""
    texts = template()
    for language in LANGUAGES:
        catalog = updated(language, texts)
        path = po_path(language)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            write_po(file, catalog, width=120, sort_output=True, include_lineno=False, omit_header=False)
        with path.open("rb") as file:
            catalog = read_po(file, locale=language)
        path.with_suffix(".mo").write_bytes(compiled(catalog))
        missing = [m.id for m in catalog if m.id and not m.string]
        print(f"{language}: {len(catalog)} texts, {len(missing)} not translated")
    return 0


if __name__ == "__main__":
    sys.exit(main())
