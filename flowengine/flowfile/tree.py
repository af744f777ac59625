"""YAML text to a tree that knows where everything stands. PyYAML parses; what it would do silently is refused here.

Scalars keep their source text: what they mean depends on the option they stand for (`core_value` has YAML 1.2's core schema).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from flowengine.flowfile.problems import Mark, Problems, end_of
from flowengine.flowfile.syntax import explained, slip
from flowengine.i18n import _

MAX_NODES = 100_000
"""A file whose aliases unfold to more nodes than this is an alias bomb."""
MAX_DEPTH = 60


@dataclass(eq=False)
class Scalar:
    """A text in the file. plain: it stood without quotes."""

    mark: Mark
    text: str
    plain: bool


@dataclass(eq=False)
class Sequence:
    """A list."""

    mark: Mark
    items: list[Tree]
    flow: bool = False


@dataclass(eq=False)
class Mapping:
    """Keys and values in their order. flow: it was written with braces."""

    mark: Mark
    items: list[tuple[Scalar, Tree]]
    flow: bool = False

    def get(self, key: str) -> Tree | None:
        """The value of `key`, or None."""
        return next((value for k, value in self.items if k.text == key), None)

    def keys(self) -> list[str]:
        """The keys as texts."""
        return [key.text for key, _value in self.items]


Tree = Scalar | Sequence | Mapping


class _Stop(Exception):
    def __init__(self, mark: Mark, text: str) -> None:
        super().__init__(text)
        self.mark = mark
        self.text = text


def parse(text: str, problems: Problems) -> Tree | None:
    """Return the file's one document, or None where it has none or cannot be read (and say so in `problems`)."""
    composer = _Composer(text, problems)
    try:
        tree = composer.document()
        return None if composer.slipped else tree
    except yaml.MarkedYAMLError as error:
        for mark, said in explained(error, problems.source.lines):
            problems.error(mark, said)
    except yaml.reader.ReaderError as error:
        mark = end_of(text[: error.position])
        problems.error(mark, _("the character U+{code:04X} is not allowed in YAML").format(code=int(error.character)))
    except _Stop as stop:
        problems.error(stop.mark, stop.text)
    return None


def _at(mark: Any) -> Mark:
    return (mark.line, mark.column)


