"""Imports point one way: import-linter sees the whole package, symlinked folders included, and its contracts bite."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

from tests.house.tree import LINKED, ROOT, modules


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("robotrl", *LINKED):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_import_graph_holds_every_module_of_every_folder():
    expected = set()
    for module in modules():
        parts = module.with_suffix("").parts
        expected.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    assert grimp.build_graph("robotrl", cache_dir=None).modules == expected


@pytest.mark.parametrize(
    ("module", "statement", "names"),
    [
        ("robotrl/learners/planted.py", "import robotrl.envs", "robotrl.learners.planted -> robotrl.envs"),
        (
            "robotrl/learners/planted.py",
            "def f():\n    import robotrl.runners",
            "robotrl.learners.planted -> robotrl.runners",
        ),
        ("robotrl/learners/planted.py", "import safetensors", "robotrl.learners.planted -> safetensors"),
        ("envs/planted.py", "from robotrl import policies", "robotrl.envs.planted -> robotrl.policies"),
        ("policies/planted.py", "import robotrl.envs.config", "robotrl.policies.planted -> robotrl.envs.config"),
        ("robotrl/functional/planted.py", "import robotrl.nets", "robotrl.functional.planted -> robotrl.nets"),
        ("robotrl/runners/planted.py", "import robotrl.cli", "robotrl.runners.planted -> robotrl.cli"),
        ("robotrl/unlisted.py", "import robotrl.types", "unlisted"),
    ],
)
def test_a_planted_violation_is_reported(copy, module, statement, names):
    (copy / module).write_text(statement + "\n", encoding="utf-8")
    done = lint_imports(copy)
    assert done.returncode != 0
    assert names in done.stdout + done.stderr


def test_the_copy_without_a_planted_violation_passes(copy):
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout


def test_a_bare_import_of_a_linked_folder_is_banned_by_ruff(tmp_path):
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    banned = config["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    assert sorted(banned) == sorted(LINKED)
    planted = tmp_path / "planted.py"
    planted.write_text("import envs\nfrom policies.io import load_policy\n", encoding="utf-8")
    ruff = [Path(sys.executable).with_name("ruff"), "check", "--no-cache", "--config", ROOT / "pyproject.toml"]
    done = subprocess.run([*ruff, planted], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.count("TID251") == 2
