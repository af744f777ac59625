"""The project itself: what is committed, what is locked, what is built, and that the checks check."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from flowengine import __version__

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = ["requirements.lock", "requirements-dev.lock"]
PINS = [*LOCKS, "benchmarks/opponents/mqttwarn/requirements.lock"]
PACKAGE_LOCKS = ["tests/editor/package-lock.json", "benchmarks/opponents/nodered/package-lock.json"]
PACKS = ["flowengine_nodes", "flowengine_mqtt", "flowengine_http", "flowengine_simulate"]

# Written so that this file does not name them either.
REGISTRIES = re.compile(r"pypi[.]org|pythonhosted[.]org|npmjs[.](org|com)|npmmirror[.]com")
MACHINE_PATHS = re.compile(r"(?<![\w.}/-])/(home|root|work|tmp|Users|opt)/\w|\w:\\Users\\")


def files_of_the_project() -> list[str]:
    """What git has or would take, by its path in the tree."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted({name for name in listed.split("\0") if name and (ROOT / name).is_file()})


@pytest.mark.parametrize("pattern", [REGISTRIES, MACHINE_PATHS], ids=["registry host", "machine path"])
def test_no_file_names_a_registry_host_or_a_path_of_a_machine(pattern: re.Pattern[str]) -> None:
    found = []
    for name in files_of_the_project():
        data = (ROOT / name).read_bytes()
        if b"\0" in data:
            continue
        lines = data.decode("utf-8").splitlines()
        found += [
            f"{name}:{number}: {line.strip()[:120]}" for number, line in enumerate(lines, 1) if pattern.search(line)
        ]
    assert found == []


