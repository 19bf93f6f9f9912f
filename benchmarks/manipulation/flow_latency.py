"""How long a chunk of the flow head takes at batch 1 on one thread, LeRobot's ACT beside it.

python -m benchmarks.manipulation.flow_latency
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import command
from benchmarks.targets import every, value

ROUNDS, REPEATS = 5, 40
TARGET = every(
    [
        value("flow", "<=", 15.0, n=ROUNDS),
        value("act", ">", 0.0, n=ROUNDS),
        value("flow_parameters", ">", 0.0, n=1),
        value("act_parameters", ">", 0.0, n=1),
    ]
)
NOTE = (
    "Milliseconds of one inference for one observation of two cameras of 64x64, one thread; the value of a round is "
    "the median of 40, each round in a process of its own. flow: policy=vla, size tiny, eight words, a chunk of 12 "
    "by ten Euler steps. act: LeRobot 0.6.1's ACT with its ResNet-18 and its default sizes, a chunk of 12; it reads no "
    "words."
)


def main(argv: Sequence[str] | None = None) -> int:
    claim = "manipulation/flow_latency"
    opts = command.options(claim, __doc__ or "", argv)
    file = command.result(claim, opts, TARGET, NOTE)
    repeats = 2 if opts.smoke else REPEATS
    for number in range(1 if opts.smoke else ROUNDS):
        for arm, kind in (("flow", "vla"), ("act", "act")):
            if file.has(arm, number):
                continue
            found = command.worker("benchmarks.manipulation.latency_worker", kind, "12", str(repeats))
            times = sorted(found["chunk"])
            file.record(arm, number, times[len(times) // 2], unit="ms")
            if number == 0:
                file.record(f"{arm}_parameters", 0, found["parameters"], unit="parameters")
                command.say(f"{arm}: {found['parameters']:,} parameters, {times[len(times) // 2]:.1f} ms")
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
