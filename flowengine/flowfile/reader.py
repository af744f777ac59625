"""A tree from a flow file, read by the types of an options struct: values, option types, and every error at its place."""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from jsonschema import Draft7Validator
from jsonschema.exceptions import ValidationError
from msgspec import inspect

from flowengine.errors import OptionError
from flowengine.flowfile import schema
from flowengine.flowfile.problems import Mark, Problems, suggestion
from flowengine.flowfile.substitute import Scope, Unset
from flowengine.flowfile.tree import Mapping, Scalar, Sequence, Tree, comment_glued, core_value
from flowengine.i18n import N_, _
from flowengine.options import OptionType, Ref, Route
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
            self._validate(values, tree, options, mark)
        if self.problems.count() > before:
            return None
        try:
            return msgspec.convert(values, options, dec_hook=lambda _type, value: value, str_keys=True)
        except (msgspec.ValidationError, ValueError) as error:
            self.problems.error(mark, str(error))
            return None

    def _struct(self, tree: Tree, options: type[msgspec.Struct], mark: Mark) -> Any:
        bare = schema.bare_option(options)
        if not isinstance(tree, Mapping) or (bare and tree.flow and self._braced_text(tree, options)):
            if not bare:
                self.problems.error(
                    tree.mark, _("expected options as 'name: value', found {found}").format(found=_kind(tree))
                )
                return _BAD
            tree = Mapping(mark, [(Scalar(tree.mark, bare, True), tree)])
        values: dict[str, Any] = {}
        known = schema.fields(options)
        for key, value in tree.items:
            info = known.get(key.text)
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

    def _braced_text(self, tree: Mapping, options: type[msgspec.Struct]) -> bool:
        """`log: {device}` was meant as a text, not as an object with the key `device`."""
        return (
            len(tree.items) == 1 and _is_null(tree.items[0][1]) and tree.items[0][0].text not in schema.fields(options)
        )

    def _value(self, tree: Tree, info: inspect.Type, where: str) -> Any:
        inner, _meta, nullable = schema.unwrap(info)
        if nullable and _is_null(tree):
            return None
        match inner:
            case inspect.CustomType(cls=cls):
                return self._custom(tree, cls, where)
            case inspect.StructType(cls=cls):
                return self._struct(tree, cls, tree.mark)
            case inspect.StrType():
                return self._text(tree)
            case inspect.DictType(value_type=value) if isinstance(tree, Mapping):
                items = {key.text: self._value(item, value, f"{where}.{key.text}") for key, item in tree.items}
                return {key: item for key, item in items.items() if item is not _BAD}
            case inspect.ListType(item_type=item) if isinstance(tree, Sequence):
                read = [self._value(entry, item, f"{where}[{i}]") for i, entry in enumerate(tree.items)]
                return [entry for entry in read if entry is not _BAD]
            case inspect.LiteralType(values=values) if isinstance(tree, Scalar) and all(
                isinstance(v, str) for v in values
            ):
                return self._text(tree)
            case _:
                return self.plain(tree)

    def _custom(self, tree: Tree, cls: type[OptionType], where: str) -> Any:
        cls = typing.get_origin(cls) or cls
        if issubclass(cls, Route) and isinstance(tree, Sequence):
            value: Any = self.inline(tree, where) if self.inline else ""
        elif issubclass(cls, PayloadTree):
            value = self.plain(tree, cls.literal)
        elif isinstance(tree, Scalar):
            value = self._text(tree, cls.literal)
        else:
            value = self._structure(tree, cls)
        if value is _BAD:
            return _BAD
        if not issubclass(cls, Route):
            for error in Draft7Validator(cls.schema).iter_errors(value):
                if error.validator != "pattern":
                    self.problems.error(tree.mark, _sentence(error))
                    return _BAD
        try:
            option = cls(value)
        except OptionError as error:
            self.problems.error(self._offset(tree, error.offset), str(error))
            return _BAD
        except ValueError as error:
            self.problems.error(tree.mark, str(error))
            return _BAD
        self.found.references += [(reference, tree.mark) for reference in option.references]
        if isinstance(option, Route):
            self.found.routes.append((option, tree.mark))
        return option

    def _structure(self, tree: Tree, cls: type[OptionType]) -> Any:
        kinds = cls.schema.get("type", "string")
        if "string" in ([kinds] if isinstance(kinds, str) else kinds) and "anyOf" not in cls.schema:
            self.problems.error(tree.mark, _expected_text(tree))
            return _BAD
        return self.plain(tree, cls.literal)

    def _offset(self, tree: Tree, offset: int | None) -> Mark:
        line, column = tree.mark
        if offset is None or not isinstance(tree, Scalar) or "$" in tree.text:
            return tree.mark
        return (line, column + offset) if tree.plain else (line, column + 1 + offset)

    def _text(self, tree: Tree, literal: Callable[[str, str], str] | None = None) -> Any:
        if not isinstance(tree, Scalar):
            self.problems.error(tree.mark, _expected_text(tree))
            return _BAD
        cut = comment_glued(tree, self.problems.source.lines)
        if cut is not None:
            self.problems.error(cut, _("' #' begins a comment here and cuts the text: put the text in quotes"))
            return _BAD
        try:
            return self.scope.substitute(tree.text, literal)
        except Unset as unset:
            self._unset(tree, unset)
            return _BAD

    def _unset(self, tree: Scalar, unset: Unset) -> None:
        at = tree.text.find("${")
        mark = self._offset(Scalar(tree.mark, "", tree.plain), at if "\n" not in tree.text else None)
        if str(unset):
            self.problems.error(mark, str(unset))
        else:
            self.problems.hide(mark)

    def plain(self, tree: Tree, literal: Callable[[str, str], str] | None = None) -> Any:
        """The tree as plain data (YAML 1.2 core schema), substituted."""
        if isinstance(tree, Mapping):
            return {key.text: self.plain(value, literal) for key, value in tree.items}
        if isinstance(tree, Sequence):
            return [self.plain(item, literal) for item in tree.items]
        if tree.plain and "$" not in tree.text:
            try:
                return core_value(tree.text)
            except ValueError as error:
                self.problems.error(tree.mark, str(error))
                return _BAD
        try:
            value = self.scope.lone(tree.text)
        except Unset as unset:
            self._unset(tree, unset)
            return _BAD
        if value is not None:
            if literal and isinstance(value.value, str):
                return literal(value.value, "")
            return value.value
        return self._text(tree, literal)

    def _validate(self, values: Any, tree: Tree, options: type[msgspec.Struct], mark: Mark) -> None:
        bare = schema.bare_option(options)
        for error in Draft7Validator(schema.validation(options)).iter_errors(values):
            path = list(error.absolute_path)
            if error.validator == "additionalProperties" and isinstance(error.instance, dict):
                known = list(error.schema.get("properties", ()))
                for key in sorted(set(error.instance) - set(known)):
                    at = mark_of(tree, [*path, key], bare, key=True) or mark
                    text = _("unknown option '{key}'{hint}").format(key=key, hint=suggestion(key, known))
                    self.problems.error(at, text)
                continue
            at = mark_of(tree, path, bare) or mark
            if error.validator == "required":
                self._missing(error, at if path else mark)
                continue
            self.problems.error(at, _sentence(_deepest(error)))

    def _missing(self, error: ValidationError, mark: Mark) -> None:
        instance = error.instance if isinstance(error.instance, dict) else {}
        for name in error.validator_value:
            if name not in instance and repr(name) in error.message:
                self.problems.error(mark, _("option '{name}' is missing").format(name=name))


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


