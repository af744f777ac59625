"""The translations: whole, fresh, and with the same places for values."""

from __future__ import annotations

import re
from functools import cache

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.pofile import read_po

from tools import messages


@cache
def texts() -> Catalog:
    return messages.template()


@cache
def translated(language: str) -> Catalog:
    with messages.po_path(language).open("rb") as file:
        return read_po(file, locale=language)


def entries(catalog: Catalog) -> dict[str, Message]:
    """The messages by their English text, the header left out."""
    return {m.id if isinstance(m.id, str) else m.id[0]: m for m in catalog if m.id}


@pytest.mark.parametrize("language", messages.LANGUAGES)
def test_every_text_a_person_reads_is_translated(language: str) -> None:
    known = entries(translated(language))
    missing = [text for text in entries(texts()) if text not in known or not known[text].string]
    assert missing == [], "run `make messages` and translate what is new"


@pytest.mark.parametrize("language", messages.LANGUAGES)
def test_a_translation_has_the_places_for_values_that_the_text_has(language: str) -> None:
    places = re.compile(r"(?<!\{)\{[a-z_]*(?:![rs])?(?::[^}]*)?\}(?!\})|%\([a-z_]+\)s")
    for text, message in entries(translated(language)).items():
        strings = [message.string] if isinstance(message.string, str) else list(message.string or ())
        for string in strings:
            if ".format(" in text:
                continue
            assert set(places.findall(string)) <= set(places.findall(text)) | set(places.findall(str(message.id))), text


@pytest.mark.parametrize("language", messages.LANGUAGES)
def test_the_compiled_catalogue_is_fresh(language: str) -> None:
    path = messages.po_path(language).with_suffix(".mo")
    assert path.read_bytes() == messages.compiled(translated(language)), "run `make messages`"
