"""The step guard: nothing that is not finite, and nothing of another shape, passes."""

import time

import numpy as np
import pytest
from gymnasium import spaces

from robotrl.envs.guard import StepGuard
from robotrl.types import ActionSpec, ArraySpec, EnvSpec, RobotRLError

N = 64


class Env:
    """What the guard reads of an env."""

    num_envs = N
    single_observation_space = spaces.Dict(
        {"state": spaces.Box(-1, 1, (17,), np.float32), "image/front": spaces.Box(0, 255, (3, 4, 4), np.uint8)}
    )
    env_spec = EnvSpec("dmc/walker-walk", {"state": ArraySpec((17,))}, ActionSpec("discrete", num_actions=2))

    def state_dict(self):
        return {"seed": 2**70, "rows": [{"physics": np.arange(3.0), "model": {}}], "names": ["a", "b"], "none": None}


@pytest.fixture
def obs():
    return {"state": np.zeros((N, 17), np.float32), "image/front": np.zeros((N, 3, 4, 4), np.uint8)}


@pytest.fixture
def guard(tmp_path):
    return StepGuard(Env(), tmp_path / "dumps")


def test_good_steps_pass_and_are_counted(guard, obs):
    guard.check(obs)
    guard.check(obs, np.zeros(N), {}, np.zeros((N, 2)))
    guard.check(obs, np.zeros(N))
    assert guard.steps == 2


def test_a_nan_names_env_group_row_and_step_and_dumps_the_state(guard, obs, tmp_path):
    guard.check(obs, np.zeros(N))
    obs["state"][7, 3] = np.nan
    obs["state"][9] = np.inf
    with pytest.raises(RobotRLError) as caught:
        guard.check(obs, np.ones(N), {}, np.full((N, 2), 0.5))
    message = str(caught.value)
    for part in ("'dmc/walker-walk'", "returned nan", "group 'state'", "row 7, element 3", "step 2", "1 more rows"):
        assert part in message
    (path,) = (tmp_path / "dumps").iterdir()
    assert str(path) in message
    with np.load(path) as dump:
        assert np.isnan(dump["obs/state"][7, 3])
        assert dump["action"].shape == (N, 2)
        assert dump["env/rows/0/physics"].tolist() == [0.0, 1.0, 2.0]
        assert dump["env/seed"].item() == str(2**70)
        assert '"step": 2' in dump["about"].item()


def test_a_reward_that_is_not_finite_is_caught(guard, obs):
    reward = np.zeros(N)
    reward[5] = -np.inf
    with pytest.raises(RobotRLError, match=r"returned -inf in its reward: row 5"):
        guard.check(obs, reward)


def test_a_final_observation_is_checked_where_it_is_valid(guard, obs):
    final = {name: value.copy() for name, value in obs.items()}
    final["state"][:10] = np.nan  # rows that did not end hold anything
    valid = np.zeros(N, np.bool_)
    valid[10:12] = True
    guard.check(obs, np.zeros(N), {"final_obs": final, "_final_obs": valid})
    final["state"][11, 0] = np.nan
    with pytest.raises(RobotRLError, match="final observation group 'state': row 11, element 0"):
        guard.check(obs, np.zeros(N), {"final_obs": final, "_final_obs": valid})


def test_large_finite_values_are_no_alarm(guard, obs):
    obs["state"][:] = 1e38  # their sum overflows
    guard.check(obs, np.full(N, 1e300))


def test_an_observation_that_changes_its_shape_is_refused(guard, obs):
    guard.check(obs)
    obs["state"] = np.zeros((N, 18), np.float32)
    with pytest.raises(RobotRLError, match=r"'dmc/walker-walk' changed the shape.*'state'.*\(64, 18\).*\(64, 17\)"):
        guard.check(obs, np.zeros(N))


def test_a_missing_or_new_group_is_refused(guard, obs):
    other = {"state": obs["state"], "image/wrist": obs["image/front"]}
    with pytest.raises(RobotRLError, match=r"missing \['image/front'\], unexpected \['image/wrist'\]"):
        guard.check(other)
    with pytest.raises(RobotRLError, match=r"missing \['image/front'\], unexpected \[\]"):
        guard.check({"state": obs["state"]})


def test_a_dump_that_cannot_be_written_does_not_hide_the_error(obs, tmp_path):
    (tmp_path / "file").write_text("")
    obs["state"][0, 0] = np.nan
    with pytest.raises(RobotRLError, match=r"row 0, element 0.*not written"):
        StepGuard(Env(), tmp_path / "file").check(obs)


def test_the_check_costs_microseconds(guard, obs):
    only_state = Env()
    only_state.single_observation_space = spaces.Dict({"state": Env.single_observation_space["state"]})
    guard = StepGuard(only_state, "unused")
    state, reward, infos = {"state": obs["state"]}, np.zeros(N), {}
    best = np.inf
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(200):
            guard.check(state, reward, infos)
        best = min(best, (time.perf_counter() - start) / 200)
    assert best < 10e-6
