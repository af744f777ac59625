"""A folder of flow files: which are flows, templates, shared connections; instances; one `Project` or every problem."""

from __future__ import annotations

import os
from collections.abc import Iterable
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field
from pathlib import Path

from flowengine.flowfile.check import check_claims, check_flow
from flowengine.flowfile.flow import NAME, RESERVED_TOP, TOP, FlowReader, Place, read_connections, read_params
from flowengine.flowfile.model import Project
from flowengine.flowfile.problems import FlowError, Problem, Problems, Source, ordered, suggestion
from flowengine.flowfile.substitute import Scope, Unset, Value
from flowengine.flowfile.tree import Mapping, Scalar, Tree, parse
from flowengine.i18n import _
from flowengine.plugins import Registry

SUFFIXES = (".yaml", ".yml")


@dataclass
class Loaded:
    """What a folder gave: the project (also where it has errors, as far as it could be read) and what was found."""

    project: Project
    problems: list[Problem]
    templates: int = 0

    @property
    def errors(self) -> list[Problem]:
        """The errors among the problems."""
        return [p for p in self.problems if p.severity == "error"]

    @property
    def warnings(self) -> list[Problem]:
        """The warnings among the problems."""
        return [p for p in self.problems if p.severity == "warning"]

    def checked(self) -> Project:
        """The project; raises FlowError with every error."""
        if self.errors:
            raise FlowError(self.errors)
        return self.project


@dataclass
class _File:
    source: Source
    problems: Problems
    top: Mapping
    kind: str
    checked: bool = field(default=False)