def _ref_target(options: type[msgspec.Struct], name: str) -> type | None:
    """The connection class in `Ref[Class]`."""
    hint = typing.get_type_hints(options).get(name)
    for part in (hint, *typing.get_args(hint)):
        if typing.get_origin(part) is Ref:
            return typing.cast(type, typing.get_args(part)[0])
    return None


def _is_null(tree: Tree) -> bool:
    return isinstance(tree, Scalar) and tree.plain and tree.text in ("", "~", "null")


def _kind(tree: Tree) -> str:
    if isinstance(tree, Sequence):
        return _("a list")
    return _("an object") if isinstance(tree, Mapping) else _("the text '{text}'").format(text=tree.text[:40])


def _expected_text(tree: Tree) -> str:
    text = _("expected a text, found {found}").format(found=_kind(tree))
    if isinstance(tree, Mapping) and tree.flow:
        text += _("; a text that begins with { stands in quotes")
    return text


def _deepest(error: ValidationError) -> ValidationError:
    """Of the choices of an anyOf, the one that is not about null."""
    while error.validator == "anyOf" and error.context:
        error = next((e for e in error.context if e.validator_value != "null"), error.context[0])
    return error


_TYPES = {
    "integer": N_("a whole number"),
    "number": N_("a number"),
    "boolean": N_("true or false"),
    "string": N_("a text"),
    "array": N_("a list"),
    "object": N_("an object"),
}


def _sentence(error: ValidationError) -> str:
    """jsonschema's finding in our words."""
    wanted, value = error.validator_value, error.instance
    shown = _shown(value)
    match error.validator:
        case "type":
            kinds = [wanted] if isinstance(wanted, str) else wanted
            names = _(" or ").join(_(_TYPES[k]) for k in kinds if k != "null")
            hint = ""
            if "boolean" in kinds and str(value).lower() in ("yes", "on", "no", "off"):
                hint = _(", did you mean '{word}'?").format(
                    word="true" if str(value).lower() in ("yes", "on") else "false"
                )
            return _("expected {wanted}, found {found}").format(wanted=names, found=shown) + hint
        case "minimum" | "exclusiveMinimum":
            return _("{found} is too small: at least {limit}").format(found=shown, limit=wanted)
        case "maximum" | "exclusiveMaximum":
            return _("{found} is too large: at most {limit}").format(found=shown, limit=wanted)
        case "enum":
            choices = ", ".join(_shown(w) for w in wanted)
            hint = suggestion(str(value), [str(w) for w in wanted])
            return _("expected one of {choices}, found {found}{hint}").format(choices=choices, found=shown, hint=hint)
        case "minLength" | "minItems" | "minProperties":
            return _("{found} is too short: at least {limit}").format(found=shown, limit=wanted)
        case "maxLength" | "maxItems" | "maxProperties":
            return _("{found} is too long: at most {limit}").format(found=shown, limit=wanted)
        case "pattern":
            return _("{found} does not have the form that is wanted here").format(found=shown)
        case _:
            return error.message


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"'{value[:60]}'"
    if isinstance(value, dict):
        return _("an object")
    if isinstance(value, list):
        return _("a list")
    if value is None:
        return _("nothing")
    return str(value).lower() if isinstance(value, bool) else str(value)