class _Composer:
    def __init__(self, text: str, problems: Problems) -> None:
        self.events = yaml.parse(text, Loader=yaml.SafeLoader)
        self.slipped = False
        self.problems = problems
        self.anchors: dict[str, Tree] = {}
        self.sizes: dict[int, int] = {}
        self.count = 0

    def document(self) -> Tree | None:
        next(self.events)
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            return None
        tree = self.node(next(self.events), 0)
        next(self.events)
        after = next(self.events)
        if not isinstance(after, yaml.StreamEndEvent):
            self.problems.error(
                _at(after.start_mark), _("one file is one document: put what follows '---' into a file of its own")
            )
        return tree

    def node(self, event: Any, depth: int, *, key: bool = False) -> Tree:
        mark = _at(event.start_mark)
        if depth > MAX_DEPTH:
            raise _Stop(mark, _("nested more than {n} levels deep").format(n=MAX_DEPTH))
        if isinstance(event, yaml.AliasEvent):
            tree = self.anchors.get(event.anchor or "")
            if tree is None:
                raise _Stop(
                    mark,
                    _("'*{name}' is not defined above; a text that begins with * stands in quotes").format(
                        name=event.anchor
                    ),
                )
            self.grow(mark, self.sizes[id(tree)])
            return tree
        start = self.count
        self.grow(mark, 1)
        if event.tag is not None and event.tag != "!":
            self.problems.error(mark, _("YAML tags are not used here: remove '{tag}'").format(tag=_tag(event.tag)))
        tree = self.content(event, mark, depth)
        if isinstance(tree, Scalar) and tree.plain:
            self.look(tree, key)
        if event.anchor is not None:
            self.anchors[event.anchor] = tree
        self.sizes[id(tree)] = self.count - start
        return tree

    def look(self, scalar: Scalar, key: bool) -> None:
        """Say a slip in a text that stands without quotes; the file is then no better than one that is not YAML."""
        line, column = scalar.mark
        before = self.problems.source.lines[line][:column]
        found = slip(scalar.text, key=key, first=not before.strip(" -"))
        if found is not None:
            self.slipped = True
            self.problems.error((line, column + found[0]), found[1])

    def grow(self, mark: Mark, by: int) -> None:
        self.count += by
        if self.count > MAX_NODES:
            raise _Stop(mark, _("aliases unfold to more than {n} nodes: refused").format(n=MAX_NODES))

    def content(self, event: Any, mark: Mark, depth: int) -> Tree:
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(mark, event.value, plain=event.style is None)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Tree] = []
            while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
                items.append(self.node(event, depth + 1))
            return Sequence(mark, items, flow=False)
        mapping = Mapping(mark, [], flow=bool(event.flow_style))
        seen: dict[str, int] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.node(event, depth + 1, key=True)
            value = self.node(next(self.events), depth + 1)
            if not isinstance(key, Scalar):
                self.problems.error(key.mark, _("a key is a text; a text that begins with { or [ stands in quotes"))
            elif key.text == "<<" and key.plain:
                text = _("merge keys (<<) are not used here: write the keys out, or make a template")
                self.problems.error(key.mark, text)
            elif key.text in seen:
                first, held = mapping.items[seen[key.text]]
                text = _("'{key}' stands twice; the first is in line {line}")
                self.problems.error(key.mark, text.format(key=key.text, line=first.mark[0] + 1))
                if isinstance(held, Scalar) and held.text == "":
                    mapping.items[seen[key.text]] = (key, value)
            else:
                seen[key.text] = len(mapping.items)
                mapping.items.append((key, value))
        return mapping


def mark_of(tree: Tree | None, path: list[Any], bare: str = "", *, key: bool = False) -> Mark | None:
    """Where the value at `path` stands (or its key), or None where the tree has no such place."""
    if tree is not None and not isinstance(tree, Mapping) and bare and path[:1] == [bare]:
        path = path[1:]
    for at, step in enumerate(path):
        last = key and at == len(path) - 1
        if isinstance(tree, Mapping):
            entry = next(((k, v) for k, v in tree.items if k.text == step), None)
            rest = ".".join(map(str, path[at:]))
            whole = next(((k, v) for k, v in tree.items if k.text == rest), None)
            if whole is not None:
                return whole[0].mark if key else whole[1].mark
            if entry is None:
                return None if at == 0 else tree.mark
            if last:
                return entry[0].mark
            tree = entry[1]
        elif isinstance(tree, Sequence) and isinstance(step, int) and step < len(tree.items):
            tree = tree.items[step]
        else:
            break
    return tree.mark if tree is not None else None


def is_null(tree: Tree) -> bool:
    """Whether null stands there, or nothing."""
    return isinstance(tree, Scalar) and tree.plain and tree.text in ("", "~", "null")


def scalars(tree: Tree) -> Iterator[Scalar]:
    """Every text in a tree that is a value, in its order."""
    if isinstance(tree, Scalar):
        yield tree
    elif isinstance(tree, Sequence):
        for item in tree.items:
            yield from scalars(item)
    else:
        for _key, value in tree.items:
            yield from scalars(value)


def _tag(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")


_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?")
_SPECIAL = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
    ".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan,
}  # fmt: skip


def core_value(text: str) -> Any:
    """What a plain scalar means in YAML 1.2's core schema (YAML 1.2.2 section 10.3.2); raises ValueError for a leading zero."""
    if text in _SPECIAL:
        return _SPECIAL[text]
    if _LEADING_ZERO.fullmatch(text):
        raise ValueError(_("a number does not begin with 0; if '{text}' is a text, put it in quotes").format(text=text))
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
