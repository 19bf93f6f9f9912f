"""What the imitation claims share: experts, their demonstrations, runs that imitate them, and scores.

An expert is a SAC run of ours, trained once and kept under `benchmarks/work/offpolicy/experts/`; all claims use the
same. A seed has demonstrations of its own: episodes that start from `(DEMO_SEED + seed, i)`. Scores are returns divided
by the expert's, both of deterministic episodes on starts that nothing was trained on.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import command, lib
from benchmarks.offpolicy import dmc
from benchmarks.spine import training

EXPERT_STEPS = {
    "ball_in_cup-catch": 50_000, "walker-walk": 150_000, "cheetah-run": 400_000, "quadruped-walk": 500_000,
}  # fmt: skip
"""Env steps (half the frames) of an expert's training."""
DEMO_SEED, TEST_SEED, TEST_EPISODES = 500_000, 700_000, 20
TINY = {
    "total_env_steps": 400, "eval_every": 200, "eval_episodes": 1, "policy.hidden": "[16]", "env.time_limit": 50,
    "schedule.warmup_env_steps": 100,
}  # fmt: skip
"""What makes a run of `--smoke`."""


@dataclass(frozen=True, slots=True)
class Imitation:
    """What one run of one learner came to."""

    scores: dict[str, float]
    """By policy, `last` and, where there is one, `mixture`: return divided by the expert's."""
    sampled: dict[str, float]
    """The same with actions sampled as in training."""
    curves: dict[str, training.Curve]
    members: int
    """Of the mixture; 0 where there is none."""
    minutes: float
    """Wall minutes of the run, evaluations included."""
    env_steps: int

    @property
    def commit(self) -> str | None:
        """Of the code that trained."""
        return self.curves["last"].commit


class Bench:
    """The runs of one claim.

    Args:
        claim: `offpolicy/<claim>`.
        opts: of the command line.
        pixels: `env.pixels` of demonstrations, which then hold pictures, without loss, beside states; None: states.
    """

    def __init__(self, claim: str, opts: Namespace, *, pixels: Mapping[str, Any] | None = None) -> None:
        self._pixels = pixels
        self.work, self.smoke = command.work(claim, opts), bool(opts.smoke)
        self._experts = self.work / "experts" if self.smoke else lib.WORK / "offpolicy" / "experts"

    def expert(self, task: str) -> Path:
        """The run directory of the task's expert, trained if there is none."""
        run = self._experts / task
        settings: dict[str, Any] = {"total_env_steps": EXPERT_STEPS[task], "checkpoint_every": 0, "eval_every": 10_000}
        settings |= dmc.BF16
        if self.smoke:
            settings |= TINY | {"learner.random_env_steps": 100}
        training.robotrl(run, _train("sac", task, 0, settings), threads=1)
        return run

    def expert_return(self, task: str) -> list[float]:
        """Returns of the expert's test episodes."""
        best = self.expert(task) / "policy" / "best"
        returns = self._test(best, self._experts / f"{task}-test.json")
        if _mean(returns) <= 0:
            raise RuntimeError(f"the expert of {task} has learned nothing: its returns are {returns}")
        return returns

    def demos(self, task: str, seed: int, episodes: int) -> Path:
        """A data set of the first `episodes` of the seed, played by the expert without noise."""
        kind = "" if self._pixels is None else "-pixels"
        out = self._experts / f"{task}-demos" / f"seed{seed}-{episodes}{kind}"
        if not (out / "meta" / "info.json").is_file():
            source = f"policy_dir={self.expert(task) / 'policy' / 'best'}"
            words = [source, f"out={out}", f"episodes={episodes}", f"seed={DEMO_SEED + seed}"]
            if self._pixels is not None:
                shown = {**self._pixels, "env.pixels.replace_state": "false", "lossless": "true"}
                words += [f"{key}={value}" for key, value in shown.items()]
            log = out.with_name(out.name + ".log")
            command.execute([*command.ROBOTRL, "collect", *words, "num_envs=1", "num_threads=1"], log=log)
        return out

    def imitate(
        self, learner: str, task: str, seed: int, *, episodes: int, settings: Mapping[str, Any] | None = None
    ) -> Imitation:
        """Train `learner` on the seed's demonstrations and test what it saved."""
        precision = {} if learner == "bc" else {"learner.sac.matmul_precision": "bf16"}  # see dmc.BF16
        more = {"replay.demos": str(self.demos(task, seed, episodes)), "checkpoint_every": 0, **precision}
        more |= settings or {}
        if self.smoke:
            more |= TINY | _SMALL[learner]
        run = self.work / f"{learner}-{episodes}" / task / f"seed{seed}"
        curve = training.robotrl(run, _train(learner, task, seed, more), threads=1)
        expert = _mean(self.expert_return(task))
        curves, saved = {"last": curve}, {"last": run / "policy" / "final"}
        if (run / "policy" / "mixture").is_dir():
            curves["mixture"] = training.Curve(training.robotrl_points(run, "mixture"), curve.commit)
            saved["mixture"] = run / "policy" / "mixture"

        def shares(kind: str, *words: str) -> dict[str, float]:
            returns = {name: self._test(p, run / f"test-{name}{kind}.json", *words) for name, p in saved.items()}
            return {name: _mean(values) / expert for name, values in returns.items()}

        last = training.metrics(run)[-1]
        members, minutes = int(last.get("mixture/members", 0)), last["time/elapsed"] / 60.0
        scores, sampled = shares(""), shares("-sampled", "explore=true")
        return Imitation(scores, sampled, curves, members, minutes, int(last["env_steps"]))

    def _test(self, policy: Path, out: Path, *more: str) -> list[float]:
        """Returns of the test episodes; more words for `robotrl eval` may follow."""
        if not out.is_file():
            episodes = 2 if self.smoke else TEST_EPISODES
            words = [f"policy_dir={policy}", f"episodes={episodes}", f"seed={TEST_SEED}", f"out={out}", "num_threads=1"]
            command.execute([*command.ROBOTRL, "eval", *words, *more], log=out.with_suffix(".log"))
        return [float(value) for value in json.loads(out.read_text(encoding="utf-8"))["returns"]]


