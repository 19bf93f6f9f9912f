"""Wrappers against what they promise: a plain loop over one env, written out here, says what each must return."""

from collections import deque
from dataclasses import fields

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from robotrl.envs import make_vec
from robotrl.envs.base import VectorEnv
from robotrl.envs.config import EnvConfig, PixelsConfig, build_env, for_evaluation
from robotrl.envs.gymnasium_adapter import vectorize
from robotrl.envs.rendering import NO_GL_MESSAGE, has_gl
from robotrl.envs.wrappers import needs_wrappers, wrap_env
from robotrl.types import RobotRLError

needs_gl = pytest.mark.skipif(not has_gl(), reason=NO_GL_MESSAGE)
N = 4


class Clock(gymnasium.Env):
    """Counts its steps; an episode's length is drawn from its seed and ends by termination."""

    observation_space = spaces.Dict(
        {
            "state": spaces.Box(-np.inf, np.inf, (3,), np.float64),  # episode, time, last action
            "joint": spaces.Box(-np.inf, np.inf, (2,), np.float32),
            "privileged": spaces.Box(-np.inf, np.inf, (1,), np.float64),
            "image/eye": spaces.Box(0, 255, (2, 5, 3), np.uint8),
        }
    )
    action_space = spaces.Box(np.float32([0.5, -2]), np.float32([3.0, 2]))
    metadata = {"render_fps": 20}  # noqa: RUF012

    def reset(self, *, seed=None, options=None):
        self.start, self.length, self.t, self.action = seed % 1000, 3 + seed % 4, 0, -1.0
        return self.observe(), {}

    def step(self, action):
        self.t, self.action = self.t + 1, float(action[0])
        return self.observe(), float(self.t), self.t >= self.length, False, {"time": self.t, "success": self.t % 2 == 0}

    def observe(self):
        image = np.full((2, 5, 3), (self.start + 10 * self.t) % 256, np.uint8)
        return {
            "state": np.array([self.start, self.t, self.action]),
            "joint": np.array([self.t, -self.t], np.float32),
            "privileged": np.array([100.0 + self.t]),
            "image/eye": image,
        }


def clock(copy=False, **options):
    return vectorize(Clock, id="clock", num_envs=N, copy=copy, **options)


def wrapped(**options):
    limit = options.pop("max_episode_steps", None)
    return wrap_env(clock(max_episode_steps=limit), EnvConfig(id="clock", **options))


def actions_of(env, steps, seed=0):
    rng = np.random.default_rng(seed)
    space = env.action_space
    return [rng.uniform(space.low, space.high).astype(np.float32) for _ in range(steps)]


def assert_same(found, expected, where=""):
    assert set(found) == set(expected), where
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=f"{where} {name}")


def against_reference(env, steps, reset, step):
    """Compare `env` with `reset(row)` and `step(row, action)`, which play each row alone, autoreset included."""
    obs, _ = env.reset(seed=3)
    expected = [reset(row) for row in range(N)]
    ends = 0
    for t, actions in enumerate(actions_of(env, steps)):
        for row in range(N):
            assert_same({name: value[row] for name, value in obs.items()}, expected[row], f"step {t} row {row}")
        obs, reward, terminated, truncated, infos = env.step(actions)
        done = terminated | truncated
        assert ("final_obs" in infos) == bool(done.any())
        for row in range(N):
            expected[row], expected_reward, expected_end, final = step(row, actions[row])
            assert reward[row] == pytest.approx(expected_reward)
            assert (terminated[row], truncated[row]) == expected_end
            assert (final is not None) == done[row]
            if final is not None:
                ends += 1
                assert infos["_final_obs"][row]
                assert_same({n: v[row] for n, v in infos["final_obs"].items()}, final, f"final {t} {row}")
    assert ends > 2 * N
    return env


class Rows:
    """Single envs that follow the seeding rule, for references."""

    def __init__(self, make=None):
        self.envs = [make() if make else vectorize(Clock, id="clock", num_envs=1) for _ in range(N)]
        self.episode = list(range(N))

    def reset(self, row):
        obs, _ = self.envs[row].reset(seed=3, options={"episode": np.array([self.episode[row]])})
        self.episode[row] += N
        return {name: value[0] for name, value in obs.items()}

    def step(self, row, action):
        obs, reward, terminated, truncated, infos = self.envs[row].step(action[None])
        end = bool(terminated[0]), bool(truncated[0])
        last = infos["final_obs"] if any(end) else obs
        return {name: value[0] for name, value in last.items()}, float(reward[0]), end


