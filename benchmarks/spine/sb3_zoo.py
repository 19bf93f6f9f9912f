"""The baseline arm: Stable-Baselines3's PPO with the tuned settings of rl-baselines3-zoo, on the Gymnasium v5 tasks.

The settings are those of `hyperparams/ppo.yml` in DLR-RM/rl-baselines3-zoo at commit 22e3ff2 (2026-04-23), ids `-v4`:
one environment, observations and rewards normalised by `VecNormalize`, whose discount is the learner's where the zoo
sets one. Walker2d keeps Stable-Baselines3's own network there. Ant has no tuned settings: Stable-Baselines3's defaults
with normalisation, as the zoo runs it.

Every `--eval-every` env steps the deterministic policy plays `--episodes` episodes in an environment of its own, with
the normaliser's statistics frozen; episode i always starts from the same seed. The training clock stands still then.

    python -m benchmarks.spine.sb3_zoo --env HalfCheetah-v5 --seed 0 --steps 1000000 --out curve.jsonl

The output is one JSON object a line: the settings, then one line an evaluation, then `{"done": true, ...}`. A file that
ends with `done` is not computed again. With `--keep` a run that was interrupted goes on from its last evaluation:
weights, optimiser, normaliser and clocks are those of then, the running episode starts anew, `resumed` says where.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from benchmarks import provenance

_WIDE_RELU: dict[str, Any] = {
    "log_std_init": -2.0,
    "ortho_init": False,
    "activation_fn": "ReLU",
    "net_arch": {"pi": [256, 256], "vf": [256, 256]},
}

SETTINGS: dict[str, dict[str, Any]] = {
    "HalfCheetah": {
        "batch_size": 64, "n_steps": 512, "gamma": 0.98, "learning_rate": 2.0633e-05, "ent_coef": 0.000401762,
        "clip_range": 0.1, "n_epochs": 20, "gae_lambda": 0.92, "max_grad_norm": 0.8, "vf_coef": 0.58096,
        "policy_kwargs": _WIDE_RELU,
    },
    "Hopper": {
        "batch_size": 32, "n_steps": 512, "gamma": 0.999, "learning_rate": 9.80828e-05, "ent_coef": 0.00229519,
        "clip_range": 0.2, "n_epochs": 5, "gae_lambda": 0.99, "max_grad_norm": 0.7, "vf_coef": 0.835671,
        "policy_kwargs": _WIDE_RELU,
    },
    "Walker2d": {
        "batch_size": 32, "n_steps": 512, "gamma": 0.99, "learning_rate": 5.05041e-05, "ent_coef": 0.000585045,
        "clip_range": 0.1, "n_epochs": 20, "gae_lambda": 0.95, "max_grad_norm": 1.0, "vf_coef": 0.871923,
    },
    "Ant": {},
    "Humanoid": {
        "batch_size": 256, "n_steps": 512, "gamma": 0.95, "learning_rate": 3.56987e-05, "ent_coef": 0.00238306,
        "clip_range": 0.3, "n_epochs": 5, "gae_lambda": 0.9, "max_grad_norm": 2.0, "vf_coef": 0.431892,
        "policy_kwargs": _WIDE_RELU,
    },
}  # fmt: skip
"""Keyword arguments of `stable_baselines3.PPO` by task family."""

EVALUATION_SEED = 10_000
"""Episode i of every evaluation starts from `EVALUATION_SEED + i`."""


class _Clock:
    """Wall and processor seconds of training; stands still between `stop` and `start`."""

    def __init__(self, wall: float = 0.0, processor: float = 0.0) -> None:
        self.wall = wall
        self.processor = processor
        self.start()

    def start(self) -> None:
        self._from = (time.perf_counter(), time.process_time())

    def running(self) -> float:
        """Wall seconds of training so far, while it runs."""
        return self.wall + time.perf_counter() - self._from[0]

    def stop(self) -> None:
        self.wall += time.perf_counter() - self._from[0]
        self.processor += time.process_time() - self._from[1]


def _write(file: TextIO, record: dict[str, Any]) -> None:
    file.write(json.dumps(record) + "\n")
    file.flush()


def _evaluate(model: Any, normaliser: Any, env: Any, episodes: int) -> list[float]:
    """Returns of `episodes` deterministic episodes, in the task's own reward."""
    returns = []
    for episode in range(episodes):
        obs, _ = env.reset(seed=EVALUATION_SEED + episode)
        total, done = 0.0, False
        while not done:
            action, _ = model.predict(normaliser.normalize_obs(obs), deterministic=True)
            obs, reward, terminated, truncated, _ = env.step(action)
            total += float(reward)
            done = terminated or truncated
        returns.append(total)
    return returns


