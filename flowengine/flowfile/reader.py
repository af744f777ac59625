"""A tree from a flow file, read by the types of an options struct: values, option types, and every error at its place."""

from __future__ import annotations

import functools
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from jsonschema import Draft7Validator
from msgspec import inspect

from flowengine.errors import OptionError
from flowengine.flowfile import schema
from flowengine.flowfile.problems import Mark, Problems
from flowengine.flowfile.sentences import expected_text, finding, kind_of
from flowengine.flowfile.substitute import Scope, Unset
from flowengine.flowfile.syntax import comment_glued
from flowengine.flowfile.tree import Mapping, Scalar, Sequence, Tree, core_value, is_null, scalars
from flowengine.flowfile.validate import validate
from flowengine.i18n import _
from flowengine.options import OptionType, Ref, Route, Secret
from flowengine.template import Reference
from flowengine.template import Tree as PayloadTree

OptionsT = TypeVar("OptionsT", bound=msgspec.Struct)
_BAD = object()


@dataclass
class Found:
    """What a reader came across: each with the place where it stands."""

    references: list[tuple[Reference, Mark]] = field(default_factory=list)
    routes: list[tuple[Route, Mark]] = field(default_factory=list)
    refs: list[tuple[Ref[Any], type, Mark]] = field(default_factory=list)


