"""The house is built as the documents say: symlinks, dependencies, pins, entry points, links."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from tests.house.tree import LINKED, PACKAGE, ROOT, modules, parse

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {name: members for name, members in PROJECT["optional-dependencies"].items() if name != "all"}
PIN = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*==[A-Za-z0-9.+!]+")
IMPORT_NAMES = {"dm-control": "dm_control", "hydra-core": "hydra", "stable-baselines3": "stable_baselines3"}
"""Distribution -> what is imported, where the two differ."""


def name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return found.group().lower().replace("_", "-")


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("name", LINKED)
def test_a_top_level_folder_is_a_relative_symlink_in_the_package(name):
    link = PACKAGE / name
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{name}"
    assert (ROOT / name / "__init__.py").is_file()


def test_no_other_symlink_stands_in_the_package():
    assert {p.name for p in PACKAGE.iterdir() if p.is_symlink()} == set(LINKED)


def test_every_folder_with_python_files_is_a_package():
    folders = {(ROOT / module).parent for module in modules()}
    assert [str(f) for f in folders if not (f / "__init__.py").is_file()] == []


def test_the_core_has_at_most_15_direct_dependencies():
    assert len(PROJECT["dependencies"]) <= 15


def test_every_constraint_is_name_equals_version_and_they_are_sorted():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    entries = [line for line in lines if not line.startswith("#")]
    assert [line for line in entries if not PIN.fullmatch(line)] == []
    assert entries == sorted(entries)
    assert len(pins()) == len(entries)


def test_every_direct_dependency_is_pinned():
    requirements = [*PROJECT["dependencies"], *(r for members in EXTRAS.values() for r in members)]
    assert [r for r in requirements if name_of(r) not in pins()] == []


def test_the_tests_run_on_the_pinned_versions():
    named = [name_of(r) for r in (*PROJECT["dependencies"], *(r for m in EXTRAS.values() for r in m))]
    installed = {name: metadata.version(name).partition("+")[0] for name in named}
    assert installed == {name: pins()[name] for name in named}


def test_the_extra_all_holds_every_extra():
    (everything,) = PROJECT["optional-dependencies"]["all"]
    assert set(re.fullmatch(r"robotrl\[(.*)\]", everything).group(1).split(",")) == set(EXTRAS)


def imported_top_names() -> set[str]:
    found: set[str] = set()
    for module in modules():
        for node in ast.walk(parse(module)):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return found


def test_what_the_package_imports_is_declared_and_what_is_declared_is_imported():
    core = {IMPORT_NAMES.get(name_of(r), name_of(r)) for r in PROJECT["dependencies"]}
    optional = {IMPORT_NAMES.get(name_of(r), name_of(r)) for m in EXTRAS.values() for r in m}
    foreign = imported_top_names() - set(sys.stdlib_module_names) - {"robotrl"}
    assert foreign - core - optional == set(), "imported, declared nowhere"
    assert core - foreign == set(), "declared in the core, imported nowhere"


def test_ci_calls_make_test_and_nothing_else():
    path = ROOT / ".ci" / "run"
    assert path.stat().st_mode & 0o111
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines == ["#!/bin/sh", 'cd "$(dirname "$0")/.." && exec make test']


@pytest.mark.parametrize("path", sorted(p.relative_to(ROOT) for p in ROOT.glob("*.md")), ids=str)
def test_links_of_a_top_level_document_resolve(path):
    assert broken_links(ROOT / path) == []


@pytest.mark.parametrize("path", sorted(p.relative_to(ROOT) for p in (ROOT / "docs").rglob("*.md")), ids=str)
def test_links_of_the_docs_resolve(path):
    assert broken_links(ROOT / path) == []


def broken_links(document: Path) -> list[str]:
    """Relative targets that do not exist, anchors included."""
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path) if path else document
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    return broken


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def tracked_files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for path in (ROOT / name for name in listing.split("\0") if name) if path.is_file()]


def test_no_tracked_file_is_larger_than_a_megabyte():
    assert [str(path) for path in tracked_files() if path.stat().st_size > 1 << 20] == []


def test_no_file_names_a_package_registry():
    registry = re.compile(r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|--(extra-)?index-url[ =]http")
    texts = [path for path in tracked_files() if path.resolve() != Path(__file__).resolve()]
    assert [str(p) for p in texts if registry.search(p.read_text(encoding="utf-8", errors="ignore"))] == []
