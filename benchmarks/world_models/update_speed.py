"""Seconds of a Dreamer update at the smallest published size, against sheeprl's at the same sizes.

python -m benchmarks.world_models.update_speed
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import command, lib, peers
from benchmarks.targets import every, ratio, value

REPEATS, UPDATES = 5, 10
THREADS = (2, 1)
PART = "part of robotrl/"
TARGET = every(
    [
        value("robotrl/2_threads", "<=", 1.0, statistic="median", n=REPEATS),
        ratio("sheeprl/2_threads", "robotrl/2_threads", ">=", 3.0, n=REPEATS),
    ]
)
NOTE = (
    "size1m on 24 observed numbers and 6 actions (walker), 16 sequences of 64 steps, imagination over 15 steps from "
    "every state, float32; the value is the median of 10 updates in a process of its own, bound to as many cores as it "
    "has threads. robotrl: batch from the replay, update, latent states written back; robotrl_bf16: the same with "
    "learner.matmul_precision=bf16. matrix, matrix_bf16: the matrix products of these updates alone, each at its shape "
    "on operands that stay the same, so in the cache where they are small. sheeprl: its `dreamer_v3_5` "
    "(version 0.8.4, algo=dreamer_v3_5_1M), which is the same algorithm at the same sizes, on a batch that is there "
    "already; missing where it could not be installed. Its torch.compile mode is not measured."
)
OURS = ("robotrl", "robotrl_bf16", "matrix", "matrix_bf16")


def appendix(data: dict[str, Any]) -> str:
    """The ratios, for the report."""
    median = {name: statistics.median(arm["values"]) for name, arm in data["arms"].items()}
    found = []
    for threads in THREADS:
        arms = [f"{arm}/{threads}_threads" for arm in ("robotrl", "robotrl_bf16", "sheeprl")]
        ours, ours_bf16, theirs = map(median.get, arms)
        if ours and ours_bf16 and theirs:
            longer = f"{theirs / ours:.2f} times as long as robotrl, {theirs / ours_bf16:.2f} times as robotrl_bf16"
            found.append(f"with {threads} threads sheeprl takes {longer}")
    whole = median.get("robotrl/2_threads")
    of = {name.split("/")[1]: s for name, s in median.items() if name.startswith(PART) and name.endswith("/2_threads")}
    if whole and of:
        shares = [f"{part} {seconds / whole:.2f}" for part, seconds in sorted(of.items(), key=lambda x: -x[1])]
        rest = f"backward pass, optimiser, replay {1.0 - sum(of.values()) / whole:.2f}"
        found.append(f"shares of an update with 2 threads: {', '.join([*shares, rest])}")
    for arm, limit in (("robotrl", "matrix"), ("robotrl_bf16", "matrix_bf16")):
        limits = [(t, median.get(f"{limit}/{t}_threads"), median.get(f"{arm}/{t}_threads")) for t in THREADS]
        shares = [f"{alone / whole:.2f} (threads: {t})" for t, alone, whole in limits if alone and whole]
        if shares:
            found.append(f"the matrix products of {arm} alone take {' and '.join(shares)} of its time")
    return ("; ".join(found) + ".") if found else ""


def measure(file: lib.ResultFile, arm: str, threads: int, repeat: int, updates: int, python: Path | None) -> None:
    """Time one arm in a process of its own, unless that is there."""
    name = f"{arm}/{threads}_threads"
    if file.has(name, repeat):
        return
    words = ["--arm", arm, "--updates", str(updates), "--threads", str(threads)]
    record = command.worker("benchmarks.world_models.update_worker", *words, threads=threads, python=python)
    file.record(name, repeat, record["seconds"], unit="s", wall_s=record["wall_s"])
    for part, seconds in record["parts"].items() if arm == "robotrl" else ():
        file.record(f"{PART}{part}/{threads}_threads", repeat, seconds, unit="s")
    command.say(f"{name} repeat {repeat}: {record['seconds']:.3f} s an update")


def main(argv: Sequence[str] | None = None) -> int:
    claim = "world_models/update_speed"
    opts = command.options(claim, __doc__ or "", argv)
    file = command.result(claim, opts, TARGET, NOTE)
    python = None if opts.smoke else peers.SHEEPRL.python()
    for repeat in range(1 if opts.smoke else REPEATS):
        for threads in THREADS:
            for arm in OURS:
                measure(file, arm, threads, repeat, 1 if opts.smoke else UPDATES, None)
            if python is not None:
                measure(file, "sheeprl", threads, repeat, UPDATES, python)
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
