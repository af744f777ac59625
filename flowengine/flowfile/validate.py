"""The values of an options struct against its schema: what is unknown, missing, of the wrong type, out of range."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from jsonschema import Draft7Validator
from jsonschema.exceptions import ValidationError

from flowengine.flowfile import schema
from flowengine.flowfile.problems import Mark, Problems, nearest, suggestion
from flowengine.flowfile.sentences import finding, leaves
from flowengine.flowfile.tree import Mapping, Sequence, Tree, is_null, mark_of
from flowengine.i18n import _


def validate(values: Any, tree: Tree, options: type[msgspec.Struct], mark: Mark, problems: Problems) -> None:
    """Check the values read from `tree` against the schema of `options`, and say every finding at its place."""
    bare = schema.bare_option(options)
    for found in Draft7Validator(schema.validation(options)).iter_errors(values):
        for error in leaves(found):
            path = list(error.absolute_path)
            at = mark_of(tree, path, bare) or mark
            if error.validator == "additionalProperties":
                _unknown(error, tree, bare, mark, problems)
            elif error.validator == "required":
                _missing(error, tree, bare, at if path else mark, problems)
            else:
                name = next((step for step in reversed(path) if isinstance(step, str)), "")
                problems.error(at, finding(error, name))


def _unknown(error: ValidationError, tree: Tree, bare: str, mark: Mark, problems: Problems) -> None:
    known = _properties(error)
    for key in sorted(set(_instance(error)) - set(known)):
        at = mark_of(tree, [*error.absolute_path, key], bare, key=True) or mark
        text = _("unknown option '{key}'{hint}").format(key=key, hint=suggestion(key, known))
        problems.error(at, text)


def _missing(error: ValidationError, tree: Tree, bare: str, mark: Mark, problems: Problems) -> None:
    """Say which option is missing, if it does not stand there, wrong or misspelt, and was said already."""
    known = _properties(error)
    required: Any = error.validator_value
    written = set(_written(tree, list(error.absolute_path), bare))
    meant = {nearest(key, known) for key in written - set(known)}
    for name in required:
        if name not in _instance(error) and name not in written | meant and repr(name) in error.message:
            problems.error(mark, _("option '{name}' is missing").format(name=name))


def _properties(error: ValidationError) -> list[str]:
    """The options there are where the error is."""
    schema: Any = error.schema
    return list(schema.get("properties", ()))


def _instance(error: ValidationError) -> dict[str, Any]:
    instance: Any = error.instance
    return instance if isinstance(instance, dict) else {}


def _written(tree: Tree | None, path: list[Any], bare: str) -> Iterator[str]:
    """The names of options that stand at `path`, whatever became of them."""
    for step in path:
        if isinstance(tree, Mapping):
            tree = tree.get(step)
        elif isinstance(tree, Sequence) and isinstance(step, int):
            tree = tree.items[step] if step < len(tree.items) else None
    if isinstance(tree, Mapping):
        yield from tree.keys()
    elif tree is not None and not is_null(tree):
        yield bare
