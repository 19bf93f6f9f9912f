"""What `robotrl doctor` looks at: can this machine simulate, learn, render and keep results, and what is the fix."""

from __future__ import annotations

import importlib
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

MIN_FREE_GB, MIN_WRITE_MB_S, MIN_MEMORY_GB = 2.0, 30.0, 2.0
"""Below these a run works but is likely to end early, or to wait for its checkpoints."""

_IMPORT_NAMES = {"hydra-core": "hydra"}
_OPTIONAL = {
    "dm-control": ("dmc", "envs dmc/<domain>-<task>"),
    "pyarrow": ("data", "robotrl collect and everything else with data sets"),
    "minari": ("data", "Minari data sets in and out"),
    "lerobot": ("vla", "LeRobot's own classes"),
    "stable-baselines3": ("sb3", "using the envs from Stable-Baselines3"),
    "optuna": ("tune", "robotrl tune"),
    "wandb": ("wandb", "wandb=true"),
    "envpool": ("bench", "the benchmark against EnvPool"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `fail`: training does not work; `warn`: something else does not, or will be slow."""

    subject: str
    status: Literal["ok", "info", "warn", "fail"]
    found: str
    fix: str = ""


def examine(folder: Path) -> Iterator[Finding]:
    """Every check in turn; a check that breaks is a finding too.

    Args:
        folder: where runs will be written; its disk is measured. It need not exist yet.
    """
    checks: dict[str, Callable[[], list[Finding]]] = {
        "Python": _python,
        "packages": _packages,
        "simulation": _simulation,
        "threads": _threads,
        "memory": _memory,
        "disk": lambda: _disk(folder),
        "OpenGL": _opengl,
        "GPU": _gpu,
        "optional packages": _optional,
    }
    for subject, check in checks.items():
        try:
            yield from check()
        except Exception as error:  # whatever a broken machine raises belongs in the report
            yield Finding(subject, "fail", f"the check itself failed: {type(error).__name__}: {error}")


def _python() -> list[Finding]:
    version = sys.version.partition(" ")[0]
    if sys.version_info >= (3, 13):
        return [Finding("Python", "warn", version, "The pinned versions are made for Python 3.12.")]
    return [Finding("Python", "ok", f"{version} at {sys.executable}")]


def _packages() -> list[Finding]:
    """Every core dependency is there, in a version that fits, and can be imported."""
    from packaging.requirements import Requirement

    try:
        requirements = metadata.requires("robotrl") or []
    except metadata.PackageNotFoundError:
        return [Finding("packages", "warn", "robotrl is used from a folder, not installed", "make setup")]
    bad, good = [], []
    importlib.import_module("robotrl.envs")  # first, as it sees to it that mujoco can be imported
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is not None:  # of an extra
            continue
        name = requirement.name
        try:
            version = metadata.version(name)
            importlib.import_module(_IMPORT_NAMES.get(name, name))
        except Exception as error:  # a broken binary may raise anything
            bad.append(Finding(name, "fail", f"{type(error).__name__}: {error}", f'pip install "{requirement}"'))
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            bad.append(Finding(name, "fail", f"{version}, which does not fit", f'pip install "{requirement}"'))
        if name in ("torch", "mujoco", "gymnasium", "numpy"):
            good.append(f"{name} {version}")
    return bad or [Finding("packages", "ok", ", ".join(sorted(good)))]


def _simulation() -> list[Finding]:
    """A native env steps and returns finite numbers."""
    import numpy as np

    from robotrl.envs import make_vec

    env = make_vec("HalfCheetah-v5", num_envs=64)
    try:
        env.reset(seed=0)
        actions = np.zeros((64, *(env.single_action_space.shape or ())), np.float32)
        start = time.perf_counter()
        for _ in range(50):
            obs, *_ = env.step(actions)
        rate = 50 * 64 / (time.perf_counter() - start)
        finite = all(np.isfinite(values).all() for values in obs.values())
    finally:
        env.close()
    if not finite:
        return [Finding("simulation", "fail", "HalfCheetah-v5 returned non-finite numbers", "Reinstall mujoco.")]
    return [Finding("simulation", "ok", f"HalfCheetah-v5, 64 envs: {rate:,.0f} env steps/s")]


def usable_cores() -> int:
    """Cores this process may use: its affinity, cut by a container's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))


def _threads() -> list[Finding]:
    import torch

    cores, threads = usable_cores(), torch.get_num_threads()
    found = f"{cores} of {os.cpu_count()} cores usable, torch uses {threads} threads"
    if threads > cores:
        return [
            Finding("threads", "warn", found, f"Set OMP_NUM_THREADS={cores}: more threads than cores slow each other.")
        ]
    return [Finding("threads", "ok", found)]


def _memory() -> list[Finding]:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return [Finding("memory", "info", "not known on this system")]
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    available, total = kilobytes["MemAvailable"] / 2**20, kilobytes["MemTotal"] / 2**20
    found = f"{available:.1f} of {total:.1f} GiB free"
    if available < MIN_MEMORY_GB:
        return [Finding("memory", "warn", found, "Close other programs, or use fewer envs: num_envs=16.")]
    return [Finding("memory", "ok", found)]


def _disk(folder: Path) -> list[Finding]:
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free / 2**30
    block = os.urandom(1 << 20)
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            start = time.perf_counter()
            for _ in range(32):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            rate = 32 * len(block) / 1e6 / (time.perf_counter() - start)
    except OSError as error:
        return [Finding("disk", "fail", f"{there}: {error.strerror}", "Choose another place: run_dir=<path>.")]
    found = f"{there}: {free:.1f} GiB free, {rate:,.0f} MB/s written and synced"
    if free < MIN_FREE_GB:
        return [Finding("disk", "warn", found, "Free some space, or choose another disk: run_dir=<path>.")]
    if rate < MIN_WRITE_MB_S:
        return [
            Finding("disk", "warn", found, "Slow disk: save less often (checkpoint_every=), or run_dir= elsewhere.")
        ]
    return [Finding("disk", "ok", found)]


def _opengl() -> list[Finding]:
    import mujoco

    from robotrl.envs.rendering import NO_GL_MESSAGE, OffscreenRenderer, software_gl

    backend = software_gl()
    if backend is None:
        return [Finding("OpenGL", "warn", "neither EGL nor OSMesa loads: no videos, no pixels", NO_GL_MESSAGE)]
    box = "<worldbody><light pos='0 0 3'/><geom type='box' size='.1 .1 .1' rgba='1 0 0 1'/></worldbody>"
    model = mujoco.MjModel.from_xml_string(f"<mujoco>{box}</mujoco>")
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with OffscreenRenderer(model, 64, 64) as renderer:
        image = renderer.render(data, -1)
        start = time.perf_counter()
        for _ in range(20):
            renderer.render(data, -1)
        rate = 20 / (time.perf_counter() - start)
    if image.max() == image.min():
        return [Finding("OpenGL", "warn", f"{backend} loads, but draws an empty picture", NO_GL_MESSAGE)]
    return [Finding("OpenGL", "ok", f"{backend}, {rate:,.0f} pictures/s of 64x64")]


def _gpu() -> list[Finding]:
    import torch

    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return [Finding("GPU", "ok", ", ".join(f"{d.name} ({d.total_memory / 2**30:.0f} GiB)" for d in devices))]
    if shutil.which("nvidia-smi") and subprocess.run(["nvidia-smi"], capture_output=True, check=False).returncode == 0:
        fix = f"This torch is built for CUDA {torch.version.cuda}: install a driver or a torch build that match."
        return [Finding("GPU", "warn", "there is one, but torch cannot use it", fix)]
    return [Finding("GPU", "info", "none; everything runs on the CPU")]


def _optional() -> list[Finding]:
    findings = []
    for name, (extra, purpose) in _OPTIONAL.items():
        try:
            findings.append(Finding(name, "ok", f"{metadata.version(name)}, for {purpose}"))
        except metadata.PackageNotFoundError:
            findings.append(Finding(name, "info", f"not installed; for {purpose}", f'pip install "robotrl[{extra}]"'))
    return findings
