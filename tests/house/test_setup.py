"""`tools/setup.sh` takes an interpreter that runs, says what to do when there is none, and does nothing twice."""

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


def test_an_interpreter_named_by_hand_that_is_too_old_is_refused(checkout, tmp_path):
    old = script(tmp_path / "old" / "python3", "exit 1")  # what the check of the version ends with
    done = setup(checkout, ROBOTRL_PYTHON=str(old))
    assert done.returncode == 1
    assert f"ROBOTRL_PYTHON={old} is not a working Python 3.12" in done.stderr
    assert not (checkout / ".venv").exists()


FAKE_PYTHON = """
case "$*" in
    *ensurepip*) exit 0 ;;
    --version) echo "Python 3.12.99" ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip config get global.index-url") echo "file:///a/mirror" ;;
    "-m pip config get global.extra-index-url") printf 'file:///more\\nfile:///and/more\\n' ;;
    "-m pip config get"*) exit 1 ;;
    "-m pip install"*uv) [ -n "$NO_UV" ] || cp "$FAKES/uv" "$(dirname "$0")/uv" ;;
    "-m pip install"*) echo "pip $PIP_CONSTRAINT $*" >>"$FAKES/log"; exit "${PIP_STATUS:-0}" ;;
    *has_gl*) exit "${GL_STATUS:-0}" ;;
    *) echo "unexpected: $*" >&2; exit 9 ;;
esac
"""
FAKE_UV = 'echo "uv $UV_DEFAULT_INDEX | $UV_INDEX | $UV_BUILD_CONSTRAINT | $*" >>"$FAKES/log"; exit "${UV_STATUS:-0}"'


@pytest.fixture
def install(checkout, tmp_path):
    """Runs the script with programs that only write down how they were called; returns status, messages and the log."""
    fakes = tmp_path / "fakes"
    script(fakes / "uv", FAKE_UV)
    script(fakes / "apt-get", 'echo "apt-get $*" >>"$FAKES/log"; exit 1')
    script(fakes / "id", "echo 0")
    python = script(fakes / "python3.12", FAKE_PYTHON)

    def run(*arguments: str, **environment: str) -> tuple[int, str, list[str]]:
        (fakes / "log").write_text("", encoding="utf-8")
        known = {"FAKES": str(fakes), "ROBOTRL_PYTHON": str(python), "PATH": f"{fakes}:/usr/bin:/bin", "NO_UV": ""}
        done = setup(checkout, *arguments, **{**known, **environment})
        return done.returncode, done.stderr, (fakes / "log").read_text(encoding="utf-8").splitlines()

    return run


def test_uv_gets_the_pins_and_the_index_that_pip_is_configured_for(install, checkout):
    status, _, (call,) = install("dmc,tune")
    assert status == 0
    index, extra, build, arguments = call.removeprefix("uv ").split(" | ")
    assert index == "file:///a/mirror"
    assert extra.split() == ["file:///more", "file:///and/more"]
    assert build == "constraints.txt"
    assert arguments.startswith("pip install ")
    assert arguments.endswith("-c constraints.txt -e .[dmc,tune]")


def test_an_index_given_to_uv_by_hand_is_kept(install):
    _, _, (call,) = install(UV_DEFAULT_INDEX="file:///mine")
    assert call.startswith("uv file:///mine ")


@pytest.mark.parametrize("trouble", [{"NO_UV": "1"}, {"UV_STATUS": "2"}])
def test_pip_installs_the_same_where_uv_cannot_be_had_or_fails(install, trouble):
    status, messages, log = install(**trouble)
    assert status == 0
    assert "pip" in messages
    assert log[-1].startswith("pip constraints.txt -m pip install ")
    assert log[-1].endswith("-c constraints.txt -e .")


def test_a_failed_installation_is_said_and_tried_again_by_the_next_call(install):
    status, messages, _ = install(UV_STATUS="1", PIP_STATUS="1")
    assert status == 1
    assert "run it again" in messages
    status, _, log = install()
    assert (status, len(log)) == (0, 1)


def test_a_second_call_with_nothing_changed_does_nothing(install):
    install("all")
    assert install("all") == (0, "", [])
    assert install() == (0, "", []), "all includes the core"


def test_more_extras_or_other_pins_are_installed(install, checkout):
    install()
    assert len(install("all")[2]) == 1
    with (checkout / "constraints.txt").open("a", encoding="utf-8") as file:
        file.write("zzz==1\n")
    assert len(install("all")[2]) == 1


def test_without_opengl_root_installs_the_debian_packages_and_the_set_up_still_succeeds(install):
    status, messages, log = install(GL_STATUS="1")
    assert status == 0
    asked = {line.split()[-1] for line in log if line.startswith("apt-get install")}
    assert asked == {"libegl1", "libgl1", "libosmesa6"}
    assert "apt-get install libegl1 libgl1 libosmesa6" in messages
    assert "training works" in messages
