"""`tools/setup.sh` takes an interpreter that runs, says what to do when there is none, and does nothing twice."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import ROOT


def setup(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(root), **environment}
    command = ["sh", str(root / "tools" / "setup.sh"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what the script reads, elsewhere than the one under test."""
    root = tmp_path / "a checkout"
    (root / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "tools" / "setup.sh", root / "tools")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, root)
    return root


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_a_shim_that_fails_is_passed_over_for_a_python_that_runs(checkout, tmp_path):
    shim = script(tmp_path / "shims" / "python3.12", "echo 'pyenv: python3.12: command not found' >&2; exit 127")
    works = script(tmp_path / "pyenv" / "versions" / "3.12.99" / "bin" / "python3.12", f'exec "{sys.executable}" "$@"')
    script(tmp_path / "shims" / "python3", "exit 1")
    script(tmp_path / "shims" / "python", "exit 1")
    done = setup(checkout, "--find-python", PATH=f"{shim.parent}:/usr/bin:/bin", PYENV_ROOT=str(tmp_path / "pyenv"))
    assert done.stdout.strip() == str(works)


def test_an_interpreter_named_by_hand_comes_first(checkout, tmp_path):
    chosen = script(tmp_path / "mine" / "python", f'exec "{sys.executable}" "$@"')
    done = setup(checkout, "--find-python", ROBOTRL_PYTHON=str(chosen))
    assert done.stdout.strip() == str(chosen)


def test_an_old_python_is_not_taken(checkout, tmp_path):
    old = script(tmp_path / "old" / "python3.12", "exit 1")  # what the version check of a Python 2 or 3.11 ends with
    done = setup(checkout, "--find-python", ROBOTRL_PYTHON=str(old))
    assert str(old) not in done.stdout


def test_a_second_call_with_nothing_changed_does_nothing(checkout):
    inputs = b"".join((checkout / n).read_bytes() for n in ("pyproject.toml", "constraints.txt", "tools/setup.sh"))
    digest = subprocess.run(["cksum"], input=inputs, capture_output=True, check=True).stdout.decode().strip()
    script(checkout / ".venv" / "bin" / "python", f'exec "{sys.executable}" "$@"')
    stamp = checkout / ".venv" / "robotrl-setup"
    stamp.write_text(f"{digest}\ncore  all\n", encoding="utf-8")
    before = os.stat(stamp).st_mtime_ns
    for extras in ((), ("all",)):
        done = setup(checkout, *extras)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert os.stat(stamp).st_mtime_ns == before
