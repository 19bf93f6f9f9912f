"""`make demo` after set-up: its wall time, and the return of the policy it trains over 10 episodes.

python -m benchmarks.spine.demo
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from benchmarks import command
from benchmarks.targets import every, value

REPEATS = 3
TARGET = every(
    [
        value("seconds", "<=", 120.0, statistic="max", n=REPEATS),
        value("return", ">=", 3000.0, statistic="min", n=REPEATS),
    ]
)
NOTE = (
    "The whole command on both cores, after set-up: starting Python, training, evaluations, curve, video where an "
    "off-screen OpenGL is found, and the evaluation at its end, whose mean over 10 episodes is `return`. Repeats use "
    "the same seed: the return repeats, the time need not."
)
RETURN = re.compile(r"^return, mean\s+(-?[\d.]+)", re.MULTILINE)


def main(argv: Sequence[str] | None = None) -> int:
    opts = command.options("spine/demo", __doc__ or "", argv)
    file, work = command.result("spine/demo", opts, TARGET, NOTE), command.work("spine/demo", opts)
    command.say("make setup (not timed)")
    command.execute(["make", "setup"], threads=None)
    for repeat in range(1 if opts.smoke else REPEATS):
        if file.has("seconds", repeat) and file.has("return", repeat):
            continue
        directory = command.empty(work / f"repeat{repeat}")
        start = time.perf_counter()
        output = command.execute(["make", "demo", f"DEMO_DIR={directory}"], threads=None, log=work / f"{repeat}.log")
        seconds = time.perf_counter() - start
        found = RETURN.findall(output)
        if not found:
            raise RuntimeError(f"make demo printed no return; its output is in {work / f'{repeat}.log'}")
        file.record("seconds", repeat, seconds, unit="s", wall_s=seconds, replace=True)
        file.record("return", repeat, float(found[-1]), unit="return", wall_s=seconds, replace=True)
        command.say(f"repeat {repeat}: {seconds:.1f} s, return {found[-1]}")
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
