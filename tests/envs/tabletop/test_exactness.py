"""The same state and actions give the same bytes, whatever runs beside them and on however many threads."""

import numpy as np
import pytest

from robotrl.envs import make_vec
from robotrl.types import RobotRLError

STEPS = 30


def trace(env, actions, seed=4, state=None):
    if state is None:
        obs, _ = env.reset(seed=seed)
    else:
        env.load_state_dict(state)
    out = []
    for action in actions:
        obs, reward, terminated, truncated, infos = env.step(action)
        out.append(
            {**obs, "reward": reward, "terminated": terminated, "truncated": truncated, "sim": env.batch.state.copy()}
        )
        out[-1]["progress"] = infos["progress"]
    return out


def same(a, b, rows=slice(None)):
    return all(np.array_equal(x[key][rows], y[key][rows]) for x, y in zip(a, b, strict=True) for key in x)


def random_actions(env, steps=STEPS, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.uniform(env.action_space.low, env.action_space.high).astype(np.float32) for _ in range(steps)]


@pytest.mark.parametrize("task", ["place", "store"])
def test_threads_and_batch_size_change_no_byte(task):
    one = make_vec(f"tabletop/{task}", num_envs=5, num_threads=1)
    two = make_vec(f"tabletop/{task}", num_envs=5, num_threads=2)
    actions = random_actions(one)
    reference = trace(one, actions)
    assert same(reference, trace(two, actions))
    alone = make_vec(f"tabletop/{task}", num_envs=1, num_threads=1)
    for row in (0, 3):
        alone.reset(seed=4, options={"episode": np.array([row])})
        for k, action in enumerate(actions):
            obs, reward, *_ = alone.step(action[row : row + 1])
            assert all(np.array_equal(obs[name][0], reference[k][name][row]) for name in obs)
            assert reward[0] == reference[k]["reward"][row]
            assert np.array_equal(alone.batch.state[0], reference[k]["sim"][row])


def test_a_saved_env_goes_on_to_the_bit_with_randomised_physics():
    options = {"randomise": "appearance+camera+dynamics", "max_episode_steps": 20, "reward": "shaped"}
    env = make_vec("tabletop/press", num_envs=3, **options)
    actions = random_actions(env, 40)
    trace(env, actions[:13])
    state = env.state_dict()
    rest = trace(env, actions[13:], state=state)
    fresh = make_vec("tabletop/press", num_envs=3, num_threads=1, **options)
    fresh.reset(seed=9)
    assert same(rest, trace(fresh, actions[13:], state=state))


def test_a_state_of_another_task_or_control_is_refused():
    env = make_vec("tabletop/press", num_envs=2)
    env.reset(seed=0)
    state = env.state_dict()
    for other in (make_vec("tabletop/pick", num_envs=2), make_vec("tabletop/press", num_envs=2, control="joint")):
        with pytest.raises(RobotRLError, match="saved state"):
            other.load_state_dict(state)


@pytest.mark.parametrize("what", ["appearance", "camera", "dynamics"])
def test_randomisation_is_recorded_and_replayed(what):
    env = make_vec("tabletop/pick", num_envs=2, randomise=what)
    env.reset(seed=0)
    record = env.randomisation
    assert len(record) > 3 and all(len(set(values.tolist())) == 2 for values in record.values())
    again = make_vec("tabletop/pick", num_envs=2, randomise={"record": record})
    again.reset(seed=0)
    assert all(np.array_equal(again.randomisation[key], value) for key, value in record.items())
    actions = random_actions(env, 5)
    assert same(trace(env, actions, seed=0), trace(again, actions, seed=0))


def test_an_unknown_randomisation_names_the_nearest():
    with pytest.raises(RobotRLError, match="Did you mean 'camera'"):
        make_vec("tabletop/pick", randomise="cameras")
