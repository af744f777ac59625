"""`params:`: what may be set from outside, each with its type and its value."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta

from flowengine.flowfile.model import name_fault
from flowengine.flowfile.problems import Mark, Problems
from flowengine.flowfile.reader import Reader
from flowengine.flowfile.substitute import Scope, Unset, Value
from flowengine.flowfile.tree import Mapping, Scalar, Tree, core_value
from flowengine.i18n import N_, _
from flowengine.node import NodeOptions
from flowengine.options import Duration

_NULL = ("", "~", "null")


class Param(NodeOptions):
    """One entry of `params:`."""

    env: Annotated[str | None, Meta(description="The environment variable that sets it")] = None
    default: Annotated[Any, Meta(description="What it is when nothing sets it")] = None
    about: Annotated[str | None, Meta(description="A word for the people who set it")] = None
    type: Annotated[
        Literal["text", "int", "number", "bool", "duration", "secret"] | None,
        Meta(description="What the value must be; by default what the default value is"),
    ] = None


_WANTED = {
    "int": N_("a whole number"),
    "number": N_("a number"),
    "bool": N_("true or false"),
    "duration": N_("a length of time such as 50ms, 10s, 5m, 72h or 7d"),
}


@dataclass(frozen=True)
class Given:
    """A value that an instance gives to its template's param, and where errors about it belong."""

    scalar: Scalar
    text: str
    problems: Problems


def read_params(
    tree: Tree | None, given: MappingType[str, Given], scope: Scope, problems: Problems, *, lenient: bool = False
) -> None:
    """Give every declared param its value in `scope`: from the instance's `with:`, the environment, or its default.

    lenient: a param without a value is no error; what refers to it is then left unread. So a template is checked by itself.
    """
    if tree is None:
        return
    if not isinstance(tree, Mapping):
        problems.error(tree.mark, _("'params' is a list of names, each with its options below it"), "params")
        return
    scope.unknown |= set(tree.keys())
    for key, body in tree.items:
        here = problems.at(f"params.{key.text}")
        if fault := name_fault(key.text):
            here.error(key.mark, fault)
            continue
        default = _default(body)
        _mask(body, default, given.get(key.text), problems)
        rest: Tree = body
        if isinstance(body, Mapping):
            rest = Mapping(body.mark, [item for item in body.items if item[0].text != "default"])
        param = Reader(here, scope.without_params()).read(rest, Param, key.mark)
        if param is None:
            continue
        value = _value(key, param, default, given.get(key.text), scope, here, lenient)
        if value is not None:
            scope.unknown.discard(key.text)
            scope.params[key.text] = value


def _mask(body: Tree, default: Tree | None, given: Given | None, problems: Problems) -> None:
    """Let no error show a secret's line with the secret in it."""
    kind = body.get("type") if isinstance(body, Mapping) else None
    if not isinstance(kind, Scalar) or kind.text != "secret":
        return
    if isinstance(default, Scalar) and "${" not in default.text:
        problems.source.mask(default.mark)
    if given is not None and "${" not in given.scalar.text:
        given.problems.source.mask(given.scalar.mark)


def _default(body: Tree) -> Tree | None:
    """The default as it stands; null is none."""
    default = body.get("default") if isinstance(body, Mapping) else None
    return None if isinstance(default, Scalar) and default.plain and default.text in _NULL else default


def _value(
    key: Scalar,
    param: Param,
    default: Tree | None,
    given: Given | None,
    scope: Scope,
    problems: Problems,
    lenient: bool,
) -> Value | None:
    kind = param.type or _kind_of(default)
    if given is not None:
        return _typed(given.text, kind, _("the value given"), given.scalar.mark, scope, given.problems)
    if param.env and scope.environ.get(param.env):
        origin = _("the environment variable {name}").format(name=param.env)
        return _typed(scope.environ[param.env], kind, origin, key.mark, scope, problems)
    if isinstance(default, Scalar):
        try:
            text = scope.without_params().substitute(default.text)
        except Unset as unset:
            problems.error(default.mark, str(unset))
            return None
        return _typed(text, kind, _("the default"), default.mark, scope, problems)
    if default is not None:
        problems.error(default.mark, _("a default is one text, number or true/false"))
    elif not lenient:
        way = _(": give a default, or env")
        if param.env:
            way = _("; set the environment variable {name}, or give a default").format(name=param.env)
        problems.error(key.mark, _("'{name}' has no value{way}").format(name=key.text, way=way))
    return None


def _kind_of(default: Tree | None) -> str:
    if isinstance(default, Scalar) and default.plain:
        try:
            value = core_value(default.text)
        except ValueError:
            return "text"
        for kind, python in (("bool", bool), ("int", int), ("number", float)):
            if type(value) is python:
                return kind
    return "text"


def _typed(text: str, kind: str, origin: str, mark: Mark, scope: Scope, problems: Problems) -> Value | None:
    """The value of a text by the param's type, or None where it does not fit (and said)."""
    if kind == "secret":
        scope.secrets.add(text)
        return Value(text, text, secret=True)
    try:
        return Value(text, _read(text, kind))
    except ValueError:
        said = _("{origin} is '{text}', expected {wanted}")
        problems.error(mark, said.format(origin=origin, text=text[:60], wanted=_(_WANTED[kind])))
        return None


def _read(text: str, kind: str) -> Any:
    if kind in ("int", "number", "bool"):
        value = core_value(text)
        good = {"int": type(value) is int, "number": type(value) in (int, float), "bool": type(value) is bool}[kind]
        if not good:
            raise ValueError(text)
        return value
    if kind == "duration":
        Duration(text)
    return text
