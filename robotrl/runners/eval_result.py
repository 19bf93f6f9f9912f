"""What an evaluation found: one row an episode, and a summary that never gives a score without its uncertainty."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from robotrl.functional.statistics import Interval, bootstrap_interval, iqm, mean, wilson_interval
from robotrl.registry import nearest
from robotrl.types import RobotRLError

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Share:
    """How often something was so in one group of episodes."""

    name: str
    count: int
    n: int

    @property
    def rate(self) -> float:
        """The share of the group's episodes."""
        return self.count / self.n

    @property
    def interval(self) -> Interval:
        """Its 95 % Wilson interval."""
        return wilson_interval(self.count, self.n)


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
    labels: dict[str, list[str]] = field(default_factory=dict)
    """What each episode is called, by kind: `task`, `instruction`, `paraphrase`, `pair`; see `by`."""
    outcomes: dict[str, list[bool]] = field(default_factory=dict)
    """Further yes-or-no outcomes of each episode, such as `original_success` where the instruction was swapped."""

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

    def outcome(self, name: str) -> Share:
        """How often a further outcome came about.

        Raises:
            RobotRLError: the env did not report it.
        """
        if name not in self.outcomes:
            raise RobotRLError(f"{self.env_id} reports no outcome '{name}'. It reports: {sorted(self.outcomes)}.")
        return Share(name, sum(self.outcomes[name]), self.n)

    def by(self, kind: str, outcome: str = "success") -> list[Share]:
        """Success, or another outcome, of the episodes that share a label, in the labels' alphabetical order.

        Args:
            kind: of label: `task`, `instruction`, `paraphrase`, `pair`.
            outcome: `success`, or a name in `outcomes`.

        Raises:
            RobotRLError: the episodes have no such label or outcome.
        """
        if kind not in self.labels:
            raise RobotRLError(
                f"The episodes of {self.env_id} have no label '{kind}'.{nearest(kind, list(self.labels))} "
                f"They have: {', '.join(self.labels) or 'none'}."
            )
        values = self.successes if outcome == "success" else self.outcomes.get(outcome)
        if values is None:
            raise RobotRLError(f"The evaluation of {self.env_id} knows no '{outcome}' of its episodes.")
        groups: dict[str, list[bool]] = {}
        for label, value in zip(self.labels[kind], values, strict=True):
            groups.setdefault(label, []).append(value)
        return [Share(label, sum(found), len(found)) for label, found in sorted(groups.items())]

    def table(self, kind: str) -> str:
        """Success and the other outcomes by a kind of label, with Wilson intervals, as text; see `by`."""
        names = ["success", *self.outcomes]
        rows = [(kind, "n", *(word for name in names for word in (name.replace("_", " "), "95 % interval")))]
        for shares in zip(*(self.by(kind, name) for name in names), strict=True):
            cells = [word for s in shares for word in (f"{s.count}/{s.n} = {s.rate:.2f}", _span(s.interval, "Wilson"))]
            rows.append((shares[0].name, str(shares[0].n), *cells))
        return columns(rows, right=(1, *range(2, 2 + 2 * len(names), 2)))

    def tables(self) -> str:
        """A table for every kind of label that tells episodes apart, but for the instructions themselves."""
        kinds = [k for k, texts in self.labels.items() if k != "instruction" and len(set(texts)) > 1]
        return "\n\n".join(self.table(kind) for kind in kinds if self.successes is not None)

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
        last = max((part["n"] for part in self.meta.get("parts", ())), default=self.n) - 1
        starts = f"(seed {self.seed}, 0..{last})" if last else f"(seed {self.seed}, 0)"
        starts += " of each" if "parts" in self.meta else ""
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
        for name in self.outcomes:
            share = self.outcome(name)
            rate = f"{share.count}/{share.n} = {share.rate:.2f}"
            rows.append((name.replace("_", " "), rate, _span(share.interval, "Wilson")))
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


def pool(results: Sequence[EvalResult]) -> EvalResult:
    """One result of the episodes of several envs, in turn; labels and outcomes that all of them have are kept.

    Raises:
        RobotRLError: no results, some with and some without success, or other seeds.
    """
    if not results:
        raise RobotRLError("There are no evaluations to pool. Name at least one task.")
    first = results[0]
    if len({(r.seed, r.explore, r.successes is None) for r in results}) > 1:
        raise RobotRLError("Evaluations are pooled only where seed, exploration and success are of one kind.")
    labels = {kind: [x for r in results for x in r.labels[kind]] for kind in _shared(r.labels for r in results)}
    outcomes = {name: [x for r in results for x in r.outcomes[name]] for name in _shared(r.outcomes for r in results)}
    return EvalResult(
        env_id=_joined([r.env_id for r in results]),
        seed=first.seed,
        returns=[x for r in results for x in r.returns],
        lengths=[x for r in results for x in r.lengths],
        successes=None if first.successes is None else [x for r in results for x in r.successes or ()],
        explore=first.explore,
        wall_s=sum(r.wall_s for r in results),
        meta={"parts": [{"env_id": r.env_id, "n": r.n, **r.meta} for r in results]},
        labels=labels,
        outcomes=outcomes,
    )


def _joined(ids: Sequence[str]) -> str:
    """`tabletop/pick+press` for two tasks of a family."""
    family = ids[0].rpartition("/")[0]
    if len(ids) > 1 and family and all(name.rpartition("/")[0] == family for name in ids):
        return f"{family}/{'+'.join(name.rpartition('/')[2] for name in ids)}"
    return "+".join(ids)


def _shared(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Keys that all have, in the order of the first."""
    first, *rest = mappings
    return [key for key in first if all(key in other for other in rest)]


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
