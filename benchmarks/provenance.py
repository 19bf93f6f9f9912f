"""Where a number came from: commit, hardware, versions and thread settings, as plain JSON-ready values."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
"""The repository: every command of this package runs from here."""

_PACKAGES = ("robotrl", "torch", "numpy", "mujoco", "gymnasium", "stable-baselines3", "envpool")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


@functools.cache
def commit() -> str:
    """The commit of the code that runs, read once a process; `-dirty` is added when code or data differ from it."""
    head = _git("rev-parse", "HEAD")
    if not head:
        return "unknown"
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results", ":!docs")
    return head + ("-dirty" if changed else "")


def today() -> str:
    """The date in UTC, `2026-01-31`."""
    return datetime.now(UTC).strftime("%Y-%m-%d")


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def hardware() -> dict[str, Any]:
    """CPU model, cores this process may use, memory in GiB, platform, thread settings and package versions."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages / 2**30, 1),
        "platform": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "threads": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
    }
