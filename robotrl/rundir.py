"""The directory of one run, `runs/<name>/<time>/`: who may write in it, and what describes the run.

config.yaml     the resolved configuration, saved before anything is built
meta.json       command line, git commit, versions, hardware, threads; one entry more in `starts` for each resume
metrics.jsonl   one line an iteration: the truth; events.out.* beside it are for TensorBoard
checkpoints/    policy/final  policy/best  policy/<other>  eval/<env steps>.json  eval/<other>/...  videos/  plots/
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import platform
import shlex
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from robotrl.types import RobotRLError

LOCK, CONFIG, META, METRICS = ".lock", "config.yaml", "meta.json", "metrics.jsonl"
PACKAGES = ("robotrl", "torch", "numpy", "mujoco", "gymnasium", "dm-control", "safetensors")

_held: set[Path] = set()  # a POSIX lock does not keep its own process out


class RunDir:
    """One run's directory, locked: two processes never train in one directory.

    Make it with `create` or `open`, and `close` it (or use it in a `with` statement).
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.checkpoints = self.path / "checkpoints"
        self.policy = self.path / "policy"
        self.eval = self.path / "eval"
        self.videos = self.path / "videos"
        self.plots = self.path / "plots"
        self.config, self.meta, self.metrics = self.path / CONFIG, self.path / META, self.path / METRICS
        self._lock: int | None = _lock(self.path)
        self._new = False
        self._made: list[Path] = []  # parents that `create` made, innermost first

    @classmethod
    def create(cls, path: str | Path | None, name: str) -> RunDir:
        """A new directory, at `path` or, for None, at `runs/<name>/<time>`.

        Raises:
            RobotRLError: something is there already, or it cannot be made.
        """
        where = Path(path) if path is not None else _unused(Path("runs") / name)
        try:
            if where.is_dir() and any(entry.name != LOCK for entry in where.iterdir()):
                raise RobotRLError(_not_empty(where))
            made = [parent for parent in where.absolute().parents if not parent.exists()]
            where.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RobotRLError(
                f"The run directory {where} cannot be made: {error}. Choose another run_dir=."
            ) from error
        directory = cls(where)
        directory._new, directory._made = True, made
        return directory

    @classmethod
    def open(cls, path: str | Path) -> RunDir:
        """The directory of a run that exists.

        Raises:
            RobotRLError: there is no run, or another process is training in it.
        """
        where = Path(path)
        if not (where / CONFIG).is_file():
            inside = sorted(str(found.parent) for found in where.glob(f"**/{CONFIG}"))
            hint = f" Runs inside it: {', '.join(inside[-3:])}." if inside else ""
            raise RobotRLError(f"{where} is not a run directory: it has no {CONFIG}.{hint}")
        return cls(where)

    def close(self) -> None:
        """Let other processes train here; nothing happens the second time."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
            _held.discard(self.path)

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def save_config(self, config: Any) -> None:
        """Write a configuration dataclass as `config.yaml`."""
        from omegaconf import OmegaConf

        write_atomic(self.config, OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config))))

    def load_config(self) -> dict[str, Any]:
        """What `save_config` wrote, as plain dictionaries and lists.

        Raises:
            RobotRLError: it cannot be read.
        """
        from omegaconf import OmegaConf

        try:
            values = OmegaConf.to_container(OmegaConf.load(self.config), resolve=False)
        except Exception as error:  # whatever a YAML parser finds to say
            raise RobotRLError(f"{self.config} cannot be read: {error}") from error
        if not isinstance(values, dict):
            raise RobotRLError(f"{self.config} is not a configuration: its top level has no keys.")
        return {str(key): value for key, value in values.items()}

    def add_start(self, argv: list[str], env_steps: int, **details: Any) -> None:
        """Record in `meta.json` that a process starts here, and warn when it is not the kind that began the run.

        A resumed run has the same bytes as an uninterrupted one on the same machine, versions and thread counts.
        """
        entry = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "env_steps": env_steps} | describe(argv)
        entry |= details
        meta = self.read_meta()
        starts = [*meta.get("starts", []), entry]
        differ = [name for name, was in _matters(starts[0]).items() if was != _matters(entry)[name]]
        if differ:
            warnings.warn(
                f"This process differs from the one that began the run in {', '.join(differ)} (see {self.meta}): "
                "training continues, but not bit for bit as it would have."
            )
        write_atomic(self.meta, json.dumps({**meta, "starts": starts}, indent=2) + "\n")

    def read_meta(self) -> dict[str, Any]:
        """`meta.json`, or an empty dictionary where there is none that can be read: nothing depends on it."""
        try:
            meta = json.loads(self.meta.read_text())
        except (OSError, ValueError):
            return {}
        return meta if isinstance(meta, dict) else {}

    def save_randomisation(self, env_steps: int, record: Mapping[str, Any]) -> None:
        """Write `randomisation.json`: `field/object` -> one number a simulation; `env.randomise.record` replays it."""
        values = {name: [float(v) for v in column] for name, column in record.items()}
        try:
            write_atomic(
                self.path / "randomisation.json", json.dumps({"env_steps": env_steps, "record": values}) + "\n"
            )
        except OSError as error:
            warnings.warn(f"{self.path / 'randomisation.json'} could not be written: {error}.")

    def mark_finished(self, env_steps: int) -> None:
        """Record in `meta.json` that training reached its goal and everything is written."""
        write_atomic(self.meta, json.dumps({**self.read_meta(), "finished_env_steps": env_steps}, indent=2) + "\n")

    @property
    def finished_env_steps(self) -> int | None:
        """Env steps after which the run finished; None: it has not."""
        steps = self.read_meta().get("finished_env_steps")
        return steps if isinstance(steps, int) else None

    def discard(self) -> None:
        """Undo `create` when nothing came of the run, so that the same command can be given again."""
        for file in (self.config, self.meta, self.path / LOCK):
            file.unlink(missing_ok=True)
        self.close()
        folders = [self.path, *self._made]
        with contextlib.suppress(OSError):  # the first that is not empty is not ours alone
            for folder in folders:
                folder.rmdir()

    def discard_if_unused(self) -> None:
        """`discard` where this process began the run and nothing was written yet but what every run begins with."""
        begun = {self.config, self.meta, self.metrics, self.path / LOCK, *self.path.glob("events.out.tfevents.*")}
        empty = not self.metrics.exists() or self.metrics.stat().st_size == 0
        if self._new and empty and self.path.is_dir() and set(self.path.iterdir()) <= begun:
            for file in begun - {self.path / LOCK}:
                file.unlink(missing_ok=True)
            self.discard()

    def surely_passed(self) -> int:
        """Env steps of the last line but one of `metrics.jsonl`, or 0: what was due then was done before the last."""
        steps: list[int] = []
        for line in reversed(self.metrics.read_bytes().splitlines() if self.metrics.exists() else []):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                steps.append(int(json.loads(line)["env_steps"]))
            if len(steps) == 2:
                return steps[1]
        return 0

    def cut_back(self, env_steps: int, metrics_bytes: int) -> None:
        """Forget what came after a checkpoint: it is about to happen again."""
        size = self.metrics.stat().st_size if self.metrics.exists() else 0
        if size < metrics_bytes:
            warnings.warn(f"{self.metrics} is shorter than at the checkpoint: lines of it were lost.")
            metrics_bytes = _last_line_end(self.metrics, size)
        if size > metrics_bytes:
            os.truncate(self.metrics, metrics_bytes)
        for file in self.eval.rglob("*.json"):
            if file.stem.isdigit() and int(file.stem) > env_steps:
                file.unlink()


def write_atomic(path: Path, text: str) -> None:
    """Replace a text file in one step that survives a kill: readers see the old or the new one, whole.

    Raises:
        OSError: it cannot be written; the old one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def describe(argv: list[str]) -> dict[str, Any]:
    """What a result may depend on besides the configuration: command, code, versions, hardware, threads."""
    import torch

    return {
        "command": shlex.join(argv),
        "git": _git(Path(__file__).resolve().parent),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "hardware": {
            "cpu": _cpu_name(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
            "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        },
        "threads": {"torch": torch.get_num_threads(), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")},
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "executable": sys.executable,
    }


def _unused(parent: Path) -> Path:
    """A directory named by the time; a second run in the same second gets `-1`."""
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    path, number = parent / stamp, 0
    while path.exists():
        number += 1
        path = parent / f"{stamp}-{number}"
    return path


def _not_empty(path: Path) -> str:
    if (path / CONFIG).is_file():
        return (
            f"The run directory {path} holds a run already. To continue it: robotrl train resume={path}. "
            "To start anew, choose another run_dir= or delete it."
        )
    return f"The run directory {path} is not empty and holds no run. Choose another run_dir=, or empty it."


def _lock(path: Path) -> int:
    """Hold `.lock` for as long as this process lives. Released by the kernel, whatever kills the process.

    A POSIX record lock, not `flock`: the latter is inherited by forked env workers, which may outlive a killed run.
    """
    if path in _held:
        raise RobotRLError(
            f"This process is training in {path} already. Close that run first, or choose another run_dir=."
        )
    descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):  # a file system without locks
            warnings.warn(f"{path} cannot be locked ({error}): see to it that no other process trains there.")
            return descriptor
        holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        raise RobotRLError(
            f"{holder} is training in {path} right now. Wait for it, stop it, or choose another run_dir=."
        ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"Process {os.getpid()} on {socket.gethostname()}\n".encode())
    _held.add(path)
    return descriptor


def _last_line_end(path: Path, size: int) -> int:
    if not size:
        return 0
    return path.read_bytes().rfind(b"\n") + 1


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _matters(start: dict[str, Any]) -> dict[str, Any]:
    """The part of an entry in `starts` that the bytes of a run depend on."""
    commit = (start.get("git") or {}).get("commit")
    cpu = (start.get("hardware") or {}).get("cpu")
    return {"versions": start.get("versions"), "cpu": cpu, "threads": start.get("threads"), "git commit": commit}


def _git(source: Path) -> dict[str, Any] | None:
    """Commit of the code that runs and whether it was changed; None where it is not a git checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return None


__all__ = ["RunDir", "describe", "write_atomic"]