def repeating(rows, repeat):
    def step(row, action):
        total, end, obs = 0.0, (False, False), None
        for _ in range(repeat):
            obs, reward, end = rows.step(row, action)
            total += reward
            if any(end):
                break
        return (rows.reset(row), total, end, obs) if any(end) else (obs, total, end, None)

    return rows.reset, step


def test_action_repeat_sums_rewards_and_stops_where_the_episode_ends():
    env = against_reference(wrapped(action_repeat=2), 30, *repeating(Rows(), 2))
    assert env.env_spec.action_repeat == 2
    assert env.env_spec.control_hz == 10.0
    against_reference(wrapped(action_repeat=5), 30, *repeating(Rows(), 5))


@pytest.mark.parametrize("env_id", ["Hopper-v5", "gym/Hopper-v5", "dmc/cartpole-balance"])
def test_action_repeat_over_a_simulator_equals_single_envs_stepped_by_hand(env_id):
    if env_id.startswith("dmc"):
        pytest.importorskip("dm_control")
    config = EnvConfig(id=env_id, action_repeat=3, time_limit=9)
    rows = Rows(lambda: make_vec(env_id, max_episode_steps=27))
    env = build_env(config, num_envs=N)
    assert env.env_spec.time_limit == 9
    against_reference(env, 40, *repeating(rows, 3))


def test_action_repeat_keeps_infos_of_the_last_step_a_row_simulated():
    env = wrapped(action_repeat=4)
    env.reset(seed=3)
    lengths = [3 + start % 4 for start in clock().reset(seed=3)[0]["state"][:, 0].astype(int)]
    assert len(set(lengths)) > 1
    for actions in actions_of(env, 2):
        _, _, terminated, _, infos = env.step(actions)
        for row, length in enumerate(lengths):
            if length <= 4:
                assert terminated[row]
                assert infos["time"][row] == length
                assert infos["_success"][row]
                assert infos["success"][row] == (length % 2 == 0)
            else:
                assert infos["time"][row] == 4
                assert not infos["_success"][row]
        break


def with_memory(rows, show):
    """`show(past)` maps an episode's observations so far, oldest first, to what the policy sees."""
    past = {}

    def reset(row):
        past[row] = [rows.reset(row)]
        return show(past[row])

    def step(row, action):
        obs, reward, end = rows.step(row, action)
        past[row].append(obs)
        seen = show(past[row])
        return (reset(row), reward, end, seen) if any(end) else (seen, reward, end, None)

    return reset, step


def stacked(past, frames, history):
    def last(count):
        line = deque([past[0]] * count, maxlen=count)
        line.extend(past[1:])
        return line

    return {
        "state": np.concatenate([obs["state"] for obs in last(history)]),
        "joint": np.concatenate([obs["joint"] for obs in last(history)]),
        "privileged": past[-1]["privileged"],
        "image/eye": np.concatenate([obs["image/eye"] for obs in last(frames)]),
    }


@pytest.mark.parametrize(("frames", "history"), [(3, 1), (1, 2), (4, 5)])
def test_stacks_are_oldest_first_and_start_afresh_while_final_obs_keeps_the_old_episode(frames, history):
    env = wrapped(frame_stack=frames, history=history)
    against_reference(env, 40, *with_memory(Rows(), lambda past: stacked(past, frames, history)))
    assert env.env_spec.obs["image/eye"].shape == (3 * frames, 2, 5)
    assert env.env_spec.obs["state"].shape == (3 * history,)
    assert env.env_spec.obs["privileged"].shape == (1,)
    assert env.single_observation_space["joint"].dtype == np.float32


@pytest.mark.parametrize("delay", [1, 3])
def test_delayed_observations_are_those_of_some_steps_ago_and_privileged_ones_are_not_delayed(delay):
    def show(past):
        return {**past[max(0, len(past) - 1 - delay)], "privileged": past[-1]["privileged"]}

    against_reference(wrapped(obs_delay=delay), 40, *with_memory(Rows(), show))


