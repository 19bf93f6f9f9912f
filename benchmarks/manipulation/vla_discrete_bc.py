"""The same policy with bins in place of a flow, on the same data for the same number of updates.

python -m benchmarks.manipulation.vla_discrete_bc
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import command
from benchmarks.manipulation import cloning, demos, vla_flow_bc
from benchmarks.targets import every, value

TARGET = every(
    [
        value("discrete/success", ">=", 0.7, statistic="mean", n=1),
        value("discrete/minutes", "<=", 45.0, statistic="max", n=1),
    ]
)
NOTE = cloning.NOTE + (
    "Every number of every action is one of 64 bins, all decoded at once, the mean taken. As many updates as the "
    "flow's, on one thread, with dropout and ten times the flow's weight decay (preset vla_discrete); the flow was not "
    "tried with either."
)


def main(argv: Sequence[str] | None = None) -> int:
    claim = "manipulation/vla_discrete_bc"
    opts = command.options(claim, __doc__ or "", argv)
    file, work = command.result(claim, opts, TARGET, NOTE), command.work(claim, opts)
    data = demos.recorded(smoke=opts.smoke)
    if not file.has("discrete/success", 0):
        settings = {"preset": "vla_discrete", "replay.demos": data, "env.options.split": "train"}
        sizes = cloning.sizes(smoke=opts.smoke, updates=vla_flow_bc.UPDATES)
        trained = cloning.train(work / "seed0" / "run", settings | sizes, threads=1)
        cloning.record(file, "discrete", 0, trained, episodes=2 if opts.smoke else cloning.EPISODES)
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
