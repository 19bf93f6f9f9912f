"""Sweeps: every combination of several values, one process a run, resumable because finished runs are skipped."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from robotrl.configs.compose import EXAMPLE, named_classes, train_keys
from robotrl.configs.keys import read_overrides
from robotrl.functional.statistics import bootstrap_interval, iqm
from robotrl.runners.eval_result import columns
from robotrl.runners.outcome import exists, finished_env_steps, last_evaluation
from robotrl.runners.run import say
from robotrl.types import RobotRLError


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    varied: tuple[tuple[str, str], ...]
    """Key and value, for the keys that have several."""
    words: tuple[str, ...]
    """Its command line, without `run_dir=`."""
    path: Path

    @property
    def name(self) -> str:
        """`env=Hopper-v5,seed=0`."""
        return ",".join(f"{key}={value}" for key, value in self.varied)


def plan(words: list[str]) -> tuple[Path, list[Job]]:
    """The sweep's directory, and one job a combination.

    The directory is `run_dir=`, or one named after the words, so that the same command finds its runs again.
    """
    # An Override is checked against the keys of the first learner named; compose checks each job against its own.
    learner = next((o.partition("=")[2].split(",")[0] for o in words if o.startswith("learner=")), "ppo")
    overrides = read_overrides(words, train_keys(learner), example=EXAMPLE)
    given = [o for o in overrides if o.key == "run_dir"]
    overrides = [o for o in overrides if o.key != "run_dir"]
    if any(o.key == "resume" for o in overrides):
        raise RobotRLError("resume= continues one run. To continue a sweep, call the same --multirun command again.")
    digest = hashlib.sha256("\n".join(sorted(o.text for o in overrides)).encode()).hexdigest()[:8]
    root = Path(str(given[-1].value)) if given else Path("multirun") / f"{learner}-{digest}"
    varied = [o for o in overrides if o.choices is not None]
    fixed = tuple(o.text for o in overrides if o.choices is None)
    jobs = []
    for values in itertools.product(*(o.choices or () for o in varied)):
        pairs = tuple((o.key, value) for o, value in zip(varied, values, strict=True))
        folder = re.sub(r"[^\w.,=+-]", "_", ",".join(f"{key}={value}" for key, value in pairs)) or "run"
        jobs.append(Job(pairs, (*fixed, *(f"{key}={value}" for key, value in pairs)), root / folder))
    return root, jobs


def run_job(job: Job, parallel: int) -> int:
    """Start or continue one run in a process of its own; its output goes to `<run>.log` beside its directory."""
    begin = (*job.words, f"run_dir={job.path}")
    words = ["train", *((f"resume={job.path}", *named_classes(job.words)) if exists(job.path) else begin)]
    environment = dict(os.environ, PYTHONUNBUFFERED="1")  # so that the log's last line is what was said last
    if parallel > 1:  # libraries that ask for all cores would fight over them
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // parallel)))
    log = job.path.parent / f"{job.path.name}.log"
    with log.open("ab") as output:
        command = [sys.executable, "-m", "robotrl.cli", *words]
        status = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False
        ).returncode
    said = log.read_text(errors="replace").strip().splitlines()
    outcome = {0: "finished", 130: "stopped"}.get(status, f"failed, see {log}: {said[-1] if said else 'no output'}")
    say(f"{job.name or 'run'}: {outcome}")
    return status


def table(jobs: list[Job]) -> str:
    """Every run's last evaluation, and over the seeds of otherwise equal runs the IQM with its interval."""
    rows, groups = [("run", "state", "return", "95 % interval", "episodes")], dict[str, list[float]]()
    for job in jobs:
        last = last_evaluation(job.path)
        state = "finished" if finished_env_steps(job.path) else "not finished" if exists(job.path) else "not started"
        score = ("", "", "") if last is None else (f"{last.mean:.1f}", _span(last.mean_interval), str(last.n))
        rows.append((job.name or "run", state, *score))
        if last is not None and finished_env_steps(job.path):
            group = ",".join(f"{key}={value}" for key, value in job.varied if key != "seed")
            groups.setdefault(group, []).append(last.mean)
    text = f"\nLast evaluation of each run\n{columns(rows, right=(2, 4))}"
    if any(key == "seed" for job in jobs for key, _ in job.varied):
        summary = [("over seeds", "IQM", "95 % interval", "seeds")]
        for group, scores in groups.items():
            span = _span(bootstrap_interval(scores, iqm))
            summary.append((group or "all", f"{iqm(scores):.1f}", span, str(len(scores))))
        text += f"\n\nFinished runs, bootstrap over seeds\n{columns(summary, right=(1, 3))}"
    return text


def _span(interval: tuple[float, float]) -> str:
    return f"[{interval[0]:.1f}, {interval[1]:.1f}]" if math.isfinite(interval[0]) else "unknown from one"


__all__ = ["Job", "plan", "run_job", "table"]
