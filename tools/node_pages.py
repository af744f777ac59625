"""Write a page for each node and connection from its docstring and options: docs/nodes and docs/zh-CN/nodes. Run it
by `make docs`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = {"en": ROOT / "docs" / "nodes", "zh": ROOT / "docs" / "zh-CN" / "nodes"}


def pages() -> dict[str, str]:
    """File names and texts, in the language of the environment."""
    from flowengine import plugins
    from flowengine.flowfile.describe import Description, Option, describe, flat
    from flowengine.i18n import _

    registry = plugins.load()
    every = [describe(cls) for _type, cls in sorted({**registry.nodes, **registry.connections}.items())]

    def page(d: Description) -> str:
        lines = [f"# {d.type}", "", f"*{d.kind_name}*", "", d.summary, ""]
        lines += [d.text.replace("\n", "\n\n"), ""] if d.text else []
        if d.options:
            titles = (_("option"), _("kind"), _("default"), _("meaning"))
            lines += ["## " + _("Options"), "", f"| {' | '.join(titles)} |"]
            lines += ["| --- | --- | --- | --- |", *(row(*entry) for entry in flat(d.options)), ""]
        if d.guarantees:
            lines += ["## " + _("Guarantees"), "", d.guarantees.replace("\n", "\n\n"), ""]
        lines += ["## " + _("Example"), "", "```yaml", d.example, "```", ""]
        return "\n".join(lines)

    def row(name: str, option: Option) -> str:
        default = _("required") if option.required else (f"`{option.default}`" if option.default else "")
        notes = [option.description]
        notes += [_("may stand alone")] if option.bare else []
        notes += [f"`{option.examples[0]}`"] if option.examples else []
        cells = (f"`{name}`", option.kind, default, _("; ").join(notes))
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    title = _("Nodes and connections")
    made = _("These pages are made from the nodes themselves; `flowengine nodes TYPE` prints the same.")
    index = [f"# {title}", "", made, ""]
    for kind, kind_title in Description.kinds().items():
        found = [d for d in every if d.kind == kind]
        index += [f"## {kind_title}", "", *(f"- [{d.type}]({d.type}.md): {d.summary}" for d in found), ""]
    return {"README.md": "\n".join(index), **{f"{d.type}.md": page(d) for d in every}}


def main() -> None:
    """Write both languages, each in a process of its own, since a process speaks one."""
    language = os.environ.get("LANGUAGE", "")
    if len(sys.argv) > 1 and language in FOLDERS:
        folder = FOLDERS[language]
        folder.mkdir(parents=True, exist_ok=True)
        wanted = pages()
        for stale in {f.name for f in folder.glob("*.md")} - set(wanted):
            (folder / stale).unlink()
        for name, text in wanted.items():
            (folder / name).write_text(text, encoding="utf-8")
        return
    for name in FOLDERS:
        os.spawnve(os.P_WAIT, sys.executable, [sys.executable, __file__, "one"], {**os.environ, "LANGUAGE": name})


if __name__ == "__main__":
    main()
