"""Training and loading from Python, for notebooks and other programs: the same keys as the command line."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robotrl.policies.io import load_policy
from robotrl.types import RobotRLError

if TYPE_CHECKING:
    from robotrl.analysis.runs import RunData
    from robotrl.runners.eval_result import EvalResult
    from robotrl.types import Policy


@dataclass(frozen=True)
class TrainResult:
    """A run that `train` made."""

    run_dir: Path
    env_steps: int
    """Agent decisions made, over all envs."""
    finished: bool
    """False where it was stopped; `train(resume=run_dir)` goes on."""

    @cached_property
    def data(self) -> RunData:
        """Configuration, metrics and evaluations."""
        from robotrl.analysis.runs import load_run

        return load_run(self.run_dir)

    @property
    def evaluation(self) -> EvalResult | None:
        """The last evaluation of training."""
        return next(reversed(self.data.evaluations.values()), None)

    @property
    def policy(self) -> Policy:
        """The final policy, loaded."""
        return load_policy(self.run_dir)

    def __repr__(self) -> str:
        return f"{self.data!r}\n{self.evaluation or 'not evaluated'}"


def train(**settings: Any) -> TrainResult:
    """Train a policy with the keys of `robotrl train`; blocks until the run has ended, and shows its progress.

    Args:
        settings: `env="Hopper-v5"`, `learner="ppo"`, `seed=0`, `run_dir="runs/x"`, ...; dotted keys as nested
            dictionaries or by name: `learner={"gamma": 0.98}` or `**{"learner.gamma": 0.98}`. `resume="runs/x"`
            continues a run.

    Raises:
        RobotRLError: a wrong key or value, or a run directory that holds a run already.
    """
    from robotrl.analysis.plots import learning_curve
    from robotrl.configs.compose import compose, describe_preset
    from robotrl.configs.keys import flatten
    from robotrl.runners.finish import finish
    from robotrl.runners.loop import train as loop
    from robotrl.runners.run import Run, say

    resume = settings.pop("resume", None)
    said = [f"{key}={value}" for key, value in flatten(settings)]
    if resume is not None:
        job = Run.resume(Path(resume), said, ["robotrl.train", f"resume={resume}", *said])
    else:
        config = compose({key: str(value) if isinstance(value, Path) else value for key, value in settings.items()})
        say(describe_preset(config))
        job = Run.create(config, ["robotrl.train", *said])
    with job:
        loop(**job.parts())
        status = finish(job, plot=learning_curve)
    return TrainResult(job.dir.path, job.progress.env_steps, finished=status == 0)


__all__ = ["RobotRLError", "TrainResult", "load_policy", "train"]
