"""What the future costs where only actions are wanted: nothing; and what it costs to show it.

python -m benchmarks.manipulation.wam_latency
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import command
from benchmarks.targets import every, ratio, value

ROUNDS, REPEATS = 5, 40
CHUNK = 28
TARGET = every(
    [
        ratio("wam_actions", "vla", "<=", 1.1, n=ROUNDS),
        value("identical", ">=", 1.0, statistic="min", n=ROUNDS),
        ratio("wam_joint", "wam_actions", ">", 0.0, n=ROUNDS),
        ratio("tokens_joint", "tokens_actions", ">", 0.0, n=1),
    ]
)
NOTE = (
    "Milliseconds of one inference (ten Euler steps) for one observation of two cameras of 64x64 and eight words, size "
    "tiny, chunks of 28, one thread; the value of a round is the median of 40. vla and wam take turns, each round in a "
    "process of its own. wam_joint also denoises two pictures to come, 32 tokens: the joint sequence is then about 1.7 "
    "times as long as that of actions alone, as in the paper (169 and 289 tokens: a state, 120 of the reference "
    "picture, 48 actions, 120 of the future). identical: 1 where all 40 chunks, from noise of their own, are bit for "
    "bit the same with and without the future."
)


def main(argv: Sequence[str] | None = None) -> int:
    claim = "manipulation/wam_latency"
    opts = command.options(claim, __doc__ or "", argv)
    file = command.result(claim, opts, TARGET, NOTE)
    repeats = 2 if opts.smoke else REPEATS
    for number in range(1 if opts.smoke else ROUNDS):
        if file.has("identical", number):
            continue
        vla, wam = (
            command.worker("benchmarks.manipulation.latency_worker", kind, str(CHUNK), str(repeats))
            for kind in ("vla", "wam")
        )
        for arm, times in (("vla", vla["chunk"]), ("wam_actions", wam["chunk"]), ("wam_joint", wam["joint"])):
            file.record(arm, number, sorted(times)[len(times) // 2], unit="ms")
        if number == 0:
            file.record("tokens_actions", 0, wam["tokens"], unit="tokens")
            file.record("tokens_joint", 0, wam["tokens"] + wam["tokens_future"], unit="tokens")
        file.record("identical", number, min(wam["identical"]), unit="yes")
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
