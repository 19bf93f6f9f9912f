"""How a run on disk ended, read without locking it or building anything."""

from __future__ import annotations

import json
from pathlib import Path

from robotrl.runners.eval_result import EvalResult


def exists(run_dir: Path) -> bool:
    """Whether a run was begun in that directory."""
    return (run_dir / "config.yaml").is_file()


def finished_env_steps(run_dir: Path) -> int | None:
    """Env steps after which the run reached its goal; None: it has not."""
    try:
        steps = json.loads((run_dir / "meta.json").read_text()).get("finished_env_steps")
    except (OSError, ValueError, AttributeError):
        return None
    return steps if isinstance(steps, int) else None


def evaluations(run_dir: Path, policy: str = "") -> dict[int, EvalResult]:
    """Evaluations during and at the end of training, by env steps, in their order.

    Args:
        run_dir: of the run.
        policy: the name of one of the learner's other policies; empty: its policy.
    """
    files = [file for file in (run_dir / "eval" / policy).glob("*.json") if file.stem.isdigit()]
    return {int(file.stem): EvalResult.load(file) for file in sorted(files, key=lambda file: int(file.stem))}


def last_evaluation(run_dir: Path) -> EvalResult | None:
    """The newest evaluation; None before the first."""
    return next(reversed(evaluations(run_dir).values()), None)
