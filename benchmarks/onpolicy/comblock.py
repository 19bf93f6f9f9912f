"""HNPG, TRPO and RLPD on the combination lock, three seeds each.

python -m benchmarks.onpolicy.comblock --jobs 2
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

from benchmarks import command, lib
from benchmarks.onpolicy import locks
from benchmarks.targets import every, value

SEEDS = (0, 1, 2)
ARMS: dict[tuple[str, int], int] = {
    ("hnpg", 5): 150_000, ("hnpg", 10): 300_000, ("hnpg", 15): 800_000, ("trpo", 5): 600_000,
    ("rlpd", 5): 400_000, ("rlpd", 10): 400_000, ("hnpg", 30): 6_000_000,
}  # fmt: skip
"""Arm and horizon to the most online env steps."""
EXTENDED: dict[tuple[str, int], int] = {("rlpd", 15): 400_000, ("rlpd", 30): 400_000, ("offline", 5): 150_000}
"""Measured with --extended only."""
BOUNDS = {5: 80_000, 10: 170_000, 15: 450_000, 30: 6_000_000}
CURVE = locks.CURVE
TARGET = every(
    [
        *(value(f"hnpg/H{h}/solved_at", "<=", bound, statistic="max", n=len(SEEDS)) for h, bound in BOUNDS.items()),
        *(value(f"hnpg/H{h}/solved", ">=", 1.0, statistic="min", n=len(SEEDS)) for h in BOUNDS),
        value("trpo/H5/solved", "<=", 0.0, statistic="max", n=len(SEEDS)),
        value("trpo/H5/success", "<", 0.01, statistic="max", n=len(SEEDS)),
        *(value(f"rlpd/H{h}/solved", ">=", 1.0, statistic="min", n=len(SEEDS)) for h in (5, 10)),
    ]
)
NOTE = (
    "lock/combination with the anti-reward of the authors' code; hnpg, rlpd and offline have 50,000 recorded episodes "
    "of an expert that errs once an episode on average. Every seed has a lock and recorded episodes of its own. "
    "solved_at: online env steps until the share of training episodes, acted with exploration, that open the lock "
    "exceeds 1/2 over the last 50 blocks of 1,000 env steps; the length of the run where it never does (solved is 0 "
    "then). A run is made in six parts and ends with the one that solves the lock. success: that share at the end. "
    "HNPG's authors report about 5 million env steps at H=30; no raw data of "
    "theirs is known. trpo is HNPG's code without the recorded episodes, a policy for each step, as they compare it. "
    "rlpd is our SAC with their table 2, one actor and ten critics for all steps. Runs are single-threaded and may go "
    "side by side, so their times are no claim."
)


def main(argv: Sequence[str] | None = None) -> int:
    claim = "onpolicy/comblock"
    words = list(sys.argv[1:] if argv is None else argv)
    extended = "--extended" in words
    opts = command.options(claim, __doc__ or "", [w for w in words if w != "--extended"], jobs=True)
    file, work = command.result(claim, opts, TARGET, NOTE), command.work(claim, opts)
    data = work / "data" if opts.smoke else lib.WORK / "onpolicy" / "data"
    arms = ARMS | (EXTENDED if extended else {})
    if opts.smoke:
        arms, seeds = {("hnpg", 5): 0, ("trpo", 5): 0, ("rlpd", 5): 0}, list(SEEDS[:1])
    else:
        seeds = list(SEEDS)

    def run(arm: str, horizon: int, seed: int) -> None:
        lock = locks.Lock("lock/combination", horizon, seed)
        recorded = None if arm == "trpo" else locks.offline(data, lock, smoke=opts.smoke)
        where = work / arm / lock.task / f"seed{seed}"
        commit = locks.train(where, arm, lock, seed, arms[arm, horizon], recorded, smoke=opts.smoke)
        locks.record(file, arm, lock, seed, where, commit)

    def prepare(horizon: int, seed: int) -> None:
        locks.offline(data, locks.Lock("lock/combination", horizon, seed), smoke=opts.smoke)

    missing = [(*arm, seed) for arm, seed in product(arms, seeds) if not file.has(f"{arm[0]}/H{arm[1]}/solved", seed)]
    recordings = dict.fromkeys((horizon, seed) for arm, horizon, seed in missing if arm != "trpo")
    command.side_by_side([partial(prepare, *which) for which in recordings], opts.jobs)
    runs: list[Callable[[], None]] = [partial(run, *which) for which in missing]
    command.side_by_side(runs, opts.jobs)
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
