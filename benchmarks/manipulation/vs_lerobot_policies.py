"""LeRobot's ACT and Diffusion beside our VLA: the same demonstrations, the same training time, the same evaluation.

python -m benchmarks.manipulation.vs_lerobot_policies --jobs 2 [--mute]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import command, lib
from benchmarks.manipulation import cloning, demos, vla_flow_bc
from benchmarks.targets import every, value
from robotrl.analysis.runs import load_run
from robotrl.functional.statistics import wilson_interval
from robotrl.policies.io import load_policy

SEED, PROBE, EACH = 0, 150, 50
"""Updates of a probe, and of each line of its metrics."""
LEAST = 0.95
"""Of the time that an arm may take, what it is to have taken."""
MUTE: dict[str, dict[str, Any]] = {"mute_act": {"preset": "act"}, "mute_diffusion": {"preset": "diffusion"}}
"""As in LeRobot, without the instruction and on pictures as they are (extended: `--mute`)."""
OURS = {"learner.image_jitter": 0.15, "learner.image_erase": 3, "learner.matmul_precision": "bf16"}
"""What our preset does to pictures and how it multiplies: it is not the policies that this would compare."""
ARMS = {
    arm.removeprefix("mute_"): {**settings, **OURS, "policy.lerobot.tell_task": True} for arm, settings in MUTE.items()
}
"""With it, as a bag of words, and with what ours has beside the policy: so they learn from the same data."""
SMALL: dict[str, dict[str, Any]] = {
    "act": {"policy.lerobot.settings.dim_model": 16, "policy.lerobot.settings.n_heads": 2},
    "diffusion": {"policy.lerobot.settings.down_dims": "[16,32]"},
}
TARGET = every(
    [value(f"ours_minus/{arm}", ">", 0.0, statistic="mean", n=cloning.EPISODES * len(demos.TASKS)) for arm in ARMS]
)
NOTE = cloning.NOTE + (
    "ours is seed 0 of vla_flow_bc, trained on two threads. The others are LeRobot 0.6.1's policies, trained by the "
    "same learner on one thread each, the other core busy as well, for twice as many minutes: the same time of cores. "
    f"A probe of {PROBE} updates says how many that is; a run that took less than {LEAST:.0%} of its time, because the "
    "probe was slower, is done again. One value an episode, 1 where it succeeded; ours_minus are "
    "paired differences on the same starts. One training seed. ACT and Diffusion read no words in LeRobot and could "
    "not know which of three colours is meant: they get the instruction as a bag of words through LeRobot's feature "
    "observation.environment_state. Their pictures are jittered and erased as ours are and they multiply in bf16 as it "
    "does. The arms mute_ (extended, --mute) have none of this. Networks start from "
    "random weights, without those from ImageNet that LeRobot downloads; sizes and learning rates are LeRobot's but "
    "for chunks of 20 (ACT) and 16 (Diffusion), a narrower Diffusion network with group norm and ten DDIM steps, and a "
    "learning rate of 1e-4 for ACT."
)


def ours(work: Path, data: Path, *, smoke: bool) -> cloning.Trained:
    """The run of `vla_flow_bc`, trained now if it is not there."""
    folder = work / "ours" if smoke else lib.WORK / "manipulation" / "vla_flow_bc" / f"seed{SEED}"
    settings = {"preset": "vla", "replay.demos": data, "seed": SEED, "env.options.split": "train"}
    return cloning.train(folder / "run", settings | cloning.sizes(smoke=smoke, updates=vla_flow_bc.UPDATES))


def theirs(work: Path, arm: str, data: Path, minutes: float, *, smoke: bool) -> cloning.Trained:
    """Train an arm on one thread for so many minutes."""
    each = 2 if smoke else EACH
    settings = {
        **(ARMS | MUTE)[arm], "replay.demos": data, "seed": SEED, "env.options.split": "train",
        "env.groups": "[state,instruction,image/front,image/wrist]", "schedule.rollout_steps": each,
        "schedule.updates": each, "checkpoint_every": 1000,
        **({**SMALL[arm.removeprefix("mute_")], "learner.batch_size": 2, "env.time_limit": 20} if smoke else {}),
    }  # fmt: skip
    told = cloning.train(work / arm / "probe", settings | {"total_env_steps": 4 if smoke else PROBE}, threads=1)
    while True:
        pace = float(load_run(told.run).metrics["time/update"].median()) / each
        updates = 4 if smoke else max(1, round(minutes * 60 / pace / each)) * each
        command.say(f"{arm}: {1e3 * pace:.0f} ms an update, so {updates:,} updates")
        told = cloning.train(work / arm / f"{updates}_updates", settings | {"total_env_steps": updates}, threads=1)
        if smoke or told.minutes >= LEAST * minutes:
            return told
        command.say(f"{arm}: they took {told.minutes:.0f} of {minutes:.0f} minutes, so again with more")


def measure(file: lib.ResultFile, arm: str, trained: cloning.Trained, *, episodes: int) -> None:
    """Play every task and record every episode."""
    result = cloning.play(trained, episodes=episodes)
    good = result.successes or []
    took: dict[str, Any] = {"wall_s": 60 * trained.minutes, "env_steps": trained.updates}
    for i, success in enumerate(good):  # the training stands at the first: the table adds them up
        file.record(arm, i, float(success), unit="success", **(took if i == 0 else {}))
    for task in demos.TASKS:
        its = [success for name, success in zip(result.labels["task"], good, strict=True) if name == task]
        for i, success in enumerate(its):
            file.record(f"{arm}/{task}", i, float(success), unit="success")
    parameters = sum(p.numel() for p in load_policy(trained.run).parameters())
    file.record(f"parameters/{arm}", 0, parameters, unit="parameters")
    command.say(f"{arm}: {sum(good)} of {len(good)} after {trained.minutes:.1f} minutes")


def appendix(data: Mapping[str, Any]) -> str:
    """Success of each arm and task with Wilson intervals, parameters and updates."""
    arms = data["arms"]
    lines = [
        f"| arm | parameters | updates | minutes | all tasks | {' | '.join(demos.TASKS)} |",
        "| --- | --- | --- | --- | --- |" + " --- |" * len(demos.TASKS),
    ]
    for arm in ("ours", *ARMS, *MUTE):
        if arm in arms:
            cells = [_rate(arms[name]["values"]) for name in (arm, *(f"{arm}/{task}" for task in demos.TASKS))]
            parameters, took = arms[f"parameters/{arm}"]["values"][0] / 1e6, arms[arm]["wall_s"][0] / 60
            updates = f"{arms[arm]['env_steps'][0]:,}"
            lines.append(f"| {arm} | {parameters:.1f} M | {updates} | {took:.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _rate(values: Sequence[float]) -> str:
    low, high = wilson_interval(int(sum(values)), len(values))
    return f"{sum(values) / len(values):.2f} [{low:.2f}, {high:.2f}]"


def main(argv: Sequence[str] | None = None) -> int:
    claim = "manipulation/vs_lerobot_policies"
    words = list(sys.argv[1:] if argv is None else argv)
    arms = [*ARMS, *(MUTE if "--mute" in words else ())]
    opts = command.options(claim, __doc__ or "", [word for word in words if word != "--mute"], jobs=True)
    file, work = command.result(claim, opts, TARGET, NOTE), command.work(claim, opts)
    data, episodes = demos.recorded(smoke=opts.smoke), 2 if opts.smoke else cloning.EPISODES
    vla = ours(work, data, smoke=opts.smoke)
    runs = {arm: partial(theirs, work, arm, data, 2.0 * vla.minutes, smoke=opts.smoke) for arm in arms}
    command.side_by_side([run for arm, run in runs.items() if not file.has(f"parameters/{arm}", 0)], opts.jobs)
    for arm in ("ours", *arms):
        if not file.has(f"parameters/{arm}", 0):
            file.forget(arm)
            measure(file, arm, vla if arm == "ours" else runs[arm](), episodes=episodes)
    for arm in arms:
        for i, (mine, its) in enumerate(zip(file.arms["ours"].values, file.arms[arm].values, strict=True)):
            file.record(f"ours_minus/{arm}", i, mine - its, unit="success", replace=True)
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
