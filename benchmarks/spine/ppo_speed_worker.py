"""Measures one arm of `ppo_vs_sb3_speed` in a process of its own and prints one line of JSON.

HalfCheetah-v5, 64 environments x 32 steps an iteration, 10 epochs of minibatches of 512, actor and critic of two
64-wide tanh layers each, CPU. The first `WARM_UP` iterations are not timed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

ENV = "HalfCheetah-v5"
NUM_ENVS, ROLLOUT_STEPS, EPOCHS, MINIBATCH = 64, 32, 10, 512
BATCH = NUM_ENVS * ROLLOUT_STEPS
OBS, ACT, WIDTH = 17, 6, 64
WARM_UP = 10

Record = dict[str, Any]


def sb3(iterations: int, env: Any) -> Record:
    """Stable-Baselines3's PPO on `env`: seconds from the start of an iteration to the start of another."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback

    starts: list[float] = []

    class Clock(BaseCallback):
        def _on_rollout_start(self) -> None:
            starts.append(time.perf_counter())

        def _on_step(self) -> bool:
            return True

    model = PPO(
        "MlpPolicy", env, n_steps=ROLLOUT_STEPS, batch_size=MINIBATCH, n_epochs=EPOCHS, seed=0, device="cpu",
        policy_kwargs={"net_arch": {"pi": [WIDTH, WIDTH], "vf": [WIDTH, WIDTH]}},
    )  # fmt: skip
    model.learn(BATCH * (WARM_UP + iterations), callback=Clock())
    starts.append(time.perf_counter())
    return {"env_steps": iterations * BATCH, "wall_s": starts[-1] - starts[WARM_UP]}


def sb3_dummy(iterations: int, work: Path) -> Record:
    """On its own DummyVecEnv."""
    import gymnasium
    from stable_baselines3.common.vec_env import DummyVecEnv

    return sb3(iterations, DummyVecEnv([lambda: gymnasium.make(ENV, disable_env_checker=True)] * NUM_ENVS))


def sb3_native(iterations: int, work: Path) -> Record:
    """On the native environments, through the adapter."""
    import robotrl
    from robotrl.envs.sb3 import as_sb3

    return sb3(iterations, as_sb3(robotrl.make_vec(ENV, num_envs=NUM_ENVS, seed=0, copy=False)))


def robotrl_ppo(iterations: int, work: Path) -> Record:
    """RobotRL's PPO as a user runs it, logging and checkpoints included; time of evaluations does not count."""
    import robotrl
    from benchmarks.spine import training

    settings = {
        "preset": "none", "num_envs": NUM_ENVS, "schedule.rollout_steps": ROLLOUT_STEPS, "policy.hidden": [WIDTH] * 2,
        "learner.num_epochs": EPOCHS, "learner.num_minibatches": BATCH // MINIBATCH,
        "total_env_steps": BATCH * (WARM_UP + iterations), "eval_every": 0, "eval_episodes": 1, "video": False,
    }  # fmt: skip
    robotrl.train(learner="ppo", env=ENV, seed=0, run_dir=str(work), **settings)
    clock = [row["time/elapsed"] - row["time/evaluation"] for row in training.metrics(work)]
    return {"env_steps": iterations * BATCH, "wall_s": clock[-1] - clock[WARM_UP - 1]}


def simulation(iterations: int, work: Path) -> Record:
    """The native environments alone, with random actions."""
    import numpy as np

    import robotrl

    env = robotrl.make_vec(ENV, num_envs=NUM_ENVS, seed=0)
    env.reset()
    actions = np.random.default_rng(0).uniform(-1, 1, (ROLLOUT_STEPS, NUM_ENVS, ACT)).astype(np.float32)
    start = 0.0
    for iteration in range(WARM_UP + iterations):
        if iteration == WARM_UP:
            start = time.perf_counter()
        for action in actions:
            env.step(action)
    return {"env_steps": iterations * BATCH, "wall_s": time.perf_counter() - start}


def matrix(iterations: int, work: Path) -> Record:
    """The matrix products of an iteration alone, in float32, each with `torch.mm` at its own shape.

    Acting: the actor on 64 rows, 32 times, and the critic once on all rows. Update: forward, gradients of all weights,
    and gradients of all inputs but the observations, for both networks, 40 times 512 rows.
    """
    import torch

    actor, critic = [(OBS, WIDTH), (WIDTH, WIDTH), (WIDTH, ACT)], [(OBS, WIDTH), (WIDTH, WIDTH), (WIDTH, 1)]
    passes = [(actor, NUM_ENVS, ROLLOUT_STEPS, False), (critic, BATCH + NUM_ENVS, 1, False)]
    passes += [(net, MINIBATCH, EPOCHS * BATCH // MINIBATCH, True) for net in (actor, critic)]
    products = []
    for layers, rows, times, backward in passes:
        pairs = []
        for i, (fan_in, fan_out) in enumerate(layers):
            x, w, g = torch.randn(rows, fan_in), torch.randn(fan_in, fan_out), torch.randn(rows, fan_out)
            pairs.append((x, w, torch.empty(rows, fan_out)))
            if backward:
                pairs.append((x.t(), g, torch.empty(fan_in, fan_out)))
                if i > 0:
                    pairs.append((g, w.t(), torch.empty(rows, fan_in)))
        products.append((pairs, times))
    start = 0.0
    for iteration in range(WARM_UP + iterations):
        if iteration == WARM_UP:
            start = time.perf_counter()
        for pairs, times in products:
            for _ in range(times):
                for a, b, out in pairs:
                    torch.mm(a, b, out=out)
    return {"env_steps": iterations * BATCH, "wall_s": time.perf_counter() - start}


ARMS = {
    "robotrl": robotrl_ppo, "sb3_dummy": sb3_dummy, "sb3_native": sb3_native, "simulation": simulation,
    "matrix": matrix,
}  # fmt: skip


def main() -> None:
    """The command of the sub-process."""
    import torch

    parser = argparse.ArgumentParser()
    parser.add_argument("--arm", choices=sorted(ARMS), required=True)
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--torch-threads", type=int, help="default: what the arm chooses itself")
    parser.add_argument("--work", type=Path, required=True, help="an empty or missing folder")
    options = parser.parse_args()
    if options.torch_threads:
        torch.set_num_threads(options.torch_threads)
    print(json.dumps(ARMS[options.arm](options.iterations, options.work)))


if __name__ == "__main__":
    main()
