"""RobotRL's envs in Stable-Baselines3."""

import sys

import numpy as np
import pytest
from gymnasium import spaces

from robotrl.envs import make_vec
from robotrl.envs.config import EnvConfig, PixelsConfig, build_env
from robotrl.envs.rendering import NO_GL_MESSAGE, has_gl
from robotrl.envs.sb3 import as_sb3
from robotrl.types import RobotRLError

sb3 = pytest.importorskip("stable_baselines3")


def test_a_single_vector_group_is_a_box_of_float32_with_the_envs_numbers():
    env = as_sb3(make_vec("HalfCheetah-v5", num_envs=3, copy=False))
    twin = make_vec("HalfCheetah-v5", num_envs=3)
    assert isinstance(env.observation_space, spaces.Box)
    assert env.observation_space.dtype == np.float32
    env.seed(4)
    np.testing.assert_array_equal(env.reset(), twin.reset(seed=4)[0]["state"].astype(np.float32))
    actions = np.full((3, 6), 0.3, np.float32)
    obs, reward, done, infos = env.step(actions)
    expected_obs, expected_reward, *_ = twin.step(actions)
    np.testing.assert_array_equal(obs, expected_obs["state"].astype(np.float32))
    np.testing.assert_array_equal(reward, expected_reward.astype(np.float32))
    assert reward.dtype == np.float32
    assert not done.any()
    assert infos == [{}, {}, {}]
    env.step(-actions)
    np.testing.assert_array_equal(obs, expected_obs["state"].astype(np.float32))  # the caller's own


@pytest.mark.parametrize(("env_id", "truncated"), [("HalfCheetah-v5", True), ("InvertedPendulum-v5", False)])
def test_ends_carry_the_last_observation_and_tell_truncation_from_termination(env_id, truncated):
    options = {"max_episode_steps": 10 if truncated else 1000}
    env, twin = (make_vec(env_id, num_envs=2, seed=3, **options) for _ in range(2))
    env = as_sb3(env, infos=True)
    env.reset(), twin.reset()
    for _ in range(60):
        actions = np.ones(env.env.action_space.shape, np.float32)
        obs, _, done, infos = env.step(actions)
        expected, _, _, _, twin_infos = twin.step(actions)
        np.testing.assert_array_equal(obs, expected["state"].astype(np.float32))
        if done.any():
            break
    rows = np.flatnonzero(done)
    assert len(rows)
    for row in range(2):
        assert ("terminal_observation" in infos[row]) == bool(done[row])
    row = rows[0]
    last = twin_infos["final_obs"]["state"][row].astype(np.float32)
    np.testing.assert_array_equal(infos[row]["terminal_observation"], last)
    assert infos[row]["TimeLimit.truncated"] is truncated
    assert len(infos[row]) > 2  # infos=True passes the env's own on


@pytest.mark.skipif(not has_gl(), reason=NO_GL_MESSAGE)
def test_several_groups_are_a_dict_and_one_of_them_can_be_chosen():
    config = EnvConfig(id="Hopper-v5", pixels=PixelsConfig(36, 36, replace_state=False), time_limit=5)
    env = as_sb3(build_env(config, num_envs=2, copy=False))
    obs = env.reset()
    assert set(obs) == {"state", "image/pixels"}
    assert env.observation_space["image/pixels"].dtype == np.uint8
    for _ in range(5):
        obs, _, done, infos = env.step(np.zeros((2, 3), np.float32))
    assert done.all()
    assert set(infos[1]["terminal_observation"]) == {"state", "image/pixels"}
    assert len(env.get_images()) == 2
    image = as_sb3(build_env(config, num_envs=2), group="image/pixels")
    assert image.reset().shape == (2, 3, 36, 36)
    with pytest.raises(RobotRLError, match=r"no observation group 'image/pixel'\. Did you mean 'image/pixels'"):
        as_sb3(build_env(config, num_envs=2), group="image/pixel")


def test_sb3s_ppo_trains_on_a_native_env():
    import torch

    torch.set_num_threads(1)
    from stable_baselines3.common.vec_env import VecMonitor

    env = VecMonitor(as_sb3(make_vec("HalfCheetah-v5", num_envs=8, seed=0, copy=False, max_episode_steps=100)))
    model = sb3.PPO("MlpPolicy", env, n_steps=128, batch_size=256, n_epochs=2, seed=0, device="cpu")
    model.learn(3072)
    lengths = [episode["l"] for episode in model.ep_info_buffer]
    assert lengths == [100] * 24
    action, _ = model.predict(env.reset())
    assert action.shape == (8, 6)
    env.close()


def test_sb3s_own_accessors_work():
    env = as_sb3(make_vec("Hopper-v5", num_envs=3))
    assert env.get_attr("num_envs", indices=[0, 2]) == [3, 3]
    assert env.env_method("state_dict", indices=1) if env.reset() is not None else False
    assert env.env_is_wrapped(object) == [False] * 3
    assert not env.has_attr("nothing_of_that_name")
    with pytest.raises(RobotRLError, match="cannot be set for single rows"):
        env.set_attr("x", 1)


def test_without_sb3_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "stable_baselines3.common.vec_env", None)
    with pytest.raises(RobotRLError, match=r'pip install "robotrl\[sb3\]"'):
        as_sb3(make_vec("Hopper-v5"))
