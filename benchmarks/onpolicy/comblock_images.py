"""HNPG on a lock that is seen through pictures of characters, tried on pictures that it was not trained on; two seeds.

python -m benchmarks.onpolicy.comblock_images --jobs 2
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks import command, lib
from benchmarks.onpolicy import locks
from benchmarks.targets import every, value
from robotrl.envs.lock.features import Features

SEEDS = (0, 1)
ARMS: dict[tuple[str, int], int] = {
    ("hnpg", 5): 400_000, ("hnpg", 10): 1_500_000, ("trpo", 5): 400_000, ("rlpd", 5): 200_000,
}  # fmt: skip
"""Arm and horizon to online env steps."""
TEST_EPISODES, TEST_SEED = 1_000, 700_000
CURVE = locks.CURVE
TARGET = every(
    [value(f"hnpg/H{h}/test_success", ">", 0.5, statistic="min", n=len(SEEDS)) for h in (5, 10)]
)  # fmt: skip
NOTE = (
    "lock/images: at every step three characters stand for the hidden states, in random fonts and distortions, and the "
    "observation is 64 features of a small network that was trained to read such characters (python -m "
    "robotrl.envs.lock.build); how well a linear probe reads them is below. test_success: share of 1,000 episodes, "
    "without exploration, that open the lock on pictures of the split test, of which training sees none. The rest is "
    "as in the claim comblock; TRPO and RLPD are beside it at H=5, for which there is no target."
)


def appendix(data: dict[str, Any]) -> str:
    """How well a linear probe reads the features."""
    train, test = (data["arms"].get(f"probe/{split}", {}).get("values", [None])[0] for split in ("train", "test"))
    if train is None or test is None:
        return "The features' linear probe was not measured."
    return f"A linear probe on the features reads {train:.1%} of the training and {test:.1%} of the test pictures."


def main(argv: Sequence[str] | None = None) -> int:
    claim = "onpolicy/comblock_images"
    opts = command.options(claim, __doc__ or "", argv, jobs=True)
    file, work = command.result(claim, opts, TARGET, NOTE), command.work(claim, opts)
    base = work if opts.smoke else lib.WORK / "onpolicy"
    features = base / "features"
    if not (features / "features.safetensors").is_file():
        _make_features(features, smoke=opts.smoke)
    probe = Features.load(str(features), "test").facts["probe"]
    for split, accuracy in probe.items():
        file.record(f"probe/{split}", 0, accuracy, unit="share of pictures", replace=True)
    arms, seeds = ({("hnpg", 5): 0}, SEEDS[:1]) if opts.smoke else (ARMS, SEEDS)

    def prepare(horizon: int, seed: int) -> None:
        locks.offline(base / "data", locks.Lock("lock/images", horizon, seed, features), smoke=opts.smoke)

    def run(arm: str, horizon: int, seed: int) -> None:
        lock = locks.Lock("lock/images", horizon, seed, features)
        recorded = None if arm == "trpo" else locks.offline(base / "data", lock, smoke=opts.smoke)
        where = work / arm / lock.task / f"seed{seed}"
        commit = locks.train(where, arm, lock, seed, arms[arm, horizon], recorded, smoke=opts.smoke)
        locks.record(file, arm, lock, seed, where, commit)
        success = _test(where, episodes=20 if opts.smoke else TEST_EPISODES)
        file.record(f"{arm}/{lock.task}/test_success", seed, success, unit="share of test episodes", commit=commit)
        command.say(f"{arm}/{lock.task} seed {seed}: {success:.3f} on held-out pictures")

    name = "{}/H{}/test_success"
    todo = [(*arm, seed) for arm, seed in product(arms, seeds) if not file.has(name.format(*arm), seed)]
    recordings = dict.fromkeys((horizon, seed) for arm, horizon, seed in todo if arm != "trpo")
    command.side_by_side([partial(prepare, *which) for which in recordings], opts.jobs)
    runs: list[Callable[[], None]] = [partial(run, *which) for which in todo]
    command.side_by_side(runs, opts.jobs)
    return command.conclude(file)


def _make_features(folder: Path, *, smoke: bool) -> None:
    if smoke:
        from robotrl.envs.lock.build import Recipe, build

        build(folder, Recipe(train_pictures=8, test_pictures=4, steps=2, probe_steps=5))
        return
    command.execute([sys.executable, "-m", "robotrl.envs.lock.build", str(folder)], log=folder.with_suffix(".log"))


def _test(run: Path, *, episodes: int) -> float:
    """Success of the final policy on held-out pictures."""
    out = run / "test.json"
    if not out.is_file():
        words = [f"policy_dir={run / 'policy' / 'final'}", "env.options.split=test", f"episodes={episodes}"]
        words += [f"seed={TEST_SEED}", f"out={out}", "num_threads=1"]
        command.execute([*command.ROBOTRL, "eval", *words], log=out.with_suffix(".log"))
    successes = json.loads(out.read_text(encoding="utf-8"))["successes"]
    return float(sum(successes) / len(successes))


if __name__ == "__main__":
    raise SystemExit(main())
