"""An env that an installed package registers is used like one of RobotRL's own."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "external_package"
ROOT = Path(__file__).parents[2]

BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
USE = """
import numpy as np
from robotrl.envs import make_vec
from robotrl.envs.checker import check_env
from robotrl.envs.config import EnvConfig, build_env
from robotrl.envs.registry import environments

assert "external/point" in environments.names()
env = make_vec("external/point", num_envs=3, seed=1, speed=0.2)
assert env.env_spec.time_limit == 30 and env.env_spec.success
env.reset()
env.step(np.zeros((3, 2)))
check_env("external/point")
build_env(EnvConfig(id="external/point", action_repeat=2, history=2, time_limit=5)).reset()
try:
    make_vec("external/pointt")
except Exception as error:
    print(error)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder on the import path with the package as an installer would put it there."""
    source, wheels, target = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "target"))
    shutil.copytree(PACKAGE, source, dirs_exist_ok=True)
    run([sys.executable, "-c", BUILD, str(wheels)], cwd=source)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(target)
    return target


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_installed_package_adds_an_env_that_passes_the_checker(installed):
    path = os.pathsep.join([str(installed), str(ROOT)])
    said = run([sys.executable, "-c", USE], env={**os.environ, "PYTHONPATH": path}, cwd=installed)
    assert "Unknown env 'external/pointt'. Did you mean 'external/point'" in said


def test_the_example_is_short():
    assert len((PACKAGE / "robotrl_example_env.py").read_text().splitlines()) <= 45


def test_without_the_package_the_env_is_unknown():
    from robotrl.envs.registry import environments

    assert "external/point" not in environments.names()
