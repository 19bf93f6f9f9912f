"""RobotRL: a robot reinforcement-learning toolkit, from the first simulation to the fleet.

    import robotrl
    env = robotrl.make_vec("HalfCheetah-v5", num_envs=64, seed=0)
    run = robotrl.train(learner="ppo", env="HalfCheetah-v5", seed=0, run_dir="runs/x")
    policy = robotrl.load_policy("runs/x")
    print(robotrl.evaluate(policy, env, episodes=100, seed=1))

These names are stable. Each is imported on first use, so that `import robotrl` stays cheap and needs no simulator.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robotrl.analysis.runs import load_run as load_run
    from robotrl.api import load_policy as load_policy
    from robotrl.api import train as train
    from robotrl.envs import make_vec as make_vec
    from robotrl.runners.evaluate import evaluate as evaluate

__version__ = "0.1.0"

_HOMES = {
    "make_vec": "robotrl.envs",
    "train": "robotrl.api",
    "load_policy": "robotrl.api",
    "evaluate": "robotrl.runners.evaluate",
    "load_run": "robotrl.analysis.runs",
}

__all__ = ["__version__", "evaluate", "load_policy", "load_run", "make_vec", "train"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'robotrl' has no attribute '{name}'; it has {', '.join(__all__)} and submodules")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
