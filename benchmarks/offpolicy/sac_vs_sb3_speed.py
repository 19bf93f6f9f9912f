"""SAC's updates a second against Stable-Baselines3's at the same sizes, and against the matrix products alone.

python -m benchmarks.offpolicy.sac_vs_sb3_speed
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import command, lib, peers
from benchmarks.targets import at_least, every, ratio

REPEATS = 5
ARMS = {
    "sb3": ("sb3", 1, 320),
    "robotrl_fp32": ("robotrl_fp32", 1, 640),
    "robotrl_bf16": ("robotrl_bf16", 1, 640),
    "matrix": ("matrix", 1, 640),
    "matrix_bf16": ("matrix_bf16", 1, 640),
    "eager_loop": ("eager_loop", 1, 320),
    "eager_stacked": ("eager_stacked", 1, 320),
    "eager_compiled": ("eager_compiled", 1, 320),
    "robotrl_fp32_2_threads": ("robotrl_fp32", 2, 640),
    "robotrl_bf16_2_threads": ("robotrl_bf16", 2, 640),
}
"""Arm: (worker's arm, cores and torch threads, timed updates)."""

FAST = [ratio("robotrl_fp32", "sb3", ">=", 1.3, n=REPEATS), ratio("robotrl_fp32", "matrix", ">=", 0.8, n=REPEATS)]
TARGET = every([at_least(1, FAST), ratio("robotrl_bf16", "sb3", ">=", 1.8, n=REPEATS)])
NOTE = (
    "Updates a second: batch from the replay, critics, targets, actor, temperature. Sizes of HalfCheetah-v5, two "
    "critics and an actor of 2x256 units, batch 256; every arm is bound to one core, those named so to two. bf16: "
    "matrix products in bfloat16 over float32 weights. matrix, matrix_bf16: the matrix products of an update alone, "
    "each as torch.bmm at its shape. eager_*: the same update in plain PyTorch (autograd, fused Adam): critics one "
    "after the other, stacked, and stacked with torch.compile of both losses, compilation not timed. sbx: "
    "Stable-Baselines3's SAC in JAX, in an environment of its own; missing where it could not be installed."
)


def appendix(data: dict[str, Any]) -> str:
    """Shares of the limit, for the report."""
    median = {name: statistics.median(arm["values"]) for name, arm in data["arms"].items()}
    if not {"robotrl_fp32", "robotrl_bf16", "matrix", "matrix_bf16", "sb3"} <= set(median):
        return ""
    shares = [
        f"{name} makes {median[name]:.0f} updates a second, {median[name] / median[limit]:.2f} of its limit of "
        f"{median[limit]:.0f} and {median[name] / median['sb3']:.2f} times sb3"
        for name, limit in (("robotrl_fp32", "matrix"), ("robotrl_bf16", "matrix_bf16"))
    ]
    return "; ".join(shares) + "."


def measure(
    file: lib.ResultFile, name: str, repeat: int, arm: str, threads: int, updates: int, python: Path | None = None
) -> None:
    """Time one arm in a process of its own, unless that is there."""
    if file.has(name, repeat):
        return
    words = ["--arm", arm, "--updates", str(updates), "--threads", str(threads)]
    record = command.worker("benchmarks.offpolicy.sac_speed_worker", *words, threads=threads, python=python)
    rate = record["updates"] / record["wall_s"]
    file.record(name, repeat, rate, unit="updates/s", wall_s=record["wall_s"])
    command.say(f"{name} repeat {repeat}: {rate:,.1f} updates/s")


def main(argv: Sequence[str] | None = None) -> int:
    claim = "offpolicy/sac_vs_sb3_speed"
    opts = command.options(claim, __doc__ or "", argv)
    file = command.result(claim, opts, TARGET, NOTE)
    python = None if opts.smoke else peers.SBX.python()
    for repeat in range(1 if opts.smoke else REPEATS):
        for name, (arm, threads, updates) in ARMS.items():
            if not (opts.smoke and arm == "eager_compiled"):
                measure(file, name, repeat, arm, threads, 16 if opts.smoke else updates)
        if python is not None:
            measure(file, "sbx", repeat, "sbx", 1, 640, python)
    status = command.conclude(file)
    print(appendix({"arms": {name: {"values": arm.values} for name, arm in file.arms.items()}}))
    return status


if __name__ == "__main__":
    raise SystemExit(main())
