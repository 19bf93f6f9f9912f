"""Peak resident memory of a whole training run of 64 HalfCheetah environments, evaluation and checkpoints included.

python -m benchmarks.spine.memory
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import command, provenance
from benchmarks.targets import value

SEEDS = (0, 1, 2)
TARGET = value("robotrl", "<=", 1.5, statistic="max", n=len(SEEDS))
NOTE = (
    "GB = 10^9 bytes, as the kernel counts the largest resident set of the process (shared libraries included). The "
    "arm `torch` is a process that only imports torch."
)


def peak_gb(arguments: Sequence[str], log: Path) -> float:
    """Run a command to its end; the largest resident set of its process, in 10^9 bytes.

    Raises:
        RuntimeError: the command failed.
    """
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            list(arguments), cwd=provenance.ROOT, env=command.environment(2), stdout=file, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)} ended with status {process.returncode}, see {log}")
    return usage.ru_maxrss * 1024 / 1e9


def main(argv: Sequence[str] | None = None) -> int:
    opts = command.options("spine/memory", __doc__ or "", argv)
    file, work = command.result("spine/memory", opts, TARGET, NOTE), command.work("spine/memory", opts)
    steps = 4096 if opts.smoke else 300_000
    for seed in SEEDS:
        if file.has("robotrl", seed):
            continue
        start = time.perf_counter()
        arguments = [
            *command.ROBOTRL, "train", "env=HalfCheetah-v5", "num_envs=64", f"seed={seed}",
            f"total_env_steps={steps}", "video=false", f"run_dir={command.empty(work / f'seed{seed}')}",
        ]  # fmt: skip
        peak = peak_gb(arguments, work / f"seed{seed}.log")
        wall_s = time.perf_counter() - start
        file.record("robotrl", seed, peak, unit="GB", wall_s=wall_s, env_steps=steps)
        alone = peak_gb([sys.executable, "-c", "import torch"], work / "torch.log")
        file.record("torch", seed, alone, unit="GB")
        command.say(f"seed {seed}: peak {peak:.2f} GB, torch alone {alone:.2f} GB")
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
