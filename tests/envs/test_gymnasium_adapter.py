"""`gym/<id>`: Gymnasium's envs with named groups, true last observations and the seeding rule."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from robotrl.envs import make_vec
from robotrl.envs.gymnasium_adapter import vectorize
from robotrl.envs.rendering import NO_GL_MESSAGE, has_gl
from robotrl.envs.seeding import episode_seed
from robotrl.types import RobotRLError


def play(env, steps=40, seed=3):
    rng = np.random.default_rng(0)
    result = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        if isinstance(env.single_action_space, spaces.Discrete):
            actions = rng.integers(0, env.single_action_space.n, env.num_envs)
        else:
            actions = rng.uniform(env.action_space.low, env.action_space.high).astype(np.float32)
        result.append(env.step(actions))
    return result


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "Hopper-v5"])
def test_rows_are_gymnasiums_own_env_seeded_by_seed_and_episode(env_id):
    env = make_vec(f"gym/{env_id}", num_envs=2, max_episode_steps=15)
    singles = [gymnasium.make(env_id, max_episode_steps=15) for _ in range(2)]
    episode = [0, 1]
    rng = np.random.default_rng(0)
    obs, _ = env.reset(seed=9)
    for row, single in enumerate(singles):
        np.testing.assert_array_equal(obs["state"][row], single.reset(seed=episode_seed(9, row))[0])
    for _ in range(60):
        if isinstance(env.single_action_space, spaces.Discrete):
            actions = rng.integers(0, 2, 2)
        else:
            actions = rng.uniform(env.action_space.low, env.action_space.high).astype(np.float32)
        obs, reward, terminated, truncated, infos = env.step(actions)
        for row, single in enumerate(singles):
            last, expected, end, cut, _ = single.step(actions[row])
            assert (reward[row], terminated[row], truncated[row]) == (expected, end, cut)
            if end or cut:
                np.testing.assert_array_equal(infos["final_obs"]["state"][row], last)
                assert infos["_final_obs"][row]
                episode[row] += 2
                last, _ = single.reset(seed=episode_seed(9, episode[row]))
            np.testing.assert_array_equal(obs["state"][row], last)
    assert max(episode) > 4


def test_processes_give_what_one_process_gives():
    results = []
    for vectorization in ("sync", "async"):
        env = make_vec("gym/CartPole-v1", num_envs=3, vectorization=vectorization, num_threads=2, copy=True)
        results.append(play(env))
        state = env.state_dict()
        results[-1].append(env.reset()[0])
        env.load_state_dict(state)
        results[-1].append(env.reset()[0])
        env.close()
    for a, b in zip(*results, strict=True):
        np.testing.assert_equal(a, b)
    np.testing.assert_equal(results[0][-1], results[0][-2])


class Rich(gymnasium.Env):
    """Observations of every kind; info is like that of robot tasks."""

    observation_space = spaces.Dict(
        {
            "front": spaces.Box(0, 255, (4, 6, 3), np.uint8),
            "image": spaces.Dict({"wrist": spaces.Box(0, 255, (1, 4, 6), np.uint8)}),
            "height": spaces.Box(-1, 1, (), np.float32),
            "mode": spaces.Discrete(3, start=5),
            "pair": spaces.Tuple([spaces.Box(-1, 1, (2,)), spaces.MultiBinary(2)]),
        }
    )
    action_space = spaces.Discrete(2, start=7)

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self.observe(), {"start": True}

    def step(self, action):
        assert action in (7, 8)
        self.t += 1
        return self.observe(), 1.0, False, self.t == 3, {"is_success": self.t == 3, "x": 0.5 * self.t}

    def observe(self):
        front = np.zeros((4, 6, 3), np.uint8)
        front[1, 2] = [10, 20, 30 + self.t]
        return {
            "front": front,
            "image": {"wrist": np.ones((1, 4, 6), np.uint8)},
            "height": np.float32(0.25),
            "mode": 6,
            "pair": (np.array([0.5, self.t / 10], np.float32), np.array([1, 0], np.int8)),
        }


def test_observations_become_named_groups_and_images_channels_first():
    env = vectorize(Rich, id="rich", num_envs=2, success="it took three steps")
    obs, _ = env.reset(seed=0)
    assert {name: value.shape for name, value in obs.items()} == {
        "image/front": (2, 3, 4, 6),
        "image/wrist": (2, 1, 4, 6),
        "height": (2, 1),
        "mode": (2, 3),
        "pair/0": (2, 2),
        "pair/1": (2, 2),
    }
    assert obs["image/front"][0, :, 1, 2].tolist() == [10, 20, 30]
    assert obs["mode"][0].tolist() == [0, 1, 0]
    assert env.env_spec.obs["image/front"].dtype == "uint8"
    assert env.env_spec.action.num_actions == 2
    for name, space in env.observation_space.spaces.items():
        assert space.contains(obs[name])
    for t in (1, 2, 3):
        obs, _, terminated, truncated, infos = env.step(np.array([0, 1]))
        assert infos["x"].tolist() == [0.5 * t] * 2
        assert ("success" in infos) == (t == 3)
    assert truncated.all()
    assert not terminated.any()
    assert infos["success"].tolist() == [True, True]
    assert infos["_success"].all()
    assert infos["final_obs"]["image/front"][1, :, 1, 2].tolist() == [10, 20, 33]
    assert obs["image/front"][1, :, 1, 2].tolist() == [10, 20, 30]
    assert env.env_spec.success == "it took three steps"


def test_a_discrete_observation_is_one_hot_and_a_lone_image_is_pixels():
    lake = make_vec("gym/FrozenLake-v1", num_envs=2)
    assert lake.reset()[0]["state"].tolist() == [[1.0] + [0.0] * 15] * 2

    class Screen(Rich):
        observation_space = spaces.Box(0, 255, (8, 8, 1), np.uint8)

        def observe(self):
            return np.full((8, 8, 1), self.t, np.uint8)

    obs, _ = vectorize(Screen, id="screen").reset()
    assert {name: value.shape for name, value in obs.items()} == {"image/pixels": (1, 1, 8, 8)}


def test_options_reach_the_env_and_time_limits_are_ours():
    env = make_vec("gym/Pendulum-v1", num_envs=2, g=1.5)
    assert env._slots[0].unwrapped.g == 1.5
    assert env.env_spec.time_limit == 200
    assert make_vec("gym/Pendulum-v1", max_episode_steps=None).env_spec.time_limit is None
    env = make_vec("gym/Pendulum-v1", max_episode_steps=3)
    assert [bool(x[3][0]) for x in play(env, 7)[1:]] == [False, False, True, False, False, True, False]


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("gym/CartPol-v1", {}, r"no env 'CartPol-v1'\. Did you mean 'CartPole-v1'"),
        ("gym/CartPole-v1", {"sutton_barto": True}, r"no option 'sutton_barto'\. Did you mean 'sutton_barto_reward'"),
        ("gym/CartPole-v1", {"vectorization": "threads"}, "neither 'sync' nor 'async'"),
        ("gym/Hopper-v2", {}, "cannot be imported"),
        ("gym/nowhere_package:Foo-v1", {}, "nowhere_package"),
        ("gyn/CartPole-v1", {}, "Unknown env 'gyn/CartPole-v1'"),
    ],
)
def test_mistakes_get_a_sentence(env_id, options, message):
    with pytest.raises(RobotRLError, match=message):
        make_vec(env_id, **options)


def test_a_missing_extra_is_named_with_the_command_that_installs_it():
    for env_id, module, command in (
        ("gym/ALE/Pong-v5", "ale_py", 'pip install "ale-py"'),
        ("gym/LunarLander-v3", "Box2D", r'pip install "gymnasium\[box2d\]"'),
    ):
        if _is_installed(module):
            continue
        with pytest.raises(RobotRLError, match=f"not installed.*{command}"):
            make_vec(env_id)


def test_spaces_that_do_not_map_are_refused():
    class Text(Rich):
        observation_space = spaces.Text(5)

    class Many(Rich):
        action_space = spaces.MultiDiscrete([2, 2])

    class Twice(Rich):
        observation_space = spaces.Dict(
            {"a/b": spaces.Box(0, 1, (1,)), "a": spaces.Dict({"b": spaces.Box(0, 1, (1,))})}
        )

    for kind, message in (
        (Text, "observation space is Text"),
        (Many, "Box or Discrete"),
        (Twice, "both map to the group"),
    ):
        with pytest.raises(RobotRLError, match=message):
            vectorize(kind, id="it")


def test_an_observation_that_changes_its_shape_is_refused():
    class Growing(Rich):
        observation_space = spaces.Box(-1, 1, (2,), np.float32)

        def observe(self):
            return np.zeros(2 + self.t // 2, np.float32)

    env = vectorize(Growing, id="growing", num_envs=2)
    env.reset()
    env.step(np.array([0, 0]))
    with pytest.raises(RobotRLError, match=r"'growing' changed the shape of its observation group 'state': \(3,\)"):
        env.step(np.array([0, 0]))


def test_actions_of_another_shape_and_steps_before_reset_are_refused():
    env = make_vec("gym/Pendulum-v1", num_envs=2)
    with pytest.raises(RobotRLError, match="Call reset"):
        env.step(np.zeros((2, 1)))
    env.reset()
    with pytest.raises(RobotRLError, match=r"shape \(2,\), but gym/Pendulum-v1 with 2 envs takes \(2, 1\)"):
        env.step(np.zeros(2))


@pytest.mark.skipif(not has_gl(), reason=NO_GL_MESSAGE)
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_mujoco_envs_are_drawn_by_the_rendering_rule_and_others_by_themselves(vectorization):
    env = make_vec("gym/Hopper-v5", num_envs=3, vectorization=vectorization)
    env.reset(seed=0)
    images = env.render_rows([2, 0], height=24, width=32)
    assert images.shape == (2, 24, 32, 3)
    assert images.max() > 50
    with pytest.raises(RobotRLError, match="no camera 'trak'"):
        env.render_rows([0], height=24, width=32, camera="trak")
    env.step(np.zeros((3, 3), np.float32))  # a mistake does not end the processes
    env.close()


def test_an_env_that_draws_is_scaled_and_one_that_does_not_says_so():
    class Drawing(Rich):
        metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
        render_mode = "rgb_array"

        def render(self):
            frame = np.zeros((40, 60, 3), np.uint8)
            frame[:20] = 200
            return frame

    env = vectorize(Drawing, id="drawing")
    env.reset()
    image = env.render_rows([0], height=4, width=6)[0]
    assert (image[:2] == 200).all()
    assert (image[2:] == 0).all()
    plain = vectorize(Rich, id="rich")
    plain.reset()
    with pytest.raises(RobotRLError, match="rich draws no pictures"):
        plain.render_rows([0], height=4, width=6)
    with pytest.raises(RobotRLError, match="drawing has no camera 'top'"):
        env.render_rows([0], height=4, width=6, camera="top")


def _is_installed(module):
    import importlib.util

    return importlib.util.find_spec(module) is not None
