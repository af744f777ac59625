"""What a validator finds, in words for the person who wrote the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jsonschema.exceptions import ValidationError

from flowengine.flowfile.problems import suggestion
from flowengine.flowfile.tree import Mapping, Sequence, Tree
from flowengine.i18n import N_, _


def kind_of(tree: Tree) -> str:
    """What stands there, in a word."""
    if isinstance(tree, Sequence):
        return _("a list")
    return _("an object") if isinstance(tree, Mapping) else _("the text '{text}'").format(text=tree.text[:40])


def expected_text(tree: Tree, name: str) -> str:
    """That the option `name` wants a text."""
    text = _("expected a text, found {found}").format(found=kind_of(tree))
    if isinstance(tree, Mapping) and tree.flow:
        text += _("; a text that begins with { stands in quotes")
    return _of(name, text)


def leaves(error: ValidationError) -> Iterator[ValidationError]:
    """What is wrong inside a choice between a type and null: all that the type says."""
    if error.validator != "anyOf":
        yield error
        return
    for inside in error.context or ():
        if inside.schema_path[0] == 0:
            yield from leaves(inside)


def _of(name: str, text: str) -> str:
    return f"'{name}': {text}" if name else text


_TYPES = {
    "integer": N_("a whole number"),
    "number": N_("a number"),
    "boolean": N_("true or false"),
    "string": N_("a text"),
    "array": N_("a list"),
    "object": N_("an object"),
}


def finding(error: ValidationError, name: str) -> str:
    """jsonschema's finding about the option `name` in our words."""
    return _of(name, _sentence(error))


def _sentence(error: ValidationError) -> str:
    wanted: Any = error.validator_value
    value = error.instance
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
