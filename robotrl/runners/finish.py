"""What a run leaves behind once the loop has ended: checkpoint, final policy, learning curve, film, and a summary."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robotrl.policies.io import save_policy
from robotrl.runners.eval_result import EvalResult
from robotrl.runners.hooks import EVAL_SEED
from robotrl.runners.media import film_saved
from robotrl.runners.run import Run, say, shown
from robotrl.types import RobotRLError, beside, other_policies

STOPPED = 130
"""Exit code of a run that was asked to stop, as of a program ended by Ctrl-C."""


def finish(run: Run, plot: Callable[..., Any] | None = None) -> int:
    """Save, and for a run that reached its goal write the final policy, the plot and the film.

    Args:
        run: after the loop.
        plot: draws the learning curve, called as `plot(run directory, path=file)`; the layer above has one in
            `robotrl.analysis.plots.learning_curve`.

    Returns:
        The exit code: 0, or `STOPPED` for a run that was asked to stop.

    Raises:
        RobotRLError: the final policy, or the checkpoint of a stopped run, could not be saved.
    """
    run.bar.stop()
    steps = run.progress.env_steps
    if steps < run.progress.total_env_steps:
        run.checkpointing.save()
        say(f"Stopped and saved at {steps:,} env steps. To go on: {run.resume_command}")
        return STOPPED
    try:
        run.checkpointing.save()  # only if the one of the last iteration failed
    except RobotRLError as error:
        warnings.warn(str(error))
    try:
        meta = {"env_steps": steps, **run.origin}
        written = [("policy", save_policy(run.learner.policy, run.dir.policy / "final", meta, beside(run.learner)))]
        written += [
            (name, save_policy(policy, run.dir.policy / name, meta))  # type: ignore[arg-type]  # as good to deploy
            for name, policy in other_policies(run.learner).items()
        ]
        if plot is not None:
            written += _attempt("learning curve", lambda: _plot(run, plot))
        if run.config.video:
            written += _attempt("video", lambda: _film(run))
        run.dir.mark_finished(steps)
    except OSError as error:
        raise RobotRLError(
            f"Training is done, but {run.dir.path} could not be written: {error}. Free some space, then: "
            f"{run.resume_command}"
        ) from error
    _summarise(run, written)
    return 0


def _attempt(what: str, make: Callable[[], Path]) -> list[tuple[str, Path]]:
    """What may be missing without the run being less: one sentence says why."""
    try:
        return [(what, make())]
    except (RobotRLError, OSError, ImportError) as error:
        say(f"No {what}: {error}")
        return []


def _plot(run: Run, plot: Callable[..., Any]) -> Path:
    file = run.dir.plots / "learning_curve.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    plot(run.dir.path, path=file)
    return file


def _film(run: Run) -> Path:
    return film_saved(run.dir.videos / "final.mp4", run.learner.policy, run.config.env, seed=EVAL_SEED)


def _summarise(run: Run, written: list[tuple[str, Path]]) -> None:
    spent = f"{run.progress.env_steps:,} env steps in {run.logging.elapsed / 60.0:.1f} minutes"
    say(f"Done: {spent}{_best(run)}. Written to {shown(run.dir.path)}:")
    for what, path in [*written, ("metrics", run.dir.metrics), ("evaluations", run.dir.eval)]:
        say(f"  {what:<15}{path.relative_to(run.dir.path)}")


def _best(run: Run) -> str:
    """The best evaluation with what is known of its uncertainty: a return alone says too much."""
    if run.evaluation.best_file is None:
        return ""
    try:
        result = EvalResult.load(run.evaluation.best_file)
    except RobotRLError:  # removed meanwhile
        return ""
    low, high = result.mean_interval
    interval = f", 95 % interval [{low:.1f}, {high:.1f}]" if math.isfinite(low + high) else ""
    at = f"at {int(result.meta['env_steps']):,} env steps"
    return f", best evaluation {result.mean:.1f} {at} (n = {result.n} episode{'s' * (result.n != 1)}{interval})"


__all__ = ["STOPPED", "finish"]
