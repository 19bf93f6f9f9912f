"""`dmc/<domain>-<task>`: the suite's own numbers, truncation that bootstraps, and exact continuation."""

import sys

import numpy as np
import pytest

from robotrl.envs import make_vec
from robotrl.envs.rendering import NO_GL_MESSAGE, has_gl
from robotrl.envs.seeding import episode_seed
from robotrl.types import RobotRLError

pytest.importorskip("dm_control")


def actions_of(env, steps, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.uniform(env.action_space.low, env.action_space.high) for _ in range(steps)]


@pytest.mark.parametrize("env_id", ["cartpole-swingup", "walker-run", "finger-spin", "swimmer-swimmer6"])
def test_rows_equal_the_suites_own_env_to_the_bit(env_id):
    from dm_control import suite

    domain, task = env_id.split("-")
    env = make_vec(f"dmc/{env_id}", num_envs=2, copy=True)
    singles = [suite.load(domain, task) for _ in range(2)]
    obs, _ = env.reset(seed=4)
    for row, single in enumerate(singles):
        single.task.random.seed(episode_seed(4, row))
        first = single.reset()
        np.testing.assert_array_equal(
            obs["state"][row], np.concatenate([np.ravel(v) for v in first.observation.values()])
        )
    for actions in actions_of(env, 50):
        obs, reward, terminated, truncated, _ = env.step(actions)
        for row, single in enumerate(singles):
            step = single.step(actions[row])
            expected = np.concatenate([np.ravel(v) for v in step.observation.values()])
            np.testing.assert_array_equal(obs["state"][row], expected)
            assert reward[row] == step.reward
        assert not (terminated | truncated).any()


def test_spec_has_the_suites_bounds_rate_and_limit():
    spec = make_vec("dmc/walker-walk").env_spec
    assert spec.control_hz == pytest.approx(40.0)
    assert spec.time_limit == 1000
    assert spec.obs["state"].shape == (24,)
    assert spec.action.low == (-1.0,) * 6
    assert spec.exact_state


def test_an_episode_that_runs_out_of_time_is_truncated_and_not_terminated():
    env = make_vec("dmc/cartpole-balance", num_envs=2, task_kwargs={"time_limit": 0.05})
    assert env.env_spec.time_limit == 5
    env.reset(seed=0)
    for t, actions in enumerate(actions_of(env, 12), start=1):
        _, _, terminated, truncated, infos = env.step(actions)
        assert not terminated.any()
        assert truncated.tolist() == [t % 5 == 0] * 2
        assert ("final_obs" in infos) == (t % 5 == 0)


@pytest.mark.parametrize(("discount", "ends"), [(0.0, (True, False)), (1.0, (False, True)), (None, (False, False))])
def test_a_discount_of_zero_terminates_and_one_of_one_truncates(discount, ends):
    env = make_vec("dmc/cartpole-balance", num_envs=2)
    env.reset(seed=0)
    env._envs[1].task.get_termination = lambda physics: discount
    _, _, terminated, truncated, _ = env.step(np.zeros((2, 1)))
    assert (terminated[1], truncated[1]) == ends
    assert not terminated[0]
    assert not truncated[0]


# tasks that keep part of their state in the model (target, terrain), in contacts, or in activations
EXACT = ["reacher-hard", "point_mass-hard", "humanoid-walk", "quadruped-escape", "manipulator-insert_peg", "dog-trot"]


@pytest.mark.parametrize("env_id", EXACT)
def test_a_saved_state_continues_bit_for_bit_in_a_fresh_env(env_id):
    env = make_vec(f"dmc/{env_id}", num_envs=2, max_episode_steps=12)
    env.reset(seed=1)
    plan = actions_of(env, 34)
    for actions in plan[:17]:
        env.step(actions)
    state = env.state_dict()
    expected = [env.step(actions) for actions in plan[17:]]
    fresh = make_vec(f"dmc/{env_id}", num_envs=2, max_episode_steps=12)
    fresh.reset(seed=2)
    fresh.step(plan[0])
    fresh.load_state_dict(state)
    for actions, result in zip(plan[17:], expected, strict=True):
        again = fresh.step(actions)
        np.testing.assert_array_equal(again[0]["state"], result[0]["state"])
        np.testing.assert_array_equal(again[1], result[1])


def test_a_state_of_another_env_is_refused():
    walker = make_vec("dmc/walker-walk", num_envs=2)
    walker.reset()
    with pytest.raises(RobotRLError, match="is of 2 envs dmc/walker-walk, but this is 1 envs dmc/walker-walk"):
        make_vec("dmc/walker-walk").load_state_dict(walker.state_dict())


def test_threads_change_nothing_but_the_time():
    results = []
    for threads in (None, 3):
        env = make_vec("dmc/walker-walk", num_envs=5, num_threads=threads, max_episode_steps=8)
        env.reset(seed=0)
        results.append([env.step(actions)[:4] for actions in actions_of(env, 20)])
        env.close()
    np.testing.assert_equal(*results)


def test_privileged_state_is_the_physics():
    env = make_vec("dmc/cartpole-swingup", num_envs=2, privileged=True)
    obs, _ = env.reset(seed=0)
    assert obs["privileged"].shape == (2, 4)
    assert env.env_spec.obs["privileged"].shape == (4,)
    np.testing.assert_allclose(obs["state"][:, 1], np.cos(obs["privileged"][:, 1]))


@pytest.mark.skipif(not has_gl(), reason=NO_GL_MESSAGE)
def test_each_row_is_drawn_with_its_own_target_and_terrain():
    reacher = make_vec("dmc/reacher-easy", num_envs=2)
    reacher.reset(seed=0)
    for row in (0, 1):  # the same arm, other targets
        reacher._envs[row].physics.data.qpos[:] = 0
        reacher._envs[row].physics.forward()
    images = reacher.render_rows([0, 1], height=32, width=32)
    assert images.shape == (2, 32, 32, 3)
    assert images.max() > 50
    assert not np.array_equal(*images)
    walker = make_vec("dmc/walker-walk")
    walker.reset()
    front, side = (walker.render_rows([0], height=32, width=32, camera=camera) for camera in (0, "side"))
    free = walker.render_rows([0], height=32, width=32, camera=-1)
    assert not np.array_equal(front, free)
    assert side.shape == front.shape


def test_a_simulation_that_diverges_says_where():
    env = make_vec("dmc/cartpole-balance", num_envs=2)
    env.reset(seed=0)
    env._envs[1].physics.data.qvel[:] = np.nan
    with pytest.raises(RobotRLError, match=r"dmc/cartpole-balance diverged in row 1 at step 0"):
        env.step(np.zeros((2, 1)))


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("dmc/walker-wlak", {}, r"no 'dmc/walker-wlak'\. Did you mean 'dmc/walker-walk'"),
        ("dmc/walker", {}, "Names are dmc/<domain>-<task>"),
        ("dmc/walker-walk", {"privilege": True}, r"no option 'privilege'\. Did you mean 'privileged'"),
        ("dmc/walker-walk", {"task_kwargs": {"speed": 3}}, "does not take these task_kwargs"),
    ],
)
def test_mistakes_get_a_sentence(env_id, options, message):
    with pytest.raises(RobotRLError, match=message):
        make_vec(env_id, **options)


def test_deprecations_in_the_suites_own_models_are_not_the_users_business(caplog):
    make_vec("dmc/cheetah-run", num_envs=2).close()
    assert not caplog.records


def test_without_dm_control_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "dm_control", None)
    with pytest.raises(RobotRLError, match=r'not installed.*pip install "robotrl\[dmc\]"'):
        make_vec("dmc/walker-walk")
