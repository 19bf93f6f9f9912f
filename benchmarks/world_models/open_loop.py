"""How far the world models of `dreamer_state` see: their error 1 to 15 steps ahead beside that of copying.

python -m benchmarks.world_models.open_loop
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks import command, lib
from benchmarks.targets import every, value
from benchmarks.world_models import dreamer_state
from benchmarks.world_models.dreamer_pixels import publish

HORIZON, EPISODES, SEED = 15, 10, 900_000
TARGET = every(
    [
        value(f"ratio/{task}/{step:02d}_ahead", "<", 1.0, statistic="max", n=seeds)
        for (task, (_, seeds)), step in product(dreamer_state.TASKS.items(), range(1, HORIZON + 1))
    ]
)
NOTE = (
    "Of each run of dreamer_state, `robotrl eval predictions=`: at eight moments of each of 10 episodes that its "
    "final policy plays with exploration, the model, which has followed the episode up to there, is told only the "
    "actions from then on. The error is the mean square over the numbers of the observation, each in units of its own "
    "deviation, and over moments and episodes; the model's guess is one sample. ratio: its error as a share of that of "
    "saying the last observation it saw again."
)


def measure(file: lib.ResultFile, task: str, seed: int, run: Path, out: Path) -> None:
    """Record a run's errors, and write its sheet to `out`."""
    words = [f"policy_dir={run}", f"episodes={EPISODES}", f"seed={SEED}", "num_threads=1", f"predictions={out}"]
    command.execute([*command.ROBOTRL, "eval", *words], threads=1, log=out.with_suffix(".log"))
    found = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))["errors"]
    model, copy = (
        np.concatenate([np.mean(np.asarray(group[kind]), 0, keepdims=True) for group in found.values()]).mean(0)
        for kind in ("model", "copy")
    )
    for step in range(1, HORIZON + 1):
        for name, error in (("model", model), ("copy", copy), ("ratio", model / copy)):
            unit = "share" if name == "ratio" else "squared deviations"
            file.record(f"{name}/{task}/{step:02d}_ahead", seed, float(error[step - 1]), unit=unit)
    command.say(f"{task} seed {seed}: {(model / copy)[0]:.3f} one step ahead, {(model / copy)[-1]:.3f} at {HORIZON}")


def main(argv: Sequence[str] | None = None) -> int:
    claim = "world_models/open_loop"
    opts = command.options(claim, __doc__ or "", argv, jobs=True)
    file, work = command.result(claim, opts, TARGET, NOTE), command.work(claim, opts)
    runs = lib.WORK / ("smoke" if opts.smoke else ".") / "world_models" / "dreamer_state"
    for task, (_, seeds) in dreamer_state.TASKS.items():
        for seed in range(seeds):
            run = runs / task / f"seed{seed}"
            if not (run.with_name(run.name + ".done")).exists():
                if opts.smoke:
                    continue
                print("Its runs are missing. First: python -m benchmarks.world_models.dreamer_state", file=sys.stderr)
                return 2
            if file.has(f"ratio/{task}/{HORIZON}_ahead", seed):
                continue
            sheet = work / f"{task}-{seed}.png"
            measure(file, task, seed, run, sheet)
            if seed == 0 and not opts.smoke:
                publish(sheet, f"open_loop_{task}.png")
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