def test_a_delayed_observation_is_stacked_as_the_policy_saw_it():
    def show(past):
        seen = [{**past[max(0, i - 2)], "privileged": past[i]["privileged"]} for i in range(len(past))]
        return stacked(seen, 2, 3)

    against_reference(wrapped(obs_delay=2, frame_stack=2, history=3), 40, *with_memory(Rows(), show))


@pytest.mark.parametrize("delay", [1, 2])
def test_delayed_actions_are_executed_later_and_an_episode_starts_with_zero_within_the_bounds(delay):
    env = wrapped(action_delay=delay)
    env.reset(seed=3)
    chosen = [[] for _ in range(N)]
    for actions in actions_of(env, 40):
        obs, _, terminated, _, infos = env.step(actions)
        for row in range(N):
            chosen[row].append(actions[row])
            late = len(chosen[row]) - 1 - delay
            expected = chosen[row][late] if late >= 0 else np.float32([0.5, 0.0])
            np.testing.assert_array_equal(infos["executed_action"][row], expected)
            seen = infos["final_obs"]["state"] if terminated[row] else obs["state"]
            assert seen[row, 2] == expected[0]
            if terminated[row]:
                chosen[row].clear()


def test_reward_scale_multiplies_and_evaluation_leaves_it_out():
    plain, env = clock(), wrapped(reward_scale=0.5)
    plain.reset(seed=3), env.reset(seed=3)
    for actions in actions_of(env, 10):
        expected = plain.step(actions)[1].copy()
        _, reward, *_, infos = env.step(actions)
        np.testing.assert_array_equal(reward, expected * 0.5)
        np.testing.assert_array_equal(infos["unscaled_reward"], expected)
    assert for_evaluation(EnvConfig(reward_scale=0.5, history=2)) == EnvConfig(history=2)


def test_groups_are_selected_renamed_and_concatenated():
    groups = {"state": ["joint", "state"], "critic": "privileged", "image/two": ["image/eye", "image/eye"]}

    def show(past):
        now = past[-1]
        return {
            "state": np.concatenate([now["joint"], now["state"]]),
            "critic": now["privileged"],
            "image/two": np.concatenate([now["image/eye"], now["image/eye"]]),
        }

    env = against_reference(wrapped(groups=groups), 30, *with_memory(Rows(), show))
    assert list(env.env_spec.obs) == list(groups)
    assert env.env_spec.obs["image/two"].shape == (6, 2, 5)
    assert set(wrapped(groups=["joint"]).reset(seed=0)[0]) == {"joint"}


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["stat"], r"no observation group 'stat'. Did you mean 'state'.*It has: .*joint"),
        ({"x": ["state", "image/eye"]}, "images and vectors do not mix"),
        ("state", "makes no sense: list group names"),
        ([], "makes no sense"),
    ],
)
def test_groups_that_cannot_be_are_refused(groups, message):
    def build():
        config = EnvConfig(groups=groups)
        config.check()
        return wrap_env(clock(), config)

    with pytest.raises(RobotRLError, match=message):
        build()


def test_a_time_limit_replaces_the_envs_own_and_truncates():
    for limit, expected in ((7, 7), (None, 1000), (0, None), (1500, 1500)):
        env = build_env(EnvConfig(id="HalfCheetah-v5", time_limit=limit), num_envs=2)
        assert env.env_spec.time_limit == expected
    env = build_env(EnvConfig(id="HalfCheetah-v5", time_limit=7), num_envs=2)
    env.reset()
    for t in range(1, 22):
        _, _, terminated, truncated, _ = env.step(np.zeros((2, 6)))
        assert not terminated.any()
        assert truncated.tolist() == [t % 7 == 0] * 2
    with pytest.raises(RobotRLError, match="both set the time limit"):
        build_env(EnvConfig(id="HalfCheetah-v5", time_limit=7, options={"max_episode_steps": 5}))


