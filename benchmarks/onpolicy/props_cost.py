"""Minutes that PROPS takes for a million env steps of Hopper with m = 256, and its gradient step beside autograd's.

python -m benchmarks.onpolicy.props_cost
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks import command
from benchmarks.onpolicy.tuned import settings
from benchmarks.spine import training
from benchmarks.targets import every, value

REPEATS = 3
STEPS = 1_000_000
TARGET = every([value("props", "<=", 12.0, statistic="max", n=REPEATS)])
NOTE = (
    "Hopper with the authors' values on one core: 8 envs, m = 256, so 3,906 behaviour updates of up to 16 epochs x 16 "
    "minibatches of 112 to 240 rows, and 488 PPO updates of 10 epochs x 32 minibatches; 64-64 nets. Training time in "
    "minutes without evaluations, logging included; other seeds in other repeats. ppo: the same without behaviour "
    "updates. Gradient steps a second of one behaviour update on 184 rows: step_fused as learner=props makes it, "
    "step_autograd the same loss by PyTorch's autograd with the same optimiser."
)


def appendix(data: dict[str, Any]) -> str:
    """How many gradient steps there were, for the report."""
    arms = data["arms"]
    if not {"behaviour_steps", "step_fused", "step_autograd"} <= arms.keys():
        return ""
    steps = sum(arms["behaviour_steps"]["values"]) / len(arms["behaviour_steps"]["values"])
    fused, eager = (sum(arms[a]["values"]) / len(arms[a]["values"]) for a in ("step_fused", "step_autograd"))
    return (
        f"A run makes {steps:,.0f} behaviour gradient steps (the early stop ends the rest). At the measured speeds "
        f"they take {steps / fused / 60:.1f} minutes; by autograd they would take {steps / eager / 60:.1f}."
    )


def main(argv: Sequence[str] | None = None) -> int:
    claim = "onpolicy/props_cost"
    opts = command.options(claim, __doc__ or "", argv)
    file, work = command.result(claim, opts, TARGET, NOTE), command.work(claim, opts)
    steps, repeats = (8192, 1) if opts.smoke else (STEPS, REPEATS)
    for repeat in range(repeats):
        for kind in ("fused", "autograd"):
            if not file.has(f"step_{kind}", repeat):
                done = command.worker("benchmarks.onpolicy.step_worker", kind, "200" if opts.smoke else "8000")
                file.record(f"step_{kind}", repeat, done["steps_per_s"], unit="steps/s", wall_s=done["wall_s"])
                command.say(f"{kind}: {done['steps_per_s']:,.0f} gradient steps/s")
        for arm, more in (("props", {}), ("ppo", {"learner.behaviour": "on_policy"})):
            if file.has(arm, repeat):
                continue
            run = work / arm / f"repeat{repeat}"
            common = {"seed": repeat, "total_env_steps": steps, "eval_every": 0, "eval_episodes": 1}
            curve = training.robotrl(run, settings("props", "Hopper") | common | more, threads=1)
            last = curve.points[-1]
            seconds = {"wall_s": last.train_s, "env_steps": last.env_steps, "commit": curve.commit}
            if arm == "props":
                made = sum(row.get("behaviour/steps", 0.0) for row in training.metrics(run))
                file.record("behaviour_steps", repeat, made, unit="gradient steps", replace=True)
            file.record(arm, repeat, last.train_s / 60, unit="min", **seconds)  # type: ignore[arg-type]
            command.say(f"{arm} repeat {repeat}: {last.train_s / 60:.1f} min")
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
