"""SBX, Stable-Baselines3's algorithms in JAX, in an environment of its own: JAX stays out of everybody else's.

ROBOTRL_SBX_PYTHON names the interpreter of one that is there already; without it one is made.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from benchmarks import command

PACKAGES = ("sbx-rl",)
LIMIT_S = 600
VARIABLE = "ROBOTRL_SBX_PYTHON"


def python(folder: Path) -> Path | None:
    """The interpreter of a virtual environment in `folder` that has SBX, made if it is missing; None if that fails.

    What is installed here already (PyTorch, Stable-Baselines3, Gymnasium) is taken from here, so that both arms have
    the same, and only JAX and what belongs to it is downloaded.
    """
    if own := os.environ.get(VARIABLE):
        if _has_sbx(Path(own)):
            return Path(own)
        command.say(f"SBX is left out: {VARIABLE} is {own}, which cannot import sbx.")
        return None
    program = folder / "bin" / "python"
    if _has_sbx(program):
        return program
    try:
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        (site / "shared.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
        _run([str(program), "-m", "pip", "install", "--quiet", *PACKAGES])
    except (subprocess.SubprocessError, OSError) as error:
        command.say(f"SBX is left out, as it could not be installed: {_last(error)}")
        return None
    if not _has_sbx(program):
        command.say("SBX is left out: it is installed, but cannot be imported.")
        return None
    return program


def _has_sbx(program: Path) -> bool:
    words = [str(program), "-c", "import sbx"]
    return program.exists() and subprocess.run(words, check=False, capture_output=True).returncode == 0


def _run(words: list[str]) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True, timeout=LIMIT_S)


def _last(error: Exception) -> str:
    lines = str(getattr(error, "stderr", "") or error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
