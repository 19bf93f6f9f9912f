"""A run on disk as an object: configuration, metrics as a table, evaluations, policies. Nothing is imported from it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robotrl.runners.eval_result import EvalResult
from robotrl.runners.outcome import evaluations, finished_env_steps
from robotrl.types import RobotRLError

if TYPE_CHECKING:
    import pandas as pd

    from robotrl.configs.schema import TrainConfig


@dataclass(frozen=True)
class RunData:
    """A training run, read from its directory when asked; also while the run is still going."""

    path: Path

    @cached_property
    def settings(self) -> dict[str, Any]:
        """`config.yaml` as plain dictionaries; `config` for dataclasses."""
        from omegaconf import OmegaConf

        values = OmegaConf.to_container(OmegaConf.load(self.path / "config.yaml"), resolve=False)
        if not isinstance(values, dict):
            raise RobotRLError(f"{self.path / 'config.yaml'} is not the configuration of a run.")
        return {str(key): value for key, value in values.items()}

    @cached_property
    def config(self) -> TrainConfig:
        """The configuration as this version's dataclasses."""
        from robotrl.configs.compose import load_config

        return load_config(self.path / "config.yaml")

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """`metrics.jsonl`: one row an iteration, a column a metric; what was not finite is NaN."""
        import pandas as pd

        file = self.path / "metrics.jsonl"
        lines = file.read_text().splitlines() if file.is_file() else []
        rows = []
        for number, line in enumerate(lines):
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                if number + 1 < len(lines):  # the last line may be being written right now
                    raise RobotRLError(f"{file}, line {number + 1} is damaged: {line[:60]!r}") from None
        return pd.DataFrame(rows)

    @cached_property
    def evaluations(self) -> dict[int, EvalResult]:
        """Evaluations during and at the end of training, by env steps."""
        return evaluations(self.path)

    def evaluations_of(self, policy: str) -> dict[int, EvalResult]:
        """The same for one of the learner's other policies, such as AILBoost's `mixture`."""
        return evaluations(self.path, policy)

    @property
    def policies(self) -> dict[str, Path]:
        """The saved policies' directories: `final`, `best`, and the learner's others by name."""
        return {p.parent.name: p.parent for p in sorted((self.path / "policy").glob("*/policy.json"))}

    @property
    def env_steps(self) -> int:
        """How far training got, as far as the metrics say."""
        return int(self.metrics["env_steps"].iloc[-1]) if len(self.metrics) else 0

    @property
    def finished(self) -> bool:
        """Whether training reached its goal; false while it runs, and for a finished run that was given more steps."""
        steps = finished_env_steps(self.path)
        return steps is not None and steps >= int(self.settings.get("total_env_steps", 0))

    @property
    def title(self) -> str:
        """Learner, env and seed in a few words."""
        s = self.settings
        return f"{s.get('learner_name', '?')} on {(s.get('env') or {}).get('id', '?')}, seed {s.get('seed', '?')}"

    def __repr__(self) -> str:
        goal = self.settings.get("total_env_steps", 0)
        lines = [f"{self.title}  ({self.path})", f"  env steps   {self.env_steps:,} of {goal:,}"]
        if self.evaluations:
            steps, last = next(reversed(self.evaluations.items()))
            low, high = last.mean_interval
            lines.append(f"  return      {last.mean:.1f} [{low:.1f}, {high:.1f}], n = {last.n}, at {steps:,} env steps")
        lines.append(f"  policies    {', '.join(self.policies) or 'none yet'}")
        lines.append(f"  metrics     {len(self.metrics)} rows x {len(self.metrics.columns)} columns")
        return "\n".join(lines)


def load_run(path: str | os.PathLike[str]) -> RunData:
    """The run in the directory `path`.

    Raises:
        RobotRLError: there is no run; runs below it are named.
    """
    root = Path(path)
    if not (root / "config.yaml").is_file():
        inside = [str(run.path) for run in find_runs(root)]
        hint = f" Runs below it: {', '.join(inside[:5])}." if inside else " Give the directory that holds config.yaml."
        raise RobotRLError(f"There is no run in {root}.{hint}")
    return RunData(root)


def find_runs(root: str | os.PathLike[str]) -> list[RunData]:
    """Every run at or below `root`, in the order of their paths."""
    return [RunData(file.parent) for file in sorted(Path(root).rglob("config.yaml"))]