class Reader:
    """Reads one node's or connection's options. inline: makes a chain of a list of nodes on the spot and returns its name."""

    def __init__(self, problems: Problems, scope: Scope, inline: Callable[[Sequence, str], str] | None = None) -> None:
        self.problems = problems
        self.scope = scope
        self.inline = inline
        self.found = Found()

    def read(self, tree: Tree | None, options: type[OptionsT], mark: Mark) -> OptionsT | None:
        """The options as a struct, or None where something is wrong with them (and said). mark: where the node stands."""
        before = self.problems.count()
        if tree is None or (isinstance(tree, Scalar) and tree.plain and tree.text == ""):
            tree = Mapping(mark, [])
        values = self._struct(tree, options, mark)
        if values is not _BAD:
            validate(values, tree, options, mark, self.problems)
        if self.problems.count() > before:
            return None
        try:
            return msgspec.convert(values, options, dec_hook=lambda _type, value: value, str_keys=True)
        except (msgspec.ValidationError, ValueError) as error:
            self.problems.error(mark, str(error))
            return None

    def _struct(self, tree: Tree, options: type[msgspec.Struct], mark: Mark) -> Any:
        bare = schema.bare_option(options)
        known = schema.fields(options)
        if not isinstance(tree, Mapping) or (bare and tree.flow and _braced_text(tree, known)):
            glued = re.match(r"([\w-]+)[:：]", tree.text) if isinstance(tree, Scalar) and tree.plain else None
            if glued and glued[1] in known:
                self.problems.error(tree.mark, _("a space is missing after '{key}:'").format(key=glued[1]))
                return _BAD
            if not bare:
                text = _("expected options as 'name: value', found {found}")
                self.problems.error(tree.mark, text.format(found=kind_of(tree)))
                return _BAD
            tree = Mapping(mark, [(Scalar(tree.mark, bare, True), tree)])
        values: dict[str, Any] = {}
        fallen = self._fallen(tree, known)
        for key, value in tree.items:
            info = known.get(key.text)
            if key.text in fallen:
                continue
            if info is None:
                values[key.text] = None
                continue
            read = self._value(value, info.type, key.text)
            ref = _ref_target(options, key.text)
            if ref is not None and isinstance(read, Ref):
                self.found.refs.append((read, ref, value.mark))
            if read is not _BAD:
                values[key.text] = read
        return values

    def _fallen(self, tree: Mapping, known: typing.Mapping[str, inspect.Field]) -> set[str]:
        """An option without a value and the unknown keys right below it, which belong to it: one mistake, said once."""
        fallen: set[str] = set()
        option: Scalar | None = None
        for key, value in tree.items:
            if key.text in known:
                option = key if is_null(value) and _has_lines(known[key.text].type) else None
            elif option is not None:
                if option.text not in fallen:
                    text = _("'{key}' is at the wrong indentation: it belongs under '{section}:', further to the right")
                    self.problems.error(key.mark, text.format(key=key.text, section=option.text))
                fallen |= {option.text, key.text}
        return fallen

    def _value(self, tree: Tree, info: inspect.Type, name: str) -> Any:
        inner, _meta, nullable = schema.unwrap(info)
        if is_null(tree):
            if nullable:
                return None
            if isinstance(tree, Scalar) and tree.text == "" and not _takes_null(inner):
                self.problems.error(tree.mark, _("option '{name}' has no value").format(name=name))
                return _BAD
        match inner:
            case inspect.CustomType(cls=cls):
                return self._custom(tree, cls, name)
            case inspect.StructType(cls=cls):
                return self._struct(tree, cls, tree.mark)
            case inspect.StrType():
                return self._text(tree, name)
            case inspect.DictType(value_type=value) if isinstance(tree, Mapping):
                items = {key.text: self._value(item, value, f"{name}.{key.text}") for key, item in tree.items}
                return {key: item for key, item in items.items() if item is not _BAD}
            case inspect.ListType(item_type=item) if isinstance(tree, Sequence):
                read = [self._value(entry, item, f"{name}[{i}]") for i, entry in enumerate(tree.items)]
                return [entry for entry in read if entry is not _BAD]
            case inspect.LiteralType(values=values) if isinstance(tree, Scalar) and all(
                isinstance(v, str) for v in values
            ):
                return self._text(tree, name)
            case inspect.IntType() | inspect.FloatType() | inspect.BoolType():
                return self._number(tree)
            case _:
                return self.plain(tree)

    def _number(self, tree: Tree) -> Any:
        """A number, true or false; what `${...}` gave as text is read as if it stood there."""
        value = self.plain(tree)
        if isinstance(value, str) and isinstance(tree, Scalar) and "${" in tree.text:
            try:
                return core_value(value)
            except ValueError as error:
                self.problems.error(tree.mark, str(error))
                return _BAD
        return value

    def _custom(self, tree: Tree, cls: type[OptionType], name: str) -> Any:
        cls = typing.get_origin(cls) or cls
        before = self.problems.count()
        if issubclass(cls, Route) and isinstance(tree, Sequence):
            value: Any = self.inline(tree, name) if self.inline else ""
        elif issubclass(cls, PayloadTree):
            value = self.plain(tree, cls.literal)
        elif isinstance(tree, Scalar):
            value = self._text(tree, name, cls.literal)
        else:
            value = self._structure(tree, cls, name)
        if value is _BAD or (self.problems.count() > before and not issubclass(cls, Route)):
            return _BAD
        if issubclass(cls, Secret) and isinstance(tree, Scalar) and "${" not in tree.text:
            self.problems.source.mask(tree.mark)
        wrong = [] if issubclass(cls, Route) else list(Draft7Validator(cls.schema).iter_errors(value))
        if any(error.validator == "type" for error in wrong):
            self.problems.error(tree.mark, finding(wrong[0], name))
            return _BAD
        try:
            option = cls(value)
        except ValueError as error:
            self._refused(tree, cls, error)
            return _BAD
        if wrong:
            self.problems.error(tree.mark, finding(wrong[0], name))
            return _BAD
        unknown = [r for r in option.references if not (option.judges and r.root == "result")]
        self.found.references += [(reference, self._place(tree, reference)) for reference in unknown]
        if isinstance(option, Route):
            self.found.routes.append((option, tree.mark))
        return option

    def _refused(self, tree: Tree, cls: type[OptionType], error: ValueError) -> None:
        """Say what an option type refused, at the text inside `tree` that it is about."""
        lines = self.problems.source.lines
        said = False
        for scalar in scalars(tree) if issubclass(cls, PayloadTree) else ():
            try:
                cls(self.scope.substitute(scalar.text, cls.literal))
            except ValueError as inside:
                self.problems.error(_offset(scalar, inside, lines), str(inside))
                said = True
        if not said:
            at = _offset(tree, error, lines) if isinstance(tree, Scalar) else tree.mark
            self.problems.error(at, str(error))

    def _structure(self, tree: Tree, cls: type[OptionType], name: str) -> Any:
        kinds = cls.schema.get("type", "string")
        if "string" in ([kinds] if isinstance(kinds, str) else kinds) and "anyOf" not in cls.schema:
            self.problems.error(tree.mark, expected_text(tree, name))
            return _BAD
        return self.plain(tree, cls.literal)

    def _place(self, tree: Tree, reference: Reference) -> Mark:
        """Where a reference stands; where the text around it begins if that cannot be told."""
        word = re.compile(rf"(?<![\w.]){re.escape(reference.text)}(?![\w.])")
        for scalar in scalars(tree):
            found = word.search(scalar.text)
            if found is not None:
                return _inside(scalar, found.start(), self.problems.source.lines)
        return tree.mark

    def _text(self, tree: Tree, name: str, literal: Callable[[str, str], str] | None = None) -> Any:
        if not isinstance(tree, Scalar):
            self.problems.error(tree.mark, expected_text(tree, name))
            return _BAD
        cut = comment_glued(tree.mark, tree.text, self.problems.source.lines) if tree.plain and tree.text else None
        if cut is not None:
            text = _("' #' begins a comment here: put the text in quotes, or a space behind the # of a comment")
            self.problems.error(cut, text)
            return _BAD
        try:
            return self.scope.substitute(tree.text, literal)
        except Unset as unset:
            self._unset(tree, unset)
            return _BAD

    def _unset(self, tree: Scalar, unset: Unset) -> None:
        if str(unset):
            at = _inside(tree, max(unset.offset, 0), self.problems.source.lines)
            self.problems.error(at, str(unset))
        else:
            self.problems.hide(tree.mark)

    def plain(self, tree: Tree, literal: Callable[[str, str], str] | None = None) -> Any:
        """The tree as plain data (YAML 1.2 core schema), substituted."""
        if isinstance(tree, Mapping):
            return {key.text: self.plain(value, literal) for key, value in tree.items}
        if isinstance(tree, Sequence):
            return [self.plain(item, literal) for item in tree.items]
        if tree.plain and "${" not in tree.text:
            try:
                value = core_value(tree.text)
            except ValueError as error:
                self.problems.error(tree.mark, str(error))
                return _BAD
            return self._text(tree, "") if isinstance(value, str) else value
        try:
            lone = self.scope.lone(tree.text)
        except Unset as unset:
            self._unset(tree, unset)
            return _BAD
        if lone is not None:
            if literal and isinstance(lone.value, str):
                return literal(lone.value, "")
            return lone.value
        return self._text(tree, "", literal)