def locked(lock: str) -> dict[str, str]:
    """The versions a lock pins, by the name of the distribution."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", text, re.MULTILINE))


def required(*groups: str) -> list[Requirement]:
    """What pyproject.toml asks for in its dependencies, its extras and the given dependency groups."""
    lines = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
    lines += [line for extra in PROJECT["project"]["optional-dependencies"].values() for line in extra]
    lines += [line for group in groups for line in PROJECT["dependency-groups"][group] if isinstance(line, str)]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("lock", PINS)
def test_everything_in_a_lock_is_pinned_and_hashed(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    entries = re.split(r"^(?=\S)", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE)
    entries = [entry for entry in entries if entry.strip()]
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==\S+", entry) and "--hash=sha256:" in entry, entry.splitlines()[0]


@pytest.mark.parametrize("lock", PINS)
def test_a_lock_names_no_index_and_no_place(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert re.findall(r"://|--(?:extra-)?index-url|--find-links|@ file", text) == []


@pytest.mark.parametrize(("lock", "groups"), [(LOCKS[0], ["build"]), (LOCKS[1], ["build", "test", "dev"])])
def test_a_lock_has_what_the_project_asks_for(lock: str, groups: list[str]) -> None:
    versions = locked(lock)
    for requirement in required(*groups):
        version = versions.get(requirement.name)
        assert version and requirement.specifier.contains(version), f"{requirement}: locked is {version}; make lock"


def test_the_two_locks_agree() -> None:
    assert locked(LOCKS[0]).items() <= locked(LOCKS[1]).items()


@pytest.mark.parametrize("lock", PACKAGE_LOCKS)
def test_a_lock_of_npm_packages_names_no_registry(lock: str) -> None:
    packages = json.loads((ROOT / lock).read_text(encoding="utf-8"))["packages"]
    for name, package in packages.items():
        assert "resolved" not in package
        assert not name or package["integrity"].startswith("sha512-")


def test_the_command_and_every_node_pack_load() -> None:
    (command,) = entry_points(group="console_scripts", name="flowengine")
    assert callable(command.load())
    packs = {entry.value: entry.load() for entry in entry_points(group="flowengine")}
    assert packs.keys() >= set(PACKS)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    folder = tmp_path_factory.mktemp("dist")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
    ]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True)
    (path,) = folder.glob("flowengine-*-py3-none-any.whl")
    return ZipFile(path)


def test_the_wheel_holds_the_packages_and_the_data_and_nothing_else(wheel: ZipFile) -> None:
    places = {
        "flowengine/": "flowengine/",
        "plugins/": "",
        "flows/": "flowengine/data/flows/",
        "examples/": "flowengine/data/examples/",
        "schemas/flow.schema.json": "flowengine/data/schemas/flow.schema.json",
    }
    expected = {
        inside + name.removeprefix(outside)
        for name in files_of_the_project()
        for outside, inside in places.items()
        if name.startswith(outside)
    }
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == expected
    assert {
        "flowengine/py.typed",
        "flowengine/data/schemas/flow.schema.json",
        "flowengine/data/flows/facegate.yaml",
    } <= held


def test_the_wheel_brings_its_command_its_node_packs_and_its_licence(wheel: ZipFile) -> None:
    info = f"flowengine-{__version__}.dist-info"
    written = wheel.read(f"{info}/entry_points.txt").decode()
    assert "flowengine = flowengine.cli:main" in written
    assert all(f"= {pack}\n" in written + "\n" for pack in PACKS)
    assert f"{info}/licenses/LICENSE" in wheel.namelist()


def test_a_project_can_be_made_from_the_wheel_alone(wheel: ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    command = [sys.executable, "-m", "flowengine", "new", "project", "gate"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    for file in ("flows/facegate.yaml", "schemas/flow.schema.json"):
        assert (tmp_path / "gate" / file).read_bytes() == (ROOT / file).read_bytes()


@pytest.fixture(scope="module")
def copied_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages in which a test may break a law."""
    tree = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "pyproject.toml", tree)
    for folder in ("flowengine", "plugins"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tree


@pytest.mark.parametrize(
    ("module", "line", "law"),
    [
        ("flowengine/runtime/lawless.py", "import flowengine_nodes", "The engine knows no node pack"),
        (
            "plugins/flowengine_http/lawless.py",
            "from flowengine.message import Message",
            "A node pack uses only what flowengine and flowengine.testing export",
        ),
        (
            "plugins/flowengine_http/lawless.py",
            "import flowengine_mqtt",
            "Node packs do not know one another",
        ),
        ("flowengine/runtime/lawless.py", "import flowengine.cli", "Nobody imports the command line"),
        (
            "flowengine/message.py",
            "import flowengine.node",
            "Each layer of the engine knows only those below it",
        ),
        ("flowengine/lawless.py", "", "Each layer of the engine knows only those below it"),
        ("flowengine/message.py", "import flowengine.node", "There are no circles"),
    ],
)
def test_a_broken_law_of_the_layering_is_found(copied_tree: Path, module: str, line: str, law: str) -> None:
    path = copied_tree / module
    before = path.read_text(encoding="utf-8") if path.exists() else None
    path.write_text(f"{before or ''}\n{line}\n", encoding="utf-8")
    try:
        verdict = subprocess.run(
            [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
            cwd=copied_tree,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(copied_tree), str(copied_tree / "plugins")]),
            },
            capture_output=True,
            text=True,
        )
    finally:
        path.unlink() if before is None else path.write_text(before, encoding="utf-8")
    assert verdict.returncode == 1, verdict.stdout + verdict.stderr
    assert f"{law} BROKEN" in verdict.stdout


def test_ci_runs_make_test_which_runs_every_check() -> None:
    ci = ROOT / ".ci/run"
    assert os.access(ci, os.X_OK)
    assert "exec make test" in ci.read_text(encoding="utf-8")
    command = ["make", "--always-make", "--dry-run", "test"]
    plan = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for check in (
        "ruff check",
        "ruff format",
        "mypy",
        "lint-imports",
        "tools/setup mosquitto",
        "npm",
        "/pytest",
    ):
        assert check in plan
    assert plan.count("--require-hashes") == 2