def flow_files(paths: Iterable[Path]) -> list[Path]:
    """The flow files that paths name: files as they are, folders with all below them (hidden ones left out), sorted."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = (f for f in path.rglob("*") if f.suffix in SUFFIXES and f.is_file())
            found += sorted(f for f in below if not any(p.startswith(".") for p in f.relative_to(path).parts))
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def load(
    paths: Iterable[Path],
    registry: Registry,
    *,
    environ: MappingType[str, str] | None = None,
    state: Path | None = None,
) -> Loaded:
    """Read and check every flow file that `paths` name. Never raises for what stands in a file: that is in `problems`."""
    return _Loader(registry, os.environ if environ is None else environ, state).load(list(paths))


class _Loader:
    def __init__(self, registry: Registry, environ: MappingType[str, str], state: Path | None) -> None:
        self.registry = registry
        self.environ = environ
        self.state = state
        self.found: list[Problem] = []
        self.project = Project()
        self.templates = 0

    def load(self, paths: list[Path]) -> Loaded:
        files = [file for path in flow_files(paths) if (file := self._open(path)) is not None]
        for file in files:
            if file.kind == "connections":
                self._shared(file)
        by_source: dict[Source, Problems] = {file.source: file.problems for file in files}
        for file in files:
            if file.kind == "template":
                self.templates += 1
            elif file.kind == "flow":
                self._flow(file, by_source)
        check_claims(self.project, by_source)
        if not files and not self.found:
            names = ", ".join(p.as_posix() for p in paths)
            text = _("there is no flow file (*.yaml) in {paths}; 'flowengine new project NAME' makes one").format(
                paths=names
            )
            self.found.append(Problem(Source(paths[0] if paths else Path()), (0, 0), "", text))
        return Loaded(self.project, ordered(self.found), self.templates)

    def _open(self, path: Path) -> _File | None:
        source, text = self._text(path)
        if text is None:
            return None
        problems = Problems(source, self.found)
        tree = parse(text, problems)
        if tree is None or _blank(tree):
            if not any(p.source == source for p in self.found):
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
        self._top(tree, problems)
        return _File(source, problems, tree, kind)

    def _text(self, path: Path) -> tuple[Source, str | None]:
        source = Source(path)
        problems = Problems(source, self.found)
        try:
            raw = path.read_bytes()
        except OSError as error:
            problems.error((0, 0), _("cannot be read: {reason}").format(reason=error.strerror))
            return source, None
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = raw[: error.start].decode("utf-8", "replace")
            mark = (before.count("\n"), len(before) - before.rfind("\n") - 1)
            problems.error(mark, _("not UTF-8: save the file as UTF-8 (an editor on Windows may have used GBK)"))
            return source, None
        source.lines.extend(text.splitlines())
        return source, text

    def _top(self, top: Mapping, problems: Problems) -> None:
        for key, value in top.items:
            if key.text in RESERVED_TOP:
                problems.error(key.mark, _("'{key}' is reserved for later").format(key=key.text))
            elif key.text == "format" and not (isinstance(value, Scalar) and value.text == "1"):
                problems.error(value.mark, _("this format is not known: this version of flowengine reads format 1"))
            elif key.text not in TOP and not key.text.startswith("x-"):
                hint = suggestion(key.text, TOP)
                problems.error(key.mark, _("unknown key '{key}'{hint}").format(key=key.text, hint=hint))

    def _shared(self, file: _File) -> None:
        scope = Scope(file.source.path.parent, environ=self.environ)
        read_params(file.top.get("params"), {}, scope, file.problems)
        found = read_connections(file.top.get("connections"), self._place(), scope, file.problems, "")
        for name, definition in found.items():
            if name in self.project.shared:
                text = _("connection '{name}' is in {file} already").format(
                    name=name, file=self.project.shared[name].source
                )
                file.problems.error(definition.mark, text, f"connections.{name}")
            else:
                self.project.shared[name] = definition

    def _place(self) -> Place:
        return Place(self.registry, self.project.shared, self.environ, self.state)

    def _flow(self, file: _File, by_source: dict[Source, Problems]) -> None:
        name_tree = file.top.get("flow")
        name = name_tree.text if isinstance(name_tree, Scalar) else ""
        if name_tree is not None and NAME.fullmatch(name) is None:
            file.problems.error(name_tree.mark, _("a name has letters, digits, - and _ only"), "flow")
            return
        before = file.problems.count()
        body, problems, given = file.top, file.problems, {}
        if (use := file.top.get("use")) is not None:
            opened = self._use(file, use)
            if opened is None:
                return
            body, problems = opened.top, opened.problems
            by_source.setdefault(opened.source, opened.problems)
            given = self._with(file, body)
        elif (stray := file.top.get("with")) is not None:
            file.problems.error(stray.mark, _("'with' goes with 'use: TEMPLATE'"), "with")
        scope = Scope(problems.source.path.parent, environ=self.environ)
        at = file.problems if given or use is not None else problems
        self._missing(body, given, scope, at, use)
        read_params(body.get("params"), given, scope, problems)
        flow = FlowReader(self._place(), scope, problems, name).read(body)
        about = file.top.get("about") or body.get("about")
        flow.about = about.text if isinstance(about, Scalar) else ""
        if problems.count() == before:
            check_flow(flow, problems)
        self.project.flows.append(flow)

    def _use(self, file: _File, use: Tree) -> _File | None:
        where = "use"
        if not isinstance(use, Scalar):
            file.problems.error(use.mark, _("'use' names the file of a template"), where)
            return None
        for key in ("params", "connections", "chains"):
            if (stray := file.top.get(key)) is not None:
                file.problems.error(
                    stray.mark,
                    _("'{key}' belongs into the template: an instance has 'use' and 'with'").format(key=key),
                    key,
                )
        path = file.source.path.parent / use.text
        if not path.is_file():
            near = [f.relative_to(file.source.path.parent).as_posix() for f in flow_files([file.source.path.parent])]
            hint = suggestion(use.text, near)
            file.problems.error(
                use.mark, _("there is no template {path}{hint}").format(path=path.as_posix(), hint=hint), where
            )
            return None
        opened = self._open(path)
        if opened is not None and opened.kind != "template":
            file.problems.error(
                use.mark,
                _("{path} is not a template: it begins with '{kind}:'").format(path=path.as_posix(), kind=opened.kind),
                where,
            )
            return None
        return opened

    def _with(self, file: _File, template: Mapping) -> dict[str, Value]:
        given: dict[str, Value] = {}
        tree = file.top.get("with")
        params = template.get("params")
        declared = params.keys() if isinstance(params, Mapping) else []
        if tree is None:
            return given
        if not isinstance(tree, Mapping):
            file.problems.error(tree.mark, _("'with' gives values by name: {device: \"0012\"}"), "with")
            return given
        scope = Scope(file.source.path.parent, environ=self.environ)
        for key, value in tree.items:
            here = file.problems.at(f"with.{key.text}")
            if key.text not in declared:
                hint = suggestion(key.text, declared)
                here.error(key.mark, _("the template has no param '{name}'{hint}").format(name=key.text, hint=hint))
            elif not isinstance(value, Scalar):
                here.error(value.mark, _("a value is one text, number or true/false"))
            else:
                try:
                    text = scope.substitute(value.text)
                except Unset as unset:
                    here.error(value.mark, str(unset))
                else:
                    given[key.text] = Value(text, text)
        return given

    def _missing(
        self, body: Mapping, given: MappingType[str, Value], scope: Scope, problems: Problems, use: Tree | None
    ) -> None:
        """In an instance, a param without a value is the instance's error, and is said there."""
        params = body.get("params")
        if use is None or not isinstance(params, Mapping):
            return
        for key, definition in list(params.items):
            declared = isinstance(definition, Mapping)
            has = isinstance(definition, Mapping) and (
                definition.get("default") is not None or definition.get("env") is not None
            )
            if declared and not has and key.text not in given:
                text = _("the template wants a value for '{name}': give it under 'with:'").format(name=key.text)
                problems.error(use.mark, text, "use")
                scope.unknown.add(key.text)
                params.items.remove((key, definition))


def _blank(tree: Tree) -> bool:
    return isinstance(tree, Scalar) and tree.plain and tree.text == ""