def record(file: lib.ResultFile, arm: str, task: str, seed: int, result: Imitation) -> None:
    """The scores, curves, members and minutes of one run, under `<arm>/<task>/...`."""

    def put(what: str, value: float, unit: str) -> None:
        file.record(
            f"{arm}/{task}/{what}", seed, value, unit=unit, wall_s=result.minutes * 60.0, env_steps=result.env_steps,
            commit=result.commit, replace=True,
        )  # fmt: skip

    for policy, score in result.scores.items():
        put(policy, score, "share of the expert's return")
        file.add_curve(result.curves[policy].rows(f"{arm} {policy}", task, seed))
    for policy, score in result.sampled.items():
        put(f"{policy}_sampled", score, "share of the expert's return")
    put("minutes", result.minutes, "min")
    if result.members:
        put("members", result.members, "members")
    said = ", ".join(f"{policy} {score:.3f}" for policy, score in result.scores.items())
    command.say(f"{arm}/{task} seed {seed}: {said} of the expert in {result.minutes:.1f} min")


def record_difference(file: lib.ResultFile, task: str, seed: int, *, policy: str, of: str, to: str) -> None:
    """`<of>_minus_<to>/<task>/<policy>`, paired by seed, once both are there."""
    ours, theirs = f"{of}/{task}/{policy}", f"{to}/{task}/last"
    if file.has(ours, seed) and file.has(theirs, seed):
        difference = file.arms[ours].value_of(seed) - file.arms[theirs].value_of(seed)
        name = f"{of}_minus_{to}/{task}/{policy}"
        file.record(name, seed, difference, unit="share of the expert's return", replace=True)


def _train(learner: str, task: str, seed: int, more: Mapping[str, Any]) -> dict[str, Any]:
    own = {"learner": learner, "env": f"dmc/{task}", "preset": "auto", "seed": seed}
    return {**own, "num_threads": 1, "video": False, **more}


_SMALL: dict[str, dict[str, Any]] = {
    "dac": {"learner.sac.random_env_steps": 100},
    "ailboost": {
        "learner.sac.random_env_steps": 100, "learner.member_env_steps": 50, "learner.explore_env_steps": 50,
    },
    "bc": {},
}  # fmt: skip


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
