"""A folder of flow files: which are flows, templates, shared connections; instances; one `Project` or every problem."""

from __future__ import annotations

import os
from collections.abc import Iterable
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, replace
from pathlib import Path

from flowengine.flowfile.check import check_claims, check_flow
from flowengine.flowfile.files import File, blank, open_file, text_at
from flowengine.flowfile.flow import FlowReader
from flowengine.flowfile.model import FlowDef, Project
from flowengine.flowfile.params import Given, read_params
from flowengine.flowfile.parts import Place, read_connections
from flowengine.flowfile.problems import FlowError, Problem, Problems, Source, ordered, suggestion
from flowengine.flowfile.substitute import Scope, Unset
from flowengine.flowfile.tree import Mapping, Scalar, Tree
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
        self.environ = environ
        self.found: list[Problem] = []
        self.project = Project()
        self.place = Place(registry, self.project.shared, environ, state)
        self.files: dict[Path, File | None] = {}
        self.used: set[Path] = set()
        self.secrets: set[str] = set()

    def load(self, paths: list[Path]) -> Loaded:
        wanted = flow_files(paths)
        files = [file for path in wanted if (file := self._open(path)) is not None]
        for file in files:
            if file.kind == "connections":
                self._shared(file)
        for file in files:
            if file.kind == "flow":
                self._flow(file)
        templates = [file for file in files if file.kind == "template"]
        for file in templates:
            if file.source.path not in self.used:
                self._read(file, file, {}, "")
        check_claims(self.project, {f.source: f.problems for f in self.files.values() if f is not None})
        if not wanted:
            names = ", ".join(p.as_posix() for p in paths)
            text = _("there is no flow file (*.yaml) in {paths}; 'flowengine new project NAME' makes one")
            source = Source(paths[0] if paths else Path())
            self.found.append(Problem(source, (0, 0), "", text.format(paths=names)))
        return Loaded(self.project, ordered(map(self._redacted, self.found)), len(templates))

    def _redacted(self, problem: Problem) -> Problem:
        """The same without any secret: a node's own words may quote the value it refuses."""
        text = problem.text
        for secret in sorted(self.secrets - {""}, key=len, reverse=True):
            text = text.replace(secret, "***")
        return problem if text == problem.text else replace(problem, text=text)

    def _open(self, path: Path) -> File | None:
        """The file, parsed; read once, however many name it."""
        path = Path(os.path.normpath(path))
        if path not in self.files:
            self.files[path] = open_file(path, self.place.registry, self.found)
        return self.files[path]

    def _scope(self, file: File) -> Scope:
        return Scope(file.source.path.parent, environ=self.environ, secrets=self.secrets)

    def _shared(self, file: File) -> None:
        scope = self._scope(file)
        tree = file.top.get("connections")
        self.place.declared |= set(tree.keys()) if isinstance(tree, Mapping) else set()
        read_params(file.top.get("params"), {}, scope, file.problems)
        for name, definition in read_connections(tree, self.place, scope, file.problems, "").items():
            if name in self.project.shared:
                text = _("connection '{name}' is in {file} already")
                text = text.format(name=name, file=self.project.shared[name].source)
                file.problems.error(definition.mark, text, f"connections.{name}")
            else:
                self.project.shared[name] = definition

    def _flow(self, file: File) -> None:
        use = file.top.get("use")
        if use is None:
            if (stray := file.top.get("with")) is not None:
                file.problems.error(stray.mark, _("'with' goes with 'use: TEMPLATE'"), "with")
            self._read(file, file, {}, text_at(file.top, "flow"))
            return
        template = self._template(file, use)
        if template is not None:
            given = self._given(file, template.top)
            self._missing(file, template.top, given, use)
            self._read(file, template, given, text_at(file.top, "flow"))

    def _read(self, file: File, body: File, given: MappingType[str, Given], name: str) -> None:
        """Read and check the flow whose chains stand in `body`: its own file, or its template. No name: for the errors only."""
        problems = Problems(body.source, self.found, flow="" if body is file else name)
        scope = self._scope(body)
        read_params(body.top.get("params"), given, scope, problems, lenient=body.kind == "template")
        named = file.top.get("flow")
        flow = FlowDef(name, body.source, file.source, named.mark if named is not None else (0, 0))
        flow.about = text_at(file.top, "about") or text_at(body.top, "about")
        FlowReader(self.place, scope, problems, flow).read(body.top)
        check_flow(flow, problems)
        if name:
            self.project.flows.append(flow)

    def _template(self, file: File, use: Tree) -> File | None:
        where = "use"
        if not isinstance(use, Scalar) or not use.text:
            file.problems.error(use.mark, _("'use' names the file of a template"), where)
            return None
        for key in ("params", "connections", "chains"):
            if (stray := file.top.get(key)) is not None:
                text = _("'{key}' belongs into the template: an instance has 'use' and 'with'")
                file.problems.error(stray.mark, text.format(key=key), key)
        folder = file.source.path.parent
        path = folder / use.text
        if not path.is_file():
            hint = suggestion(use.text, [f.relative_to(folder).as_posix() for f in flow_files([folder])])
            text = _("there is no template {path}{hint}").format(path=path.as_posix(), hint=hint)
            file.problems.error(use.mark, text, where)
            return None
        opened = self._open(path)
        if opened is not None and opened.kind != "template":
            text = _("{path} is not a template: it begins with '{kind}:'")
            file.problems.error(use.mark, text.format(path=path.as_posix(), kind=opened.kind), where)
            return None
        if opened is not None:
            self.used.add(opened.source.path)
        return opened

    def _given(self, file: File, template: Mapping) -> dict[str, Given]:
        """What the instance gives under `with:`."""
        given: dict[str, Given] = {}
        tree = file.top.get("with")
        params = template.get("params")
        declared = params.keys() if isinstance(params, Mapping) else []
        if tree is None or blank(tree):
            return given
        if not isinstance(tree, Mapping):
            file.problems.error(tree.mark, _("'with' gives values by name: {device: \"0012\"}"), "with")
            return given
        scope = self._scope(file).without_params()
        for key, value in tree.items:
            here = file.problems.at(f"with.{key.text}")
            if key.text not in declared:
                hint = suggestion(key.text, declared)
                here.error(key.mark, _("the template has no param '{name}'{hint}").format(name=key.text, hint=hint))
            elif not isinstance(value, Scalar) or blank(value):
                here.error(value.mark, _("a value is one text, number or true/false"))
            else:
                try:
                    given[key.text] = Given(value, scope.substitute(value.text), here)
                except Unset as unset:
                    here.error(value.mark, str(unset))
        return given

    def _missing(self, file: File, template: Mapping, given: MappingType[str, Given], use: Tree) -> None:
        """In an instance, a param without a value is the instance's error, and is said there."""
        params = template.get("params")
        tree = file.top.get("with")
        written = tree.keys() if isinstance(tree, Mapping) else []
        for key, definition in params.items if isinstance(params, Mapping) else ():
            if not isinstance(definition, Mapping) or key.text in written:
                continue
            env = text_at(definition, "env")
            default = definition.get("default")
            if (default is None or blank(default)) and not (env and self.environ.get(env)):
                text = _("the template wants a value for '{name}': give it under 'with:'").format(name=key.text)
                if env:
                    text += _(", or set the environment variable {name}").format(name=env)
                file.problems.error(use.mark, text, "use")
