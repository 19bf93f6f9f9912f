"""Other libraries that claims are measured against and that stay out of our environment: each in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from benchmarks import command, lib

LIMIT_S = 600


@dataclass(frozen=True, slots=True)
class Peer:
    """A library and the environment that it is installed in."""

    title: str
    package: str
    module: str
    """That can be imported where it is installed."""
    variable: str
    """Environment variable that names the interpreter of an environment that is there already."""

    def python(self) -> Path | None:
        """The interpreter of its environment below `benchmarks/work`, made if it is missing; None if that fails.

        What is installed here already (PyTorch, Gymnasium) is taken from here, so that both arms have the same, and
        only the library and what belongs to it alone is downloaded.
        """
        if own := os.environ.get(self.variable):
            if self._works(Path(own)):
                return Path(own)
            command.say(f"{self.title} is left out: {self.variable} is {own}, which cannot import {self.module}.")
            return None
        folder = lib.WORK / "peers" / self.module
        program = folder / "bin" / "python"
        if self._works(program):
            return program
        try:
            _run([sys.executable, "-m", "venv", "--clear", str(folder)])
            site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
            (site / "shared.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
            _run([str(program), "-m", "pip", "install", "--quiet", self.package])
        except (subprocess.SubprocessError, OSError) as error:
            command.say(f"{self.title} is left out, as it could not be installed: {_last(error)}")
            return None
        if not self._works(program):
            command.say(f"{self.title} is left out: it is installed, but cannot be imported.")
            return None
        return program

    def _works(self, program: Path) -> bool:
        words = [str(program), "-c", f"import {self.module}"]
        return program.exists() and subprocess.run(words, check=False, capture_output=True).returncode == 0


SBX = Peer("SBX", "sbx-rl", "sbx", "ROBOTRL_SBX_PYTHON")
"""Stable-Baselines3's algorithms in JAX."""
SHEEPRL = Peer("sheeprl", "sheeprl==0.8.4", "sheeprl", "ROBOTRL_SHEEPRL_PYTHON")
"""Dreamer and others in PyTorch."""


def _run(words: list[str]) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True, timeout=LIMIT_S)


def _last(error: Exception) -> str:
    lines = str(getattr(error, "stderr", "") or error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
