"""YAML text to a tree that knows where everything stands. PyYAML parses; what it would do silently is refused here.

Scalars keep their source text: what they mean depends on the option they stand for (`core_value` has YAML 1.2's core schema).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import yaml

from flowengine.flowfile.problems import Mark, Problems
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
    try:
        return _Composer(text, problems).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problems.error((mark.line, mark.column) if mark else (0, 0), _syntax(error, problems.source.lines))
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        mark_at = (before.count("\n"), len(before) - before.rfind("\n") - 1)
        problems.error(
            mark_at, _("the character U+{code:04X} is not allowed in YAML").format(code=int(error.character))
        )
    except _Stop as stop:
        problems.error(stop.mark, stop.text)
    return None


def _syntax(error: yaml.MarkedYAMLError, lines: list[str]) -> str:
    """PyYAML's words, and for the common slips what to do."""
    mark = error.problem_mark
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    problem = error.problem or str(error)
    if "\\t" in problem or (mark and line[mark.column : mark.column + 1] == "\t"):
        return _("a tab cannot indent in YAML: use spaces")
    value = re.match(r"\s*(?:- )?\s*[\w-]+:\s+\{", line)
    if value and (
        "block end" in problem or "expected ',' or '}'" in problem or "while parsing a flow" in str(error.context)
    ):
        return _("a text that begins with { stands in quotes (here it was read as an object in braces)")
    if "mapping values are not allowed" in problem:
        return _("a colon where none may stand: is the line indented too far, or does a text with ': ' need quotes?")
    if "could not find expected ':'" in problem:
        return _("a key without its colon, or a text that needs quotes")
    if "expected <block end>" in problem:
        return _("the indentation does not fit the lines above")
    if "found unexpected end of stream" in problem and error.context and "quoted scalar" in error.context:
        at = error.context_mark
        return _("a quote that is opened in line {line} is not closed").format(line=at.line + 1 if at else "?")
    if "cannot start any token" in problem:
        char = line[mark.column : mark.column + 1] if mark else ""
        return _("a text that begins with {char} stands in quotes").format(char=char)
    if "undefined alias" in problem:
        return _("{problem}; a text that begins with * stands in quotes").format(problem=problem)
    return _("not YAML: {problem}").format(problem=problem)


def _at(mark: Any) -> Mark:
    return (mark.line, mark.column)


class _Composer:
    def __init__(self, text: str, problems: Problems) -> None:
        self.events = yaml.parse(text, Loader=yaml.SafeLoader)
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

    def node(self, event: Any, depth: int) -> Tree:
        mark = _at(event.start_mark)
        if depth > MAX_DEPTH:
            raise _Stop(mark, _("nested more than {n} levels deep").format(n=MAX_DEPTH))
        if isinstance(event, yaml.AliasEvent):
            tree = self.anchors.get(event.anchor)
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
        if event.anchor is not None:
            self.anchors[event.anchor] = tree
        self.sizes[id(tree)] = self.count - start
        return tree

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
        seen: dict[str, Mark] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.node(event, depth + 1)
            value = self.node(next(self.events), depth + 1)
            if not isinstance(key, Scalar):
                self.problems.error(key.mark, _("a key is a text; a text that begins with { or [ stands in quotes"))
            elif key.text == "<<" and key.plain:
                self.problems.error(
                    key.mark, _("merge keys (<<) are not used here: write the keys out, or make a template")
                )
            elif key.text in seen:
                first = seen[key.text][0] + 1
                self.problems.error(
                    key.mark, _("'{key}' stands twice; the first is in line {line}").format(key=key.text, line=first)
                )
            else:
                seen[key.text] = key.mark
                mapping.items.append((key, value))
        return mapping


def _tag(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")


_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+(\.[0-9]*)?")
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


def comment_glued(scalar: Scalar, lines: list[str]) -> Mark | None:
    """Where a text without quotes is cut by ` #` that was probably meant as text: a hash with no space after it."""
    line, column = scalar.mark
    if not scalar.plain or line >= len(lines):
        return None
    end = column + len(scalar.text)
    if lines[line][column:end] != scalar.text:
        return None
    found = re.match(r"\s+#(?=\S|$)(?!#)", lines[line][end:])
    return (line, end + found.end() - 1) if found else None
