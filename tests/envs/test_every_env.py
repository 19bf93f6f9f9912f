"""Every registered env, present and future, keeps what learners, collectors and checkpoints rely on."""

import importlib.util

import numpy as np
import pytest

from robotrl.envs import make_vec
from robotrl.envs.checker import check_env
from robotrl.envs.config import EnvConfig, build_env
from robotrl.envs.registry import environments
from robotrl.types import EnvSpec
from tests.lock_features import options as env_options

# Families, registered as `gym/<id>`, are stood for by examples; a new family adds its own.
EXAMPLES = {
    "gym/<id>": ["gym/CartPole-v1", "gym/Pendulum-v1", "gym/MountainCarContinuous-v0"],
    "dmc/<domain>-<task>": ["dmc/cartpole-swingup", "dmc/walker-walk", "dmc/finger-turn_hard", "dmc/fish-swim"],
}
NEEDS = {"dmc/": "dm_control"}

CLOCKLESS = ("lock/", "GridWorld", "TwoStep")
"""Their steps take no time."""
ALIKE = {"GridWorld": "a table: nothing in it is random", "TwoStep": "a table: nothing in it is random"}
"""Envs whose episodes all start alike, with the reason."""

SHORT = 40  # steps, so that the time limit is reached and every row ends several times


def every_env():
    names = []
    for name in environments.names():
        names += EXAMPLES[name] if "<" in name else [name]
    return names


@pytest.fixture(params=every_env())
def env_id(request):
    for prefix, package in NEEDS.items():
        if request.param.startswith(prefix) and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    return request.param


def test_the_checker_finds_no_problem(env_id):
    check_env(env_id, random_starts=env_id not in ALIKE, max_episode_steps=SHORT, **env_options(env_id))


def test_the_time_limit_truncates_on_time_and_does_not_terminate(env_id):
    env = build_env(EnvConfig(id=env_id, time_limit=5, options=env_options(env_id)), num_envs=2)
    env.reset(seed=0)
    lengths = np.zeros(2, int)
    rng = np.random.default_rng(0)
    space = env.action_space
    for _ in range(20):
        low, high = (space.low, space.high) if hasattr(space, "low") else (0, 1)
        actions = (0.1 * rng.uniform(low, high, space.shape)).astype(space.dtype)
        _, _, terminated, truncated, _ = env.step(actions)
        lengths += 1
        assert (truncated == (lengths == 5)).all()
        assert (lengths[~terminated] <= 5).all()
        lengths[terminated | truncated] = 0
    env.close()


def test_the_spec_survives_being_saved(env_id):
    env = make_vec(env_id, **env_options(env_id))
    spec = env.env_spec
    env.close()
    assert EnvSpec.from_json(spec.to_json()) == spec
    assert spec.id == env_id
    assert spec.control_hz > 0 or env_id.startswith(CLOCKLESS)
    assert spec.time_limit is None or spec.time_limit > 0


def test_every_family_of_envs_has_examples():
    assert set(EXAMPLES) == {name for name in environments.names() if "<" in name}
