"""SAC from pictures on one task: cartpole-swingup at 100,000 frames, one seed (extended).

python -m benchmarks.offpolicy.sac_pixels
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import command
from benchmarks.offpolicy import dmc
from benchmarks.targets import value

TASK, SEED, ACTION_REPEAT, FRAMES = "cartpole-swingup", 0, 8, 100_000
TARGET = value(f"sac_pixels/{TASK}", ">=", 600.0, statistic="mean", n=1)
NOTE = (
    "Pictures of 64 x 64, three at a time, every action executed eight times, preset pixels: one update for each env "
    "step, batches of 128. The value is the mean return of 10 deterministic episodes at the end of training; one seed "
    "shows that it learns, no more. Published at 100,000 frames, with larger networks and batches of 512: DrQ 759 +- "
    "92, and SAC on pictures without shifts 419."
)
SMOKE = {"env.pixels.height": 16, "env.pixels.width": 16, "policy.image_channels": 4}


def main(argv: Sequence[str] | None = None) -> int:
    claim = "offpolicy/sac_pixels"
    opts = command.options(claim, __doc__ or "", argv, jobs=True)
    file, work = command.result(claim, opts, TARGET, NOTE), command.work(claim, opts)
    if not file.has(f"sac_pixels/{TASK}", SEED):
        settings = {"preset": "pixels", "eval_every": 1_250, **(SMOKE if opts.smoke else {})}
        run = work / TASK / f"seed{SEED}"
        curve = dmc.train(run, TASK, SEED, FRAMES // ACTION_REPEAT, settings, smoke=opts.smoke)
        dmc.record(file, "sac_pixels", TASK, SEED, curve)
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