def build(env_id: str, seed: int, kept: Path | None = None) -> tuple[Any, Any]:
    """The model and its normalising vector environment, as the zoo builds them, or those of the folder `kept`."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    settings = dict(SETTINGS[env_id.split("-", maxsplit=1)[0]])
    discount = {"gamma": settings["gamma"]} if "gamma" in settings else {}
    if "policy_kwargs" in settings:
        kwargs = dict(settings["policy_kwargs"])
        settings["policy_kwargs"] = kwargs | {"activation_fn": getattr(torch.nn, kwargs["activation_fn"])}
    raw = make_vec_env(env_id, n_envs=1, seed=seed)
    if kept is None:
        env = VecNormalize(raw, **discount)
        return PPO("MlpPolicy", env, seed=seed, device="cpu", verbose=0, **settings), env
    env = VecNormalize.load(str(kept / "normaliser.pkl"), raw)
    model = PPO.load(kept / "model.zip", env=env, device="cpu")
    model.set_random_seed(seed + model.num_timesteps)  # loading has put the random numbers back to the first ones
    return model, env


def keep(folder: Path, model: Any, normaliser: Any, clock: _Clock) -> None:
    """Write what a run needs to go on into a folder of its own below `folder`; the newest whole one counts."""
    new = folder / f"{model.num_timesteps:09d}"
    new.mkdir(parents=True, exist_ok=True)
    model.save(new / "model.zip")
    normaliser.save(str(new / "normaliser.pkl"))
    times = {"env_steps": model.num_timesteps, "train_s": clock.wall, "train_cpu_s": clock.processor}
    (new / "whole.tmp").write_text(json.dumps(times), encoding="utf-8")
    os.replace(new / "whole.tmp", new / "whole.json")
    for old in folder.iterdir():
        if old != new:
            shutil.rmtree(old)


def kept(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole folder below `folder` and its clocks."""
    whole = sorted(folder.glob("*/whole.json"))
    return (whole[-1].parent, json.loads(whole[-1].read_text(encoding="utf-8"))) if whole else None


def train(options: argparse.Namespace, file: TextIO, start: tuple[Path, dict[str, Any]] | None) -> None:
    """Train and write the curve; the last record has `done`, `env_steps`, `reached` (the `--stop-at`) and times."""
    import gymnasium
    import torch
    from stable_baselines3.common.callbacks import BaseCallback

    torch.set_num_threads(options.torch_threads)
    model, normaliser = build(options.env, options.seed, None if start is None else start[0])
    eval_env = gymnasium.make(options.env)
    clock = _Clock() if start is None else _Clock(start[1]["train_s"], start[1]["train_cpu_s"])
    reached = to_keep = False

    def in_time() -> bool:
        return options.limit_s is None or clock.running() < options.limit_s

    class Curve(BaseCallback):
        def _on_rollout_start(self) -> None:
            nonlocal to_keep
            if to_keep:
                clock.stop()
                keep(folder_of(options.out), model, normaliser, clock)
                to_keep = False
                clock.start()

        def _on_step(self) -> bool:
            nonlocal reached, to_keep
            if self.num_timesteps % options.eval_every:
                return in_time()
            clock.stop()
            returns = _evaluate(model, normaliser, eval_env, options.episodes)
            mean = sum(returns) / len(returns)
            reached = reached or (options.stop_at is not None and mean >= options.stop_at)
            times = {"train_s": round(clock.wall, 3), "train_cpu_s": round(clock.processor, 3)}
            _write(file, {"env_steps": self.num_timesteps, "return": mean, "returns": returns, **times})
            print(
                f"sb3_zoo {options.env} seed {options.seed}: {self.num_timesteps} env steps, return {mean:.0f}",
                flush=True,
            )
            to_keep = options.keep
            clock.start()
            return not reached and in_time()

    model.learn(options.steps - model.num_timesteps, callback=Curve(), reset_num_timesteps=start is None)
    clock.stop()
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    _write(file, {
        "done": True, "env_steps": min(model.num_timesteps, options.steps), "reached": reached,
        "train_s": round(clock.wall, 3), "train_cpu_s": round(clock.processor, 3), "peak_mib": round(peak_mib, 1),
    })  # fmt: skip
    shutil.rmtree(folder_of(options.out), ignore_errors=True)


def folder_of(out: Path) -> Path:
    """Where a run that writes `out` keeps what it needs to go on."""
    return out.with_suffix(".kept")


def finished(path: Path) -> bool:
    """Whether `path` holds a complete curve."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return bool(lines) and bool(json.loads(lines[-1]).get("done"))
    except (OSError, ValueError):
        return False


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spine.sb3_zoo", description=__doc__.split("\n")[0])
    parser.add_argument("--env", required=True, help="HalfCheetah-v5, Hopper-v5, Walker2d-v5, Ant-v5 or Humanoid-v5")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--eval-every", type=int, default=50_000, help="env steps between evaluations")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--torch-threads", type=int, default=1)
    parser.add_argument("--stop-at", type=float, help="end at the first evaluation at or above this return")
    parser.add_argument("--keep", action="store_true", help="go on from the last evaluation if interrupted")
    parser.add_argument("--limit-s", type=float, help="end after this many seconds of training")
    options = parser.parse_args(argv)
    if options.env.split("-")[0] not in SETTINGS:
        parser.error(f"no settings for {options.env}; there are settings for {', '.join(SETTINGS)}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            parser.error(f"another process is writing {options.out}; wait for it, or give another --out")
        if finished(options.out):
            print(f"{options.out} is complete already")
            return 0
        start = kept(folder_of(options.out)) if options.keep else None
        if start is None:
            file.truncate(0)
            settings = SETTINGS[options.env.split("-")[0]]
            command = "python -m benchmarks.spine.sb3_zoo " + " ".join(argv if argv is not None else sys.argv[1:])
            _write(file, {
                "command": command, "env": options.env, "seed": options.seed, "steps": options.steps,
                "eval_every": options.eval_every, "episodes": options.episodes, "settings": settings,
                "torch_threads": options.torch_threads,
                "commit": provenance.commit(), "date": provenance.today(), "hardware": provenance.hardware(),
            })  # fmt: skip
        else:
            file.seek(0)
            records = [json.loads(line) for line in file.read().splitlines()]
            file.truncate(0)
            for record in records:
                if record.get("env_steps", 0) <= start[1]["env_steps"]:
                    _write(file, record)
            _write(file, {"resumed": start[1]["env_steps"]})
        train(options, file, start)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