def _inside(scalar: Scalar, offset: int, lines: list[str]) -> Mark:
    """The place of a character of a text, or of the text where the line shows it otherwise (escapes, several lines)."""
    line, column = scalar.mark
    start = column if scalar.plain else column + 1
    shown = lines[line][start : start + offset] if line < len(lines) else ""
    return (line, start + offset) if shown == scalar.text[:offset] else scalar.mark


def _offset(scalar: Scalar, error: ValueError, lines: list[str]) -> Mark:
    offset = error.offset if isinstance(error, OptionError) else None
    return scalar.mark if offset is None or "${" in scalar.text else _inside(scalar, offset, lines)


def _braced_text(tree: Mapping, known: typing.Mapping[str, inspect.Field]) -> bool:
    """`log: {device}` was meant as a text, not as an object with the key `device`."""
    return len(tree.items) == 1 and is_null(tree.items[0][1]) and tree.items[0][0].text not in known


def _has_lines(info: inspect.Type) -> bool:
    """Whether the value is written in lines of its own: a list, an object."""
    inner, _meta, _nullable = schema.unwrap(info)
    return isinstance(inner, inspect.DictType | inspect.ListType | inspect.StructType)


def _takes_null(info: inspect.Type) -> bool:
    """Whether an empty value may mean null: any value, and a payload's tree."""
    return isinstance(info, inspect.AnyType) or (isinstance(info, inspect.CustomType) and info.cls is PayloadTree)


@functools.cache
def _ref_target(options: type[msgspec.Struct], name: str) -> type | None:
    """The connection class in `Ref[Class]`."""
    hint = typing.get_type_hints(options).get(name)
    for part in (hint, *typing.get_args(hint)):
        if typing.get_origin(part) is Ref:
            return typing.cast(type, typing.get_args(part)[0])
    return None