@needs_gl
@pytest.mark.parametrize("env_id", ["Hopper-v5", "dmc/walker-walk", "gym/Hopper-v5"])
@pytest.mark.parametrize("repeat", [1, 3])
def test_pixels_show_each_rows_own_state_and_final_ones_the_last_state(env_id, repeat):
    if env_id.startswith("dmc"):
        pytest.importorskip("dm_control")
    pixels = PixelsConfig(height=24, width=32, replace_state=False)
    env = build_env(EnvConfig(id=env_id, pixels=pixels, action_repeat=repeat, time_limit=6), num_envs=3)
    single = make_vec(env_id, max_episode_steps=6 * repeat)
    single.disable_autoreset()
    assert env.env_spec.obs["image/pixels"].shape == (3, 24, 32)
    obs, _ = env.reset(seed=5)
    plan = actions_of(env, 8, seed=1)
    history = [obs] + [env.step(actions) for actions in plan]

    def picture():
        return single.render_rows([0], height=24, width=32)[0].transpose(2, 0, 1)

    for row in range(3):
        start, _ = single.reset(seed=5, options={"episode": np.array([row])})
        np.testing.assert_array_equal(obs["image/pixels"][row], picture())
        np.testing.assert_array_equal(obs["state"][row], start["state"][0])
        for actions, (seen, _, terminated, truncated, infos) in zip(plan, history[1:], strict=True):
            for _ in range(repeat):
                last, _, single_terminated, single_truncated, _ = single.step(actions[row : row + 1])
                if single_terminated[0] or single_truncated[0]:
                    break
            done = bool(terminated[row] or truncated[row])
            assert done == bool(single_terminated[0] or single_truncated[0])
            shown = infos["final_obs"] if done else seen
            np.testing.assert_array_equal(shown["state"][row], last["state"][0])
            np.testing.assert_array_equal(shown["image/pixels"][row], picture())
            if done:
                assert not np.array_equal(seen["image/pixels"][row], shown["image/pixels"][row])
                break
        else:
            pytest.fail("no episode ended")


@needs_gl
def test_pixels_replace_the_state_or_stand_beside_it():
    only = build_env(EnvConfig(id="Hopper-v5", pixels=PixelsConfig(16, 16)), num_envs=2)
    assert list(only.reset()[0]) == ["image/pixels"]
    named = PixelsConfig(16, 20, cameras=["track", "-1"], replace_state=False)
    both = build_env(EnvConfig(id="Hopper-v5", pixels=named, frame_stack=3), num_envs=2)
    obs, _ = both.reset()
    assert {name: value.shape[1:] for name, value in obs.items()} == {
        "state": (11,),
        "image/track": (9, 16, 20),
        "image/-1": (9, 16, 20),
    }
    assert not np.array_equal(obs["image/track"], obs["image/-1"])
    with pytest.raises(RobotRLError, match=r"no camera 'trak'\. Did you mean 'track'"):
        build_env(EnvConfig(id="Hopper-v5", pixels=PixelsConfig(16, 16, cameras=["trak"]))).reset()


EVERYTHING = {
    "action_repeat": 2,
    "action_delay": 2,
    "reward_scale": 0.1,
    "obs_delay": 1,
    "groups": {"state": ["state", "state"]},
    "history": 3,
    "time_limit": 7,
}


@pytest.mark.parametrize("env_id", ["Hopper-v5", "dmc/reacher-easy"])
def test_with_every_wrapper_a_saved_state_continues_bit_for_bit_in_a_fresh_env(env_id):
    if env_id.startswith("dmc"):
        pytest.importorskip("dm_control")
    config = EnvConfig(id=env_id, **EVERYTHING)
    env = build_env(config, num_envs=3)
    env.reset(seed=2)
    plan = actions_of(env, 40)
    for actions in plan[:11]:
        env.step(actions)
    state = env.state_dict()
    expected = [env.step(actions) for actions in plan[11:]]
    fresh = build_env(config, num_envs=3)
    fresh.reset(seed=9)
    fresh.load_state_dict(state)
    for actions, (obs, reward, terminated, truncated, infos) in zip(plan[11:], expected, strict=True):
        again = fresh.step(actions)
        assert_same(again[0], obs)
        np.testing.assert_array_equal(again[1], reward)
        np.testing.assert_array_equal(again[2] | again[3], terminated | truncated)
        if "final_obs" in infos:
            done = infos["_final_obs"]
            assert_same(
                {k: v[done] for k, v in again[4]["final_obs"].items()},
                {k: v[done] for k, v in infos["final_obs"].items()},
            )
    assert env.env_spec.exact_state


