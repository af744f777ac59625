"""One file: its text, its tree, what kind it is, and the keys at its top."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flowengine.flowfile.model import name_fault
from flowengine.flowfile.problems import Problem, Problems, Source, end_of, lines_of, nearest, suggestion
from flowengine.flowfile.tree import Mapping, Scalar, Sequence, Tree, parse
from flowengine.i18n import _
from flowengine.plugins import Registry

TOP = ("format", "flow", "template", "use", "with", "about", "params", "connections", "chains")
RESERVED = ("defaults", "import", "library")


@dataclass
class File:
    """A file that could be parsed. kind: flow, template or connections."""

    source: Source
    problems: Problems
    top: Mapping
    kind: str


def open_file(path: Path, registry: Registry, found: list[Problem]) -> File | None:
    """Read one file; None where it is none of ours or cannot be read, which is then said in `found`."""
    source = Source(path)
    problems = Problems(source, found)
    text = _text(source, problems)
    if text is None:
        return None
    tree = parse(text, problems)
    if tree is None or blank(tree):
        if not any(p.source == source for p in found):
            problems.error((0, 0), _("the file is empty: a flow begins with 'flow: NAME'"))
        return None
    if not isinstance(tree, Mapping):
        problems.error(tree.mark, _("this is no flow: a flow begins with 'flow: NAME'"))
        return None
    kind = next((k for k in ("flow", "template") if tree.get(k) is not None), "")
    if not kind and tree.get("connections") is not None and tree.get("chains") is None:
        kind = "connections"
    if not kind:
        hint = suggestion(tree.items[0][0].text, ("flow", "template", "connections")) if tree.items else ""
        problems.error(tree.mark, _("this is no flow: a flow begins with 'flow: NAME'{hint}").format(hint=hint))
        return None
    _check_top(tree, kind, registry, problems)
    return File(source, problems, tree, kind)


def _text(source: Source, problems: Problems) -> str | None:
    """The file's text, with its lines kept in `source`; None (and said) where it cannot be read or is not UTF-8."""
    try:
        raw = source.path.read_bytes()
    except OSError as error:
        problems.error((0, 0), _("cannot be read: {reason}").format(reason=error.strerror))
        return None
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        problems.error((0, 0), _("this is UTF-16 (Windows calls it Unicode): save the file as UTF-8"))
        return None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        shown = raw.decode("gb18030", "replace")
        source.lines.extend(lines_of(shown))
        mark = end_of(raw[: error.start].decode("gb18030", "replace"))
        said = _("not UTF-8: save the file as UTF-8")
        if "\ufffd" not in shown:
            said = _("not UTF-8 but probably GBK: save the file as UTF-8 (in Notepad: Save as, Encoding)")
        problems.error(mark, said)
        return None
    source.lines.extend(lines_of(text))
    return text


def _check_top(top: Mapping, kind: str, registry: Registry, problems: Problems) -> None:
    """The keys at the top, and the values that are one text. What is misplaced or misspelt is said and put right, so that what
    refers to it is no error too."""
    for key, value in list(top.items):
        if key.text in RESERVED:
            problems.error(key.mark, _("'{key}' is reserved for later").format(key=key.text))
        elif key.text == "format" and not (isinstance(value, Scalar) and value.text == "1"):
            problems.error(value.mark, _("this format is not known: this version of flowengine reads format 1"))
        elif key.text not in TOP and not key.text.startswith("x-"):
            _unknown_key(top, key, value, registry, problems)
        elif key.text == "about" and not isinstance(value, Scalar):
            problems.error(value.mark, _("'about' is a text"))
    name = top.get(kind)
    if kind in ("flow", "template") and name is not None:
        fault = name_fault(name.text if isinstance(name, Scalar) else "")
        if fault:
            problems.error(name.mark, fault, kind)
    stray = ("template",) if kind == "flow" else ("use", "with") if kind == "template" else ("use", "with", "flow")
    for key, _value in top.items:
        if key.text in stray:
            text = _("'{key}' cannot stand in a file that begins with '{kind}:'")
            problems.error(key.mark, text.format(key=key.text, kind=kind))


def _unknown_key(top: Mapping, key: Scalar, value: Tree, registry: Registry, problems: Problems) -> None:
    meant = nearest(key.text, TOP)
    if meant is not None and top.get(meant) is None:
        problems.error(key.mark, _("unknown key '{key}'{hint}").format(key=key.text, hint=suggestion(key.text, TOP)))
        top.items.append((Scalar(key.mark, meant, True), value))
        return
    section = "chains" if isinstance(value, Sequence) else ""
    if isinstance(value, Mapping) and set(value.keys()) & registry.connections.keys():
        section = "connections"
    target = top.get(section)
    if not isinstance(target, Mapping):
        problems.error(key.mark, _("unknown key '{key}'{hint}").format(key=key.text, hint=suggestion(key.text, TOP)))
        return
    text = _("'{key}' is at the wrong indentation: it belongs under '{section}:', further to the right")
    problems.error(key.mark, text.format(key=key.text, section=section))
    if target.get(key.text) is None:
        target.items.append((key, value))


def text_at(top: Mapping, key: str) -> str:
    """The text that stands under `key`; empty where there is none."""
    value = top.get(key)
    return value.text if isinstance(value, Scalar) else ""


def blank(tree: Tree) -> bool:
    """Whether nothing stands there."""
    return isinstance(tree, Scalar) and tree.plain and tree.text == ""
