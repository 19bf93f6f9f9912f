"""AILBoost and DAC from pictures, one demonstration of ball_in_cup-catch, one seed (extended).

python -m benchmarks.offpolicy.ailboost_pixels --jobs 2
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from benchmarks import command
from benchmarks.offpolicy import imitation
from benchmarks.targets import every, value

SEED, TASK = 0, "ball_in_cup-catch"
LEARNERS = ("ailboost", "dac")
TARGET = every([value(f"ailboost/{TASK}/{policy}", ">=", 0.5, statistic="mean", n=1) for policy in ("mixture", "last")])
NOTE = (
    "Pictures of 64 x 64, three at a time, presets pixels: 40,000 env steps (80,000 frames), one update for each in "
    "batches of 128; AILBoost and DAC have the same SAC. The demonstration is an episode of our SAC expert, which sees "
    "states, and is recorded without loss. Scores are mean returns of 20 deterministic test episodes divided by the "
    "expert's (arm expert: its return); `_sampled` are the same with actions sampled. One seed shows that it learns, "
    "no more."
)
PIXELS = {"env.pixels.height": 64, "env.pixels.width": 64}
SMALL: dict[str, Any] = {"env.pixels.height": 16, "env.pixels.width": 16, "policy.image_channels": 4}


def main(argv: Sequence[str] | None = None) -> int:
    claim = "offpolicy/ailboost_pixels"
    opts = command.options(claim, __doc__ or "", argv, jobs=True)
    file = command.result(claim, opts, TARGET, NOTE)
    pixels = {key: SMALL[key] for key in PIXELS} if opts.smoke else PIXELS
    bench = imitation.Bench(claim, opts, pixels=pixels)
    task = "walker-walk" if opts.smoke else TASK  # on which a beginner scores
    for i, score in enumerate(bench.expert_return(task)):
        file.record(f"expert/{task}", i, score, unit="return", replace=True)
    bench.demos(task, SEED, 1)

    def run(learner: str) -> None:
        settings = {"preset": "pixels", **(SMALL if opts.smoke else {})}
        imitation.record(file, learner, task, SEED, bench.imitate(learner, task, SEED, episodes=1, settings=settings))

    runs: list[Callable[[], None]] = [
        partial(run, learner) for learner in LEARNERS if not file.has(f"{learner}/{task}/last", SEED)
    ]
    command.side_by_side(runs, opts.jobs)
    for policy in ("mixture", "last"):
        imitation.record_difference(file, task, SEED, policy=policy, of="ailboost", to="dac")
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
