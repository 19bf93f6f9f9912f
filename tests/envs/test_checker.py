"""The checker finds what is wrong, says it in a sentence, and finds nothing where nothing is wrong."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from robotrl.envs import make_vec
from robotrl.envs.checker import check_env, find_problems
from robotrl.envs.gymnasium_adapter import GymnasiumVecEnv
from robotrl.envs.wrappers import EnvWrapper
from robotrl.types import RobotRLError


class Walk(gymnasium.Env):
    """A random walk of at most 8 steps."""

    observation_space = spaces.Box(-100, 100, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.x.copy(), {}

    def step(self, action):
        self.x += action + self.np_random.uniform(-0.1, 0.1, 2).astype(np.float32)
        return self.x.copy(), float(self.x[0]), bool(self.x[0] > 2), False, {}


def walk(kind=Walk, *, num_envs=3, copy=True, limit=8):
    return GymnasiumVecEnv(kind, env_id="walk", num_envs=num_envs, copy=copy, max_episode_steps=limit)


class Broken(EnvWrapper):
    """Walks, and spoils what a test's `spoil(result)` spoils."""

    def __init__(self, spoil=lambda result: result, spec=None):
        super().__init__(walk())
        self.spoil = spoil
        if spec:
            self.env_spec = spec(self.env_spec)

    def step(self, actions):
        return self.spoil(self.env.step(actions))


def test_an_env_without_faults_passes():
    check_env(walk())
    check_env(make_vec("Hopper-v5", num_envs=2))
    check_env("gym/CartPole-v1", max_episode_steps=20)


def spoil_obs(value):
    def spoil(result):
        result[0]["state"][1, 0] = value
        return result

    return spoil


def without(*names):
    def spoil(result):
        for name in names:
            result[4].pop(name, None)
        return result

    return spoil


def final_is_reset(result):
    if "final_obs" in result[4]:
        result[4]["final_obs"] = {name: value.copy() for name, value in result[0].items()}
    return result


def terminates_at_limit(result):
    obs, reward, _, truncated, infos = result
    return obs, reward, truncated, np.zeros_like(truncated), infos


def float64(result):
    return {"state": result[0]["state"].astype(np.float64)}, *result[1:]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_obs(np.nan), "returns a value in 'state', row 1, that is not finite: learning would spread it"),
        (spoil_obs(1e6), "returns 'state' outside of the bounds of its space: widen the space or clip"),
        (float64, r"returns 'state' as float64 \(3, 2\), but its space says float32"),
        (lambda result: ({"other": result[0]["state"]}, *result[1:]), r"groups \['other'\], but its space has"),
        (lambda result: (result[0], result[1] * np.inf, *result[2:]), "reward that is not finite"),
        (lambda result: (result[0], 1.0, *result[2:]), "returns rewards as float: return a floating-point array"),
        (lambda r: (*r[:2], r[2].astype(int), *r[3:]), "returns terminated as ndarray: return a bool array"),
        (without("final_obs", "_final_obs"), "lack final_obs .* cannot bootstrap"),
        (final_is_reset, "is the next episode's first observation: store the last observation before the reset"),
        (terminates_at_limit, "terminates at its time limit of 8 steps: running out of time is a truncation"),
    ],
)
def test_what_step_returns_is_checked(spoil, message):
    with pytest.raises(RobotRLError, match=message):
        check_env(Broken(spoil))


def test_a_time_limit_that_is_not_kept_is_found():
    env = walk(limit=50)
    env.env_spec = walk(limit=3).env_spec
    with pytest.raises(RobotRLError, match="goes on beyond its time limit of 3 steps"):
        check_env(env)


class Unseeded(Walk):
    def reset(self, *, seed=None, options=None):
        return super().reset()


class Constant(Walk):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=1)


def test_unseeded_randomness_and_ignored_seeds_are_found():
    with pytest.raises(RobotRLError, match="gives other results with the same seed and actions"):
        check_env(walk(Unseeded))
    with pytest.raises(RobotRLError, match=r"same results with another seed.*random_starts=False"):
        check_env(walk(Constant))
    check_env(walk(Constant), random_starts=False)


def test_spec_and_spaces_must_agree():
    import dataclasses

    def other_obs(spec):
        return dataclasses.replace(spec, obs={})

    def other_action(spec):
        return dataclasses.replace(spec, action=dataclasses.replace(spec.action, high=(2.0,)))

    assert any("a saved policy would not fit" in p for p in find_problems(Broken(spec=other_obs)))
    assert any("make them agree" in p for p in find_problems(Broken(spec=other_action)))
    env = Broken()
    env.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
    assert any("collectors need SAME_STEP" in p for p in find_problems(env))
    assert find_problems(object())[0].startswith("It has no env_spec")


def test_a_claim_of_exact_state_that_does_not_hold_is_found():
    import dataclasses

    env = Broken(spec=lambda spec: dataclasses.replace(spec, exact_state=True))
    with pytest.raises(RobotRLError, match="claims exact_state, but continues differently"):
        check_env(env)


def test_state_dicts_of_objects_are_found():
    env = Broken()
    env.state_dict = lambda: {**env.env.state_dict(), "wrapper": {}, "env": env.env.state_dict(), "rng": object()}
    assert any("/rng is a object" in problem for problem in find_problems(env))


def test_several_problems_come_in_one_error_with_one_line_each():
    def spoil(result):
        return result[0], result[1] * np.nan, result[2].astype(float), *result[3:]

    with pytest.raises(RobotRLError) as caught:
        check_env(Broken(spoil))
    first, *lines = str(caught.value).splitlines()
    assert first.startswith("The env 'walk' has ")
    assert len(lines) >= 2
    assert all(line.startswith("- ") for line in lines)
    assert len(set(lines)) == len(lines)


def test_a_crash_is_a_finding_and_the_other_checks_go_on():
    def crash(result):
        raise ValueError("boom.")

    found = find_problems(Broken(crash))
    assert any("Stepping it raised ValueError: boom." in problem for problem in found)
    assert any("saving and loading" in problem.lower() for problem in found)


def test_unbounded_actions_are_found():
    class Unbounded(Walk):
        action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)

    assert any("actions are unbounded" in problem for problem in find_problems(walk(Unbounded)))


def test_overwritten_observations_are_found_when_copies_are_claimed():
    env = walk(copy=False)
    check_env(env)
    env.copy = True
    env._returned = dict
    assert any("overwrites the observations" in problem for problem in find_problems(env))


def test_episodes_that_depend_on_num_envs_are_found(monkeypatch):
    from robotrl.envs import slots

    shared = np.random.default_rng(0)
    monkeypatch.setattr(
        slots, "episode_seed", lambda seed, episode: int(shared.integers(1000)) if episode > 3 else episode
    )
    assert any(
        "with num_envs=1" in p or "same seed" in p for p in find_problems("gym/Pendulum-v1", max_episode_steps=10)
    )
