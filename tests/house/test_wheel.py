"""The wheel holds everything: installed elsewhere, one command runs from another folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.house.tree import LINKED, ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the tracked and the new files, built in a copy: a build leaves folders behind."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if name.startswith(("tests/", "benchmarks/", "docs/")) or not (ROOT / name).exists():
            continue
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name, follow_symlinks=False)
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True, timeout=120)
    (built,) = out.glob("robotrl-*.whl")
    return built


def test_every_tracked_file_of_the_package_is_in_the_wheel(wheel):
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    folders = ("robotrl/", *(f"{name}/" for name in LINKED))
    expected = {n if n.startswith("robotrl/") else f"robotrl/{n}" for n in tracked if n.startswith(folders)}
    expected -= {f"robotrl/{name}" for name in LINKED}  # the links themselves
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {n for n in expected if (ROOT / n).exists()} - held == set()


def test_the_installed_wheel_runs_a_command_from_another_folder(wheel, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True, timeout=120)
    python = tmp_path / "env" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, timeout=120)
    site = tmp_path / "env" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    # The dependencies of the environment that runs the tests; its own editable robotrl is not on this path.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    where = tmp_path / "elsewhere"
    where.mkdir()

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run(python, "-c", "import robotrl; print(robotrl.__file__)").startswith(str(site))
    assert "HalfCheetah-v5" in run(tmp_path / "env" / "bin" / "robotrl", "list", "envs")
