"""`${param}`, `${env:NAME}`, `${env:NAME:-default}`, `${file:PATH}`, `$${`: once, after parsing, in values only."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowengine.flowfile.model import name_fault
from flowengine.flowfile.problems import nearest, suggestion
from flowengine.i18n import _

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}?")


class Unset(Exception):
    """A reference that gives nothing; the text says why and what to do. offset: where in the text it stands."""

    offset = 0


@dataclass(frozen=True)
class Value:
    """What a param stands for: its text, and the typed value that a lone `${param}` keeps."""

    text: str
    value: Any
    secret: bool = False


@dataclass
class Scope:
    """What `${...}` may name in one file. folder: relative `${file:...}` paths start there."""

    folder: Path
    params: dict[str, Value] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    unknown: set[str] = field(default_factory=set)
    """Params without a value: said once already, where they are declared, or where they are first named and are not declared."""
    secrets: set[str] = field(default_factory=set)
    """What no error may show."""
    own: bool = True
    """Whether params can be named here at all."""

    def without_params(self) -> Scope:
        """The same for the params' own defaults, where no param can be named."""
        return Scope(self.folder, environ=self.environ, secrets=self.secrets, own=False)

    def lone(self, text: str) -> Value | None:
        """The typed value where `text` is one lone `${param}`, else None."""
        found = _REFERENCE.fullmatch(text)
        if found is None or found[1] is None or not text.endswith("}"):
            return None
        return self._resolve(found[1])

    def substitute(self, text: str, literal: Callable[[str, str], str] | None = None) -> str:
        """`text` with every reference replaced by text that means only itself; raises Unset."""
        if "$" not in text:
            return text
        out = ""
        at = 0
        for found in _REFERENCE.finditer(text):
            out += text[at : found.start()]
            at = found.end()
            try:
                out += self._replaced(found, out, literal)
            except Unset as unset:
                unset.offset = found.start()
                raise
        return out + text[at:]

    def _replaced(self, found: re.Match[str], before: str, literal: Callable[[str, str], str] | None) -> str:
        if found[1] is None:
            return "${"
        if not found[0].endswith("}"):
            raise Unset(_("'${' is opened and not closed; the text '${' itself is written '$${'"))
        value = self._resolve(found[1]).text
        return literal(value, before) if literal else value

    def _resolve(self, name: str) -> Value:
        kind, colon, rest = name.partition(":")
        if colon and kind == "env":
            return self._variable(rest)
        if colon and kind == "file":
            return self._file(rest)
        if name in self.params:
            return self.params[name]
        if name in self.unknown:
            raise Unset("")
        if not self.own:
            raise Unset(_("'{name}': a param's own options name no param").format(name=name))
        near = nearest(name, [*self.params, *self.unknown])
        if near is not None and name_fault(near):
            raise Unset("")
        hint = suggestion(name, [*self.params, *self.unknown])
        if not hint:
            hint = _("; params are declared under 'params:'")
            self.unknown.add(name)
        raise Unset(_("unknown param '{name}'{hint}").format(name=name, hint=hint))

    def _variable(self, rest: str) -> Value:
        name, dash, default = rest.partition(":-")
        value = self.environ.get(name)
        if value is None or (dash and not value):
            if not dash:
                raise Unset(
                    _("the environment variable {name} is not set; set it, or write ${{env:{name}:-default}}").format(
                        name=name
                    )
                )
            value = default
        return Value(value, value)

    def _file(self, rest: str) -> Value:
        path = self.folder / rest
        try:
            text = path.read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise Unset(_("cannot read the secret {path}: {reason}").format(path=path, reason=error.strerror)) from None
        except ValueError:
            raise Unset(_("the secret {path} is not UTF-8 text").format(path=path)) from None
        self.secrets.add(text)
        return Value(text, text, secret=True)