def test_an_env_without_exact_state_goes_on_with_the_following_episodes():
    env = wrapped(**EVERYTHING | {"time_limit": None})
    env.reset(seed=2)
    for actions in actions_of(env, 20):
        env.step(actions)
    state, following = env.state_dict(), env.reset()[0]
    fresh = wrapped(**EVERYTHING | {"time_limit": None})
    fresh.load_state_dict(state)
    assert_same(fresh.reset()[0], following)
    assert not env.env_spec.exact_state


@pytest.mark.parametrize("copy", [True, False])
def test_returned_arrays_are_the_callers_only_with_copy(copy):
    config = EnvConfig(id="Hopper-v5", **EVERYTHING)
    env = build_env(config, num_envs=3, copy=copy)
    twin = build_env(config, num_envs=3, copy=True)
    obs, _ = env.reset(seed=1)
    assert_same(obs, twin.reset(seed=1)[0])
    kept = []
    for actions in actions_of(env, 30):
        result, expected = env.step(actions), twin.step(actions)
        assert_same(result[0], expected[0])
        kept.append((result[0], result[4].get("final_obs", {}), expected[0], expected[4].get("final_obs", {})))
    if copy:
        for obs, final, expected_obs, expected_final in kept:
            assert_same(obs, expected_obs)
            assert_same(final, expected_final)


def test_without_wrappers_build_env_adds_no_layer():
    assert build_env(EnvConfig(id="Hopper-v5")).unwrapped is not None
    assert type(build_env(EnvConfig(id="Hopper-v5", time_limit=5))).__name__ == "NativeVectorEnv"
    assert not needs_wrappers(EnvConfig(time_limit=4, options={"frame_skip": 2}))


def test_wrapped_envs_declare_what_they_return():
    env = wrapped(action_repeat=2, history=2, groups=["state", "image/eye"], frame_stack=2)
    obs, _ = env.reset(seed=0)
    for name, space in env.observation_space.spaces.items():
        assert obs[name].shape == space.shape
        assert obs[name].dtype == space.dtype
        assert env.env_spec.obs[name].shape == env.single_observation_space[name].shape
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert repr(env).startswith("Copies(Stack(Groups(AutoReset(ActionRepeat(")


def test_a_masked_reset_through_all_wrappers_restarts_the_rows_named_alone():
    env = wrapped(history=2, obs_delay=1, action_delay=1)
    env.reset(seed=3)
    for actions in actions_of(env, 2):
        obs = env.step(actions)[0]
    mask = np.array([True, False, True, False])
    after, _ = env.reset(options={"reset_mask": mask})
    for name in obs:
        same = (obs[name] == after[name]).reshape(N, -1).all(axis=1)
        assert (same | mask).all()
        assert not same[mask].any() or name == "image/eye"
    assert (after["state"][mask][:, [1, 4]] == 0).all()


def test_an_env_that_cannot_leave_finished_rows_is_refused_by_the_wrappers_that_need_it():
    class Stubborn(VectorEnv):
        disable_autoreset = None
        env_spec = clock().env_spec
        state_dict = load_state_dict = render_rows = None

    with pytest.raises(RobotRLError, match="'clock' resets by itself, so action_repeat and pixels cannot wrap it"):
        wrap_env(Stubborn(), EnvConfig(action_repeat=2))


@pytest.mark.parametrize(
    ("key", "value"),
    [("action_repeat", 0), ("history", 0), ("obs_delay", -1), ("frame_stack", 1.5), ("time_limit", -3)],
)
def test_values_that_no_env_can_have_are_refused_by_name(key, value):
    with pytest.raises(RobotRLError, match=rf"env.{key}={value} makes no sense"):
        EnvConfig(**{key: value}).check()


def test_the_config_is_plain_enough_for_hydra():
    from omegaconf import OmegaConf

    config = OmegaConf.structured(EnvConfig)
    config.pixels = PixelsConfig(height=32)
    config.groups = ["state"]
    config.options = {"frame_skip": 3}
    back = OmegaConf.to_object(config)
    assert back == EnvConfig(pixels=PixelsConfig(height=32), groups=["state"], options={"frame_skip": 3})
    assert {f.name for f in fields(EnvConfig)} >= {"id", "options", "randomise"}
