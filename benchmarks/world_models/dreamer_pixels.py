"""Dreamer from pictures of 64 x 64: cartpole-swingup, one seed.

python -m benchmarks.world_models.dreamer_pixels
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks import command, provenance
from benchmarks.offpolicy import dmc
from benchmarks.spine import training
from benchmarks.targets import value
from benchmarks.world_models import dreamer_state

TASK, SEED, FRAMES, REPEAT = "cartpole-swingup", 0, 150_000, 4
SHEETS = provenance.ROOT / "docs" / "images"
"""Where sheets of predictions go that pages show."""
TARGET = value(f"dreamer_pixels/{TASK}", ">=", 400.0, statistic="mean", n=1)
NOTE = (
    "preset=cpu on pictures of 64 x 64, with batches of 8 sequences of 16 steps for the time that pictures take, and "
    "imagination from half of their states: size1m, one update for every two env steps; every action is executed four "
    "times, so 37,500 env steps are 150,000 frames. The value is the mean return of 10 episodes at the end of "
    "training, without exploration; one seed shows that it learns, no more."
)


def publish(sheet: Path, name: str) -> None:
    """Copy a sheet to where the pages find it; its numbers stay where they are."""
    shutil.copyfile(sheet, SHEETS / name)


def main(argv: Sequence[str] | None = None) -> int:
    claim = "world_models/dreamer_pixels"
    opts = command.options(claim, __doc__ or "", argv, jobs=True)
    file, work = command.result(claim, opts, TARGET, NOTE), command.work(claim, opts)
    if not file.has(f"dreamer_pixels/{TASK}", SEED):
        own = dreamer_state.settings(f"dmc/{TASK}", SEED, FRAMES // REPEAT)
        own |= {"env.action_repeat": REPEAT, "env.pixels.height": 64, "env.pixels.width": 64}
        own |= {"learner.batch_size": 8, "learner.imagine_share": 0.5}
        own |= dreamer_state.SMOKE if opts.smoke else {}
        curve = training.robotrl(work / TASK / f"seed{SEED}", own, threads=1)
        sheet = work / "sheet.png"
        words = [f"policy_dir={work / TASK / f'seed{SEED}'}", "episodes=4", f"predictions={sheet}"]
        command.execute([*command.ROBOTRL, "eval", *words], log=work / "sheet.log")
        if not opts.smoke:
            publish(sheet, "dreamer_pixels.png")
        dmc.record(file, "dreamer_pixels", TASK, SEED, curve)
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
