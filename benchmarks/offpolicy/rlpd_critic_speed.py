"""One step of RLPD's ten critics against a loop over ten critics, and against the matrix products alone.

python -m benchmarks.offpolicy.rlpd_critic_speed
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks import command
from benchmarks.offpolicy.sac_vs_sb3_speed import measure
from benchmarks.targets import every, ratio

REPEATS = 5
ARMS = {"loop": "rlpd_loop", "fp32": "rlpd_fp32", "bf16": "rlpd_bf16", "matrix": "rlpd_matrix",
        "matrix_bf16": "rlpd_matrix_bf16"}  # fmt: skip
TARGET = every([ratio("fp32", "loop", ">=", 1.0, n=REPEATS), ratio("bf16", "loop", ">=", 1.5, n=REPEATS)])
NOTE = (
    "Steps a second of ten critics of 2x256 units with layer normalisation on a batch of 256: target of two of them, "
    "gradient, Adam, targets; every arm is bound to one core. loop: PyTorch's own layers, one critic after the other, "
    "under autograd, fused Adam. fp32, bf16: stacked, as learner=sac makes it. matrix: the matrix products alone."
)


def appendix(data: dict[str, Any]) -> str:
    """Shares of the limit, for the report."""
    median = {name: statistics.median(arm["values"]) for name, arm in data["arms"].items()}
    if set(ARMS) - set(median):
        return ""
    return (
        f"A step takes {1e3 / median['loop']:.1f} ms as a loop, {1e3 / median['fp32']:.1f} ms stacked "
        f"({median['fp32'] / median['matrix']:.2f} of the limit) and {1e3 / median['bf16']:.1f} ms in bf16 "
        f"({median['bf16'] / median['matrix_bf16']:.2f} of its own)."
    )


def main(argv: Sequence[str] | None = None) -> int:
    claim = "offpolicy/rlpd_critic_speed"
    opts = command.options(claim, __doc__ or "", argv)
    file = command.result(claim, opts, TARGET, NOTE)
    for repeat in range(1 if opts.smoke else REPEATS):
        for name, arm in ARMS.items():
            measure(file, name, repeat, arm, 1, 16 if opts.smoke else 240)
    status = command.conclude(file)
    print(appendix({"arms": {name: {"values": arm.values} for name, arm in file.arms.items()}}))
    return status


if __name__ == "__main__":
    raise SystemExit(main())
