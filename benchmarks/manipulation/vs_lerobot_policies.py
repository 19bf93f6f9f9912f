"""LeRobot's ACT and Diffusion beside our VLA: the same demonstrations, the same training time, the same evaluation.

python -m benchmarks.manipulation.vs_lerobot_policies
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import command, lib
from benchmarks.manipulation import demos
from benchmarks.targets import every, value
from robotrl.functional.statistics import wilson_interval
from robotrl.policies.io import load_policy
from robotrl.runners.saved import evaluate_saved, trained_env

MINUTES, PROBE, EPISODES, EVAL_SEED = 40.0, 150, 50, 1000
ARMS: dict[str, list[str]] = {
    "ours": ["preset=vla"],
    "act": ["preset=act"],
    "told_act": ["preset=act", "policy.lerobot.tell_task=true"],
    "diffusion": ["preset=diffusion"],
    "told_diffusion": ["preset=diffusion", "policy.lerobot.tell_task=true"],
}
"""Arm to the words of its training; those of `told_` get the instruction as a bag of words."""
READS = "env.groups=[state,instruction,image/front,image/wrist]"
SMALL = {
    "ours": ["policy.vla.size=micro", "learner.batch_size=4"],
    "act": ["policy.lerobot.settings.dim_model=16", "policy.lerobot.settings.n_heads=2", "learner.batch_size=2"],
    "diffusion": ["policy.lerobot.settings.down_dims=[16,32]", "learner.batch_size=2"],
}
TARGET = every(
    [
        value(f"ours_minus/{arm}", ">", 0.0, statistic="mean", n=EPISODES * len(demos.TASKS))
        for arm in ARMS
        if arm != "ours"
    ]
)
NOTE = (
    f"Four tasks (pick, place, open_drawer, press) x {demos.EPISODES} demonstrations of the scripted experts, two "
    f"64x64 cameras. Every arm trains for {MINUTES:g} minutes on two threads: a probe of {PROBE} updates says how many "
    f"that is. One value an episode, 1 where it succeeded; {EPISODES} episodes of each task from seed {EVAL_SEED}, "
    "colours as in training, 16 envs side by side; `ours_minus` are paired differences. One training seed. ACT and "
    "Diffusion read no words in LeRobot, so they cannot know which of three colours is meant; the arms `told_` get the "
    "instruction as a bag of words through LeRobot's feature observation.environment_state. Their networks start from "
    "random weights, without the ImageNet weights that LeRobot downloads; sizes and learning rates are LeRobot's but "
    "for chunks of 20 (ACT) and 16 (Diffusion), a narrower Diffusion network with group norm, ten DDIM steps, and a "
    "learning rate of 1e-4 for ACT."
)


def train(run: Path, arm: str, data: Path, updates: int, *, smoke: bool) -> list[float]:
    """Train one arm; the seconds of each 50 updates, which are without start-up and saving."""
    command.empty(run)
    words = [
        *command.ROBOTRL, "train", "learner=bc", *ARMS[arm], READS, "env.options.split=train", f"replay.demos={data}",
        f"run_dir={run}", "seed=0", f"total_env_steps={updates}", "eval_every=0", "eval_episodes=1",
        f"schedule.rollout_steps={min(50, updates)}", f"schedule.updates={min(50, updates)}", "video=false",
        "checkpoint_every=1_000_000", "num_threads=2", *(SMALL[arm.removeprefix("told_")] if smoke else []),
    ]  # fmt: skip
    command.execute(words, threads=2, log=run.with_suffix(".log"))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row["time/update"] for row in rows if "time/update" in row]


def measure(file: lib.ResultFile, work: Path, arm: str, data: Path, *, smoke: bool) -> None:
    """Probe, train, play every task, record every episode."""
    probe = 2 if smoke else PROBE
    pace = train(work / f"{arm}-probe", arm, data, probe, smoke=smoke)[-1] / min(50, probe)
    updates = 4 if smoke else max(100, round(MINUTES * 60 / pace / 100) * 100)
    command.say(f"{arm}: {1e3 * pace:.0f} ms an update, so {updates:,} updates")
    run = work / arm
    seconds = sum(train(run, arm, data, updates, smoke=smoke))
    start = time.perf_counter()
    env = trained_env(run)
    if smoke:
        env = replace(env, time_limit=10)
    result = evaluate_saved(
        run, env, tasks=demos.TASKS, episodes=2 if smoke else EPISODES, seed=EVAL_SEED, num_envs=16, num_threads=2
    )
    played = time.perf_counter() - start
    good = result.successes or []
    for i, success in enumerate(good):
        file.record(arm, i, float(success), unit="success", wall_s=seconds, env_steps=updates)
    for k, task in enumerate(demos.TASKS):
        share = good[k * (len(good) // len(demos.TASKS)) :][: len(good) // len(demos.TASKS)]
        for i, success in enumerate(share):
            file.record(f"{arm}/{task}", i, float(success), unit="success")
    parameters = sum(p.numel() for p in load_policy(run).parameters())
    file.record(f"parameters/{arm}", 0, parameters, unit="parameters")
    command.say(f"{arm}: {sum(good)} of {len(good)} after {seconds / 60:.1f} minutes; played in {played / 60:.1f}")


def appendix(data: Mapping[str, Any]) -> str:
    """Success of each arm and task with Wilson intervals, parameters and updates."""
    arms = data["arms"]
    lines = [
        f"| arm | parameters | updates | all tasks | {' | '.join(demos.TASKS)} |",
        "| --- | --- | --- | --- |" + " --- |" * len(demos.TASKS),
    ]
    for arm in ARMS:
        if arm in arms:
            cells = [_rate(arms[name]["values"]) for name in (arm, *(f"{arm}/{task}" for task in demos.TASKS))]
            parameters = arms[f"parameters/{arm}"]["values"][0] / 1e6
            lines.append(f"| {arm} | {parameters:.1f} M | {arms[arm]['env_steps'][0]:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _rate(values: Sequence[float]) -> str:
    low, high = wilson_interval(int(sum(values)), len(values))
    return f"{sum(values) / len(values):.2f} [{low:.2f}, {high:.2f}]"


def main(argv: Sequence[str] | None = None) -> int:
    claim = "manipulation/vs_lerobot_policies"
    opts = command.options(claim, __doc__ or "", argv)
    file, work = command.result(claim, opts, TARGET, NOTE), command.work(claim, opts)
    data = demos.recorded(smoke=opts.smoke)
    for arm in ARMS:
        if not file.has(f"parameters/{arm}", 0):
            file.forget(arm)
            measure(file, work, arm, data, smoke=opts.smoke)
    for arm in ARMS:
        if arm != "ours":
            pairs = zip(file.arms["ours"].values, file.arms[arm].values, strict=True)
            for i, (ours, theirs) in enumerate(pairs):
                file.record(f"ours_minus/{arm}", i, ours - theirs, unit="success", replace=True)
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
