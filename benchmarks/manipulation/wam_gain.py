"""What predicting the future is worth to a policy, at a tenth of the demonstrations.

python -m benchmarks.manipulation.wam_gain
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product

from benchmarks import command
from benchmarks.manipulation import cloning, demos
from benchmarks.targets import Target, every, value, verdict

SEEDS = (0, 1)
UPDATES = 6_000
KINDS = ("vla", "wam")
NOTE = cloning.NOTE + (
    "Here a share of the episodes of each task is used, the first ones. wam is the vla's trunk and, in training, the "
    "future beside it: the front camera's picture at the end of the chunk, under GigaWorld's mask. Both have the same "
    "number of updates; the autoencoder's 800 are the wam's besides, and count in its minutes. The difference is by "
    "seed; any verdict meets the claim: supported where its 95 % interval lies above zero, refuted below, else "
    "undecided."
)


def target(share: int) -> Target:
    """A verdict, from runs of at most 25 minutes."""
    minutes = [value(f"{kind}/{share}/minutes", "<=", 25.0, statistic="max", n=len(SEEDS)) for kind in KINDS]
    return every([verdict(f"wam_minus_vla/{share}", n=len(SEEDS)), *minutes])


TARGET = target(10)


def measure(claim: str, description: str, share: int, argv: Sequence[str] | None) -> int:
    """Train and play every arm and seed with `share` percent of the episodes."""
    opts: argparse.Namespace = command.options(claim, description, argv)
    file, work = command.result(claim, opts, target(share), NOTE), command.work(claim, opts)
    data = demos.recorded(smoke=opts.smoke)
    for seed, kind in product(SEEDS[:1] if opts.smoke else SEEDS, KINDS):
        arm = f"{kind}/{share}"
        if not file.has(f"{arm}/success", seed):
            settings = {"preset": kind, "replay.demos": data, "seed": seed, "env.options.split": "train",
                        "replay.demo_episodes": 2 if opts.smoke else share}  # fmt: skip
            trained = cloning.train(
                work / kind / f"seed{seed}" / "run", settings | cloning.sizes(smoke=opts.smoke, updates=UPDATES)
            )
            cloning.record(file, arm, seed, trained, episodes=2 if opts.smoke else cloning.EPISODES)
        both = [file.arms.get(f"{k}/{share}/success") for k in KINDS]
        if kind == KINDS[-1] and all(both):
            without, with_future = (one.value_of(seed) for one in both if one is not None)
            name = f"wam_minus_vla/{share}"
            file.record(name, seed, with_future - without, unit="share of episodes", replace=True)
    return command.conclude(file)


def main(argv: Sequence[str] | None = None) -> int:
    return measure("manipulation/wam_gain", __doc__ or "", 10, argv)


if __name__ == "__main__":
    raise SystemExit(main())
