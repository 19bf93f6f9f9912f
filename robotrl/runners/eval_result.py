"""What an evaluation found: one row an episode, and a summary that never gives a score without its uncertainty."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from robotrl.functional.statistics import Interval, bootstrap_interval, iqm, mean, wilson_interval
from robotrl.types import RobotRLError

FORMAT_VERSION = 1


@dataclass(slots=True, repr=False)
class EvalResult:
    """Returns, lengths and successes of the episodes 0 .. n - 1 of `seed`. Prints as a table."""

    env_id: str
    seed: int
    """Seed of the evaluation; episode i started from `(seed, i)`."""
    returns: list[float]
    """Undiscounted sum of rewards, one an episode."""
    lengths: list[int]
    """Agent decisions, one an episode."""
    successes: list[bool] | None = None
    """None where the env has no notion of success."""
    explore: bool = False
    """Whether actions were sampled as in training."""
    wall_s: float = 0.0
    meta: dict[str, Any] = field(default_factory=dict)
    """What produced it, JSON-ready: policy directory, env configuration, env steps of training."""

    @property
    def n(self) -> int:
        """Number of episodes."""
        return len(self.returns)

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def mean_interval(self) -> Interval:
        """95 % bootstrap interval of the mean return, over episodes."""
        return bootstrap_interval(self.returns, mean)

    @property
    def iqm(self) -> float:
        """Interquartile mean of the returns."""
        return float(iqm(self.returns))

    @property
    def iqm_interval(self) -> Interval:
        """95 % bootstrap interval of the interquartile mean, over episodes."""
        return bootstrap_interval(self.returns, iqm)

    @property
    def success_rate(self) -> float | None:
        """Share of successful episodes; None where the env has no notion of success."""
        return None if self.successes is None else float(np.mean(self.successes))

    @property
    def success_interval(self) -> Interval | None:
        """95 % Wilson interval of the success rate."""
        return None if self.successes is None else wilson_interval(sum(self.successes), self.n)

    def metrics(self) -> dict[str, float]:
        """The summary as `eval/*` numbers, for the metrics of a run."""
        low, high = self.mean_interval
        values = {
            "eval/return": self.mean,
            "eval/return_low": low,
            "eval/return_high": high,
            "eval/return_iqm": self.iqm,
            "eval/length": float(np.mean(self.lengths)),
            "eval/episodes": float(self.n),
        }
        if self.successes is not None:
            values["eval/success"] = float(np.mean(self.successes))
        return values

    def __str__(self) -> str:
        acting = "sampled actions" if self.explore else "deterministic actions"
        starts = f"(seed {self.seed}, 0..{self.n - 1})" if self.n > 1 else f"(seed {self.seed}, 0)"
        rows = [
            ("", "value", "95 % interval"),
            ("return, mean", f"{self.mean:.2f}", _span(self.mean_interval, "bootstrap")),
            ("return, IQM", f"{self.iqm:.2f}", _span(self.iqm_interval, "bootstrap")),
            ("length, mean", f"{np.mean(self.lengths):.1f}", ""),
        ]
        interval = self.success_interval
        if self.successes is not None and interval is not None:
            rate = f"{sum(self.successes)}/{self.n} = {self.success_rate:.2f}"
            rows.append(("success", rate, _span(interval, "Wilson")))
        title = f"{self.env_id}: n = {self.n} episode{'s' * (self.n != 1)}, starts {starts}, {acting}"
        return f"{title}\n{columns(rows)}"

    __repr__ = __str__  # what a notebook shows

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary: the raw episodes for `from_json`, and the summary for people."""
        summary = {k: v if np.isfinite(v) else None for k, v in self.metrics().items()}
        return {"format_version": FORMAT_VERSION, "kind": "evaluation", **asdict(self), "summary": summary}

    @staticmethod
    def from_json(data: dict[str, Any]) -> EvalResult:
        """Read what `to_json` wrote.

        Raises:
            RobotRLError: not an evaluation, or written by a newer version.
        """
        if not isinstance(data, dict) or data.get("kind") != "evaluation":
            raise RobotRLError("This is not an evaluation written by RobotRL (no kind 'evaluation' in it).")
        if data.get("format_version") != FORMAT_VERSION:
            version = data.get("format_version")
            raise RobotRLError(
                f"The evaluation has format {version}; this version reads {FORMAT_VERSION}. Update robotrl."
            )
        names = {f.name for f in fields(EvalResult)}
        missing = {"env_id", "seed", "returns", "lengths"} - set(data)
        if missing:
            raise RobotRLError(f"The evaluation is damaged: it has no {', '.join(sorted(missing))}. Evaluate again.")
        return EvalResult(**{k: v for k, v in data.items() if k in names})

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write `to_json` to `path`, folders included; replaces an older file only once the new one is complete."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(target.name + ".tmp")
        draft.write_text(json.dumps(self.to_json(), indent=1) + "\n")
        draft.replace(target)
        return target

    @staticmethod
    def load(path: str | os.PathLike[str]) -> EvalResult:
        """Read an evaluation file.

        Raises:
            RobotRLError: the file is missing, or is not an evaluation.
        """
        try:
            return EvalResult.from_json(json.loads(Path(path).read_text()))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise RobotRLError(f"Cannot read the evaluation {path}: {error}") from error
        except RobotRLError as error:
            raise RobotRLError(f"{path}: {error}") from error


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = (1,)) -> str:
    """Rows of cells as aligned text, the columns numbered in `right` flush right."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = [
        "  ".join(c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _span(interval: Interval, method: str) -> str:
    low, high = interval
    if not np.isfinite(low + high):
        return "unknown from one episode"
    return f"[{low:.2f}, {high:.2f}] ({method})"
