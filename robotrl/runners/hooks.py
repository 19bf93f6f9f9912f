"""What happens at the end of an iteration: evaluate, log, show progress, save. The loop calls them in this order.

A hook is called as `(iteration, metrics)`; evaluation adds its `eval/*` numbers to the metrics for those after it.
No hook draws from a random stream of the training: with and without them, a run has the same bytes of weights.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from robotrl.logging import MetricsLog, Row, to_numbers
from robotrl.policies.io import save_policy
from robotrl.rundir import RunDir
from robotrl.runners.eval_result import EvalResult
from robotrl.runners.evaluate import evaluate
from robotrl.seeding import rng_state, set_rng_state
from robotrl.types import Learner, Metrics, Policy, Progress, RobotRLError, StateDict, beside, other_policies

EVAL_SEED = 1_000_003
"""Seed of the evaluations during training: the same episodes in every run, whatever its own seed."""


class Every:
    """Whether a multiple of `every` env steps was passed since the last call, or the run has reached its goal."""

    def __init__(self, every: int, progress: Progress) -> None:
        self._every, self._progress = every, progress
        self._passed = self._count()

    def _count(self) -> int:
        return self._progress.env_steps // self._every if self._every else 0

    def due(self) -> bool:
        """Ask once an iteration."""
        passed, self._passed = self._passed, self._count()
        return self._passed > passed or self._progress.env_steps >= self._progress.total_env_steps


class EvaluationHook:
    """Evaluates `learner.policy` on an env of its own; keeps `eval/<env steps>.json` and the best policy so far.

    Other policies of the learner play the same episodes, into `eval/<name>/` and the metrics `eval/<name>/*`.
    """

    def __init__(
        self,
        learner: Learner,
        make_env: Callable[[], Any],
        directory: RunDir,
        progress: Progress,
        *,
        every: int,
        episodes: int,
        origin: dict[str, Any],
    ) -> None:
        self._origin = origin  # what every saved policy says about where it comes from
        self._learner, self._make_env, self._dir, self._progress = learner, make_env, directory, progress
        self._every, self._episodes = Every(every, progress), episodes
        self._env: Any = None
        self.seconds = 0.0
        self.best: float | None = None
        self.best_file: Path | None = None

    def __call__(self, iteration: int, metrics: Metrics) -> None:
        """Evaluate when it is time to."""
        if not self._every.due():
            return
        start = time.perf_counter()
        streams = rng_state()
        if self._env is None:
            self._env = self._make_env()
        moment = {"env_steps": self._progress.env_steps, "iteration": iteration, "run": str(self._dir.path)}
        result, known = self._play(self._learner.policy, moment, metrics, "eval/")
        others = {
            name: self._play(policy, moment | {"policy": name}, metrics, f"eval/{name}/")[0]
            for name, policy in other_policies(self._learner).items()
        }
        try:
            file = self._dir.eval / f"{self._progress.env_steps}.json"
            result.save(file)
            for name, other in others.items():
                other.save(self._dir.eval / name / file.name)
            if self.best is None or result.mean > self.best:
                self.best, self.best_file = result.mean, file
                meta = {**moment, **self._origin, "eval": known}
                where = self._dir.policy / "best"
                save_policy(self._learner.policy, where, meta, beside(self._learner))  # type: ignore[arg-type]  # learners train built-in policies
        except OSError as error:
            warnings.warn(f"The evaluation at {self._progress.env_steps} env steps could not be written: {error}.")
        set_rng_state(streams)  # an env may draw from the global ones when it is made, which depends on resuming
        self.seconds += time.perf_counter() - start

    def _play(
        self, policy: Policy, moment: dict[str, Any], metrics: Metrics, prefix: str
    ) -> tuple[EvalResult, dict[str, float]]:
        """Evaluate one policy and put what is known into the metrics."""
        result = evaluate(policy, self._env, episodes=self._episodes, seed=EVAL_SEED)
        result.meta = dict(moment)
        # One episode has no interval: what is unknown is left out, but a return that is not finite must be seen.
        known = {k: v for k, v in result.metrics().items() if math.isfinite(v) or k == "eval/return"}
        for name, value in known.items():
            metrics[prefix + name.removeprefix("eval/")] = torch.tensor(value, dtype=torch.float64)
        return result, known

    def state_dict(self) -> StateDict:
        """The best return so far, its file, and the time spent."""
        file = None if self.best_file is None else self.best_file.name
        return {"best": self.best, "best_file": file, "seconds": self.seconds}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue; what is due next follows from the env steps."""
        self.best, self.seconds = state["best"], float(state["seconds"])
        self.best_file = None if state["best_file"] is None else self._dir.eval / state["best_file"]
        self._every.due()

    def close(self) -> None:
        """Close the evaluation's env."""
        if self._env is not None:
            self._env.close()
            self._env = None


class LoggingHook:
    """Converts the metrics once and writes one row; `row` is the newest, for those that show it.

    `time/elapsed` counts all processes of the run, evaluation included; `time/evaluation` is the part of it.
    """

    def __init__(self, log: MetricsLog, progress: Progress, evaluation: EvaluationHook) -> None:
        self._log, self._progress, self._evaluation = log, progress, evaluation
        self._start = time.perf_counter()
        self.row: Row = {}

    @property
    def elapsed(self) -> float:
        """Seconds since the run began, without the pauses between its processes."""
        return time.perf_counter() - self._start

    def __call__(self, iteration: int, metrics: Metrics) -> None:
        """Write one row."""
        p = self._progress
        clocks: Row = {"iteration": iteration, "env_steps": p.env_steps}
        clocks |= {"episodes": p.episodes, "updates": p.updates, "grad_steps": p.grad_steps}
        times: Row = {"time/elapsed": self.elapsed, "time/evaluation": self._evaluation.seconds}
        self.row = {**clocks, **to_numbers(metrics), **times}
        self._log.write(self.row)

    def state_dict(self) -> StateDict:
        """Elapsed time, the count of non-finite values, and how long `metrics.jsonl` is."""
        return {"elapsed": self.elapsed, "nonfinite": self._log.nonfinite, "bytes": self._log.sync()}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue the clock and the count; the caller cuts the file."""
        self._start = time.perf_counter() - float(state["elapsed"])
        self._log.nonfinite = int(state["nonfinite"])


class CheckpointHook:
    """Calls `save` when it is time to; a save that fails is a warning, and the next one is due as usual."""

    def __init__(self, save: Callable[[], None], progress: Progress, *, every: int) -> None:
        self._save, self._progress = save, progress
        self._every = Every(every, progress)
        self.saved_at: int | None = None

    def __call__(self, iteration: int, metrics: Metrics) -> None:
        """Save when it is time to."""
        if self._every.due():
            try:
                self.save()
            except RobotRLError as error:
                warnings.warn(f"{error} Training goes on; the next checkpoint is due as usual.")

    def save(self) -> None:
        """Save now, unless this moment is saved already.

        Raises:
            RobotRLError: it could not be saved.
        """
        if self.saved_at != self._progress.env_steps:
            self._save()
            self.saved_at = self._progress.env_steps

    def resumed(self) -> None:
        """The present moment came from a checkpoint."""
        self.saved_at = self._progress.env_steps
        self._every.due()


__all__ = ["EVAL_SEED", "CheckpointHook", "EvaluationHook", "Every", "LoggingHook"]
