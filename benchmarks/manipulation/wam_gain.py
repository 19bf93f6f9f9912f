"""What predicting the future is worth to a policy, at a tenth of the demonstrations.

python -m benchmarks.manipulation.wam_gain --jobs 2
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.manipulation import cloning, demos
from benchmarks.targets import Target, every, value, verdict, verdict_of
from robotrl.functional.statistics import student_interval

SEEDS = (0, 1)
UPDATES = 4_500
KINDS = ("vla", "wam")
NOTE = cloning.NOTE + (
    "Here a share of the episodes of each task is used, the first ones. wam is the vla's trunk and, in training, the "
    "future beside it: the front camera's picture at the end of the chunk, under GigaWorld's mask. Both have the same "
    "number of updates, on one thread each; the autoencoder's 800 are the wam's besides, and count in its minutes. The "
    "difference is by seed; any verdict meets the claim: supported where Student's interval lies above zero, refuted "
    "below, else undecided."
)


def target(share: int) -> Target:
    """A verdict, from runs of at most 25 minutes."""
    minutes = [value(f"{kind}/{share}/minutes", "<=", 25.0, statistic="max", n=len(SEEDS)) for kind in KINDS]
    return every([verdict(f"wam_minus_vla/{share}", n=len(SEEDS)), *minutes])


TARGET = target(10)


def appendix(data: Mapping[str, Any]) -> str:
    """The verdict on each difference there is."""
    lines = ["| difference | seeds | mean, Student's 95 % interval | verdict |", "| --- | --- | --- | --- |"]
    for arm, entry in data["arms"].items():
        if arm.startswith("wam_minus_vla/") and len(values := entry["values"]) >= len(SEEDS):
            low, high = student_interval(values)
            mean = sum(values) / len(values)
            lines.append(f"| `{arm}` | {len(values)} | {mean:.3f} [{low:.3f}, {high:.3f}] | {verdict_of(values)} |")
    return "\n".join(lines)


def train(run: Path, data: Path, kind: str, seed: int, share: int, *, smoke: bool) -> cloning.Trained:
    """One run on one thread; a finished one stays as it is."""
    settings = {"preset": kind, "replay.demos": data, "seed": seed, "env.options.split": "train",
                "replay.demo_episodes": 2 if smoke else share}  # fmt: skip
    return cloning.train(run, settings | cloning.sizes(smoke=smoke, updates=UPDATES), threads=1)


def measure(claim: str, description: str, share: int, argv: Sequence[str] | None) -> int:
    """Train every arm and seed with `share` percent of the episodes, then play and compare them."""
    opts: argparse.Namespace = command.options(claim, description, argv, jobs=True)
    file, work = command.result(claim, opts, target(share), NOTE), command.work(claim, opts)
    data, episodes = demos.recorded(smoke=opts.smoke), 2 if opts.smoke else cloning.EPISODES
    runs = [
        (kind, seed, partial(train, work / kind / f"seed{seed}" / "run", data, kind, seed, share, smoke=opts.smoke))
        for kind, seed in product(KINDS, SEEDS[:1] if opts.smoke else SEEDS)
        if not file.has(f"{kind}/{share}/success", seed)
    ]
    command.side_by_side([run for _, _, run in runs], opts.jobs)
    for kind, seed, run in runs:
        cloning.record(file, f"{kind}/{share}", seed, run(), episodes=episodes)
    without, with_future = (file.arms[f"{kind}/{share}/success"] for kind in KINDS)
    for seed in without.seeds:
        gain = with_future.value_of(seed) - without.value_of(seed)
        file.record(f"wam_minus_vla/{share}", seed, gain, unit="share of episodes", replace=True)
    return command.conclude(file)


def main(argv: Sequence[str] | None = None) -> int:
    return measure("manipulation/wam_gain", __doc__ or "", 10, argv)


if __name__ == "__main__":
    raise SystemExit(main())
