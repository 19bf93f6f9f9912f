"""Seconds that `import robotrl` takes beyond torch, each time in a fresh process.

python -m benchmarks.spine.import_time
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from benchmarks import command
from benchmarks.targets import value

REPEATS = 10
TARGET = value("robotrl", "<", 0.5, n=REPEATS)
NOTE = (
    "torch is imported first and not counted; the arm `torch` shows what it costs. Names are imported on first use: "
    "`all_names` is what touching all of them costs after that, the simulator included. Files are in the page cache."
)
CODE = """
import json, time
start = time.perf_counter()
import torch
between = time.perf_counter()
import robotrl
after = time.perf_counter()
for name in robotrl.__all__:
    getattr(robotrl, name)
seconds = {"torch": between - start, "robotrl": after - between, "all_names": time.perf_counter() - after}
print(json.dumps(seconds))
"""


def main(argv: Sequence[str] | None = None) -> int:
    opts = command.options("spine/import_time", __doc__ or "", argv)
    file = command.result("spine/import_time", opts, TARGET, NOTE)
    command.execute([sys.executable, "-c", CODE])  # fills the page cache and writes the byte code
    for repeat in range(2 if opts.smoke else REPEATS):
        if file.has("robotrl", repeat):
            continue
        seconds = json.loads(command.execute([sys.executable, "-c", CODE]).splitlines()[-1])
        for arm in ("torch", "all_names", "robotrl"):
            file.record(arm, repeat, seconds[arm], unit="s", wall_s=seconds[arm])
        command.say(f"repeat {repeat}: import robotrl {seconds['robotrl']:.3f} s after torch {seconds['torch']:.2f} s")
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
