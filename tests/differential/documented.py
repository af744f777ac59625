"""The table of docs/from-the-script.md."""

from __future__ import annotations

import re
from pathlib import Path

_DOCS = Path(__file__).parents[2] / "docs"
PAGES = {"en": _DOCS / "from-the-script.md", "zh-CN": _DOCS / "zh-CN" / "from-the-script.md"}


def rows(language: str = "en") -> dict[str, list[str]]:
    """The rows of the table by their id: what is sent, what the script does, what the flow does, why."""
    found: dict[str, list[str]] = {}
    for line in PAGES[language].read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and re.fullmatch(r"D-\d\d", cells[0]):
            assert cells[0] not in found, f"{cells[0]} stands twice in {PAGES[language]}"
            found[cells[0]] = cells[1:]
    return found
