"""What a training run can be told: the keys of the command line, of the presets and of `robotrl.train`.

Every part has its own dataclass beside the code it configures; here they are put together. `slots=True` makes a stray
attribute impossible. Values are checked where the dataclass is made, so a wrong one never reaches a learner.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from robotrl.envs.config import EnvConfig
from robotrl.policies.config import PolicyConfig
from robotrl.replay.config import ReplayConfig
from robotrl.types import RobotRLError

_DEVICE = re.compile(r"^(cpu|mps|cuda(:\d+)?)$")


@dataclass(slots=True)
class ScheduleConfig:
    """When to collect and when to update."""

    rollout_steps: int = 32
    """Steps of every env between two rounds of updates."""
    updates: float = 1.0
    """Updates a round. Below one, a round updates only now and then: 0.25 is every fourth."""
    warmup_env_steps: int = 0
    """Env steps, over all envs, before the first update."""

    def __post_init__(self) -> None:
        require_at_least("schedule", self, rollout_steps=1, updates=0, warmup_env_steps=0)


@dataclass(slots=True)
class TrainConfig:
    """One training run, complete: from it alone the run can be built again."""

    env: EnvConfig = field(default_factory=EnvConfig)
    learner: Any = None
    """The learner's own configuration: an instance of its `config_class`."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    learner_name: str = "ppo"
    """Registered name of the learner, or `package.module:Class`; `learner=` on the command line."""
    preset: str = "auto"
    """Values to start from. `auto`: those tuned for the env, else `shared`. `shared`: one set for all envs; `demo`: two
    minutes on two cores; `none`: the defaults in the code; or the path of a YAML file of your own."""
    num_envs: int = 64
    """Environments side by side."""
    seed: int = 0
    total_env_steps: int = 1_000_000
    """Agent decisions over all envs after which the run ends."""
    name: str | None = None
    """Folder under `runs/`; None: learner and env."""
    run_dir: str | None = None
    """Where to write; None: `runs/<name>/<time>`."""
    resume: str | None = None
    """A run directory to continue exactly where its last checkpoint stands."""
    init_from: str | None = None
    """A policy directory whose weights and normaliser to start from."""
    eval_every: int = 100_000
    """Env steps between evaluations; 0: only at the end."""
    eval_episodes: int = 10
    checkpoint_every: int = 200_000
    """Env steps between checkpoints; 0: only at the end."""
    checkpoint_keep: int = 3
    """How many of the newest checkpoints stay on disk."""
    device: str = "cpu"
    """`cpu`, `cuda`, `cuda:1`, ... for networks; simulation stays on the CPU."""
    num_threads: int | None = None
    """Threads for simulation and for PyTorch; None: all cores."""
    video: bool = True
    """Record the final policy."""
    wandb: bool = False
    """Also log to Weights & Biases; a failure there never stops a run."""

    def __post_init__(self) -> None:
        require_at_least("", self, num_envs=1, seed=0, total_env_steps=1, eval_every=0, eval_episodes=1)
        require_at_least("", self, checkpoint_every=0, checkpoint_keep=1)
        if self.num_threads is not None:
            require_at_least("", self, num_threads=1)
        if not _DEVICE.match(self.device):
            raise RobotRLError(f"device is '{self.device}'; it must be cpu, cuda, or one GPU as in cuda:0.")
        self.env.check()


def require_at_least(prefix: str, config: object, **least: float) -> None:
    """Raise RobotRLError for the first field of `config` that is below its least value."""
    for name, bound in least.items():
        value = getattr(config, name)
        if not value >= bound:  # also refuses NaN
            key = f"{prefix}.{name}" if prefix else name
            raise RobotRLError(f"{key} is {value}; it must be at least {bound}.")
