"""`import robotrl` is cheap and pulls in no simulator; what is deployed on a robot needs none either."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "av", "dm_control", "envpool", "gymnasium", "hydra", "matplotlib", "mujoco", "omegaconf", "optuna", "pandas",
    "stable_baselines3", "tensorboard", "torch.utils.tensorboard", "transformers", "wandb",
}  # fmt: skip

MEASURE = """
import json, sys, time
import torch
before, start = set(sys.modules), time.perf_counter()
{statement}
seconds = time.perf_counter() - start
print(json.dumps([seconds, sorted(set(sys.modules) - before)]))
"""


def cost(statement: str) -> tuple[float, set[str]]:
    """Seconds beyond torch, and the modules that came in."""
    code = MEASURE.format(statement=statement)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    seconds, names = json.loads(done.stdout)
    return seconds, set(names)


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import robotrl, robotrl.types, robotrl.registry", set()),
        ("from robotrl import load_policy; import robotrl.policies.io", set()),
        ("import robotrl.learners.ppo", set()),
        ("import robotrl.runners.loop, robotrl.collect", {"gymnasium"}),  # the interface of an env, no simulator
    ],
)
def test_no_simulator_and_no_logger_is_imported_by(statement, allowed):
    _, names = cost(statement)
    assert sorted((HEAVY & names) - allowed) == []


def test_import_robotrl_takes_less_than_half_a_second_beyond_torch():
    assert cost("import robotrl, robotrl.types, robotrl.registry")[0] < 0.5
