"""The native vector env's own promises: seeding, autoreset, exact state, clear errors."""

from __future__ import annotations

import copy
import gc
from typing import Any

import gymnasium
import numpy as np
import pytest
from mujoco.batch import SimulationError

from robotrl.envs import make_vec
from robotrl.envs.base import VectorEnv
from robotrl.envs.native import TASKS
from robotrl.envs.rendering import has_gl
from robotrl.envs.seeding import EpisodeStreams, episode_rng, episode_seed
from robotrl.types import EnvSpec, RobotRLError

# the same length for all rows at once, and short enough that several episodes end within a test
SHORT = 17


def _actions(env: VectorEnv, steps: int, seed: int = 0) -> np.ndarray:
    space = env.single_action_space
    assert isinstance(space, gymnasium.spaces.Box)
    rng = np.random.default_rng(seed)
    return rng.uniform(space.low, space.high, (steps, env.num_envs, *space.shape)).astype(np.float32)


def _roll(env: VectorEnv, actions: np.ndarray) -> list[np.ndarray]:
    """Everything the env returns, copied, in one flat list."""
    out = []
    for action in actions:
        obs, reward, terminated, truncated, infos = env.step(action)
        arrays = [*obs.values(), reward, terminated, truncated]
        arrays += [value for value in infos.values() if isinstance(value, np.ndarray)]
        if "final_obs" in infos:
            arrays.append(infos["final_obs"]["state"][infos["_final_obs"]])
        out += [np.array(value) for value in arrays]
    return out


def _equal(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("env_id", sorted(TASKS))
def test_spec_and_spaces_are_gymnasiums(env_id: str) -> None:
    env, theirs = make_vec(env_id, num_envs=3), gymnasium.make(env_id)
    assert env.single_observation_space["state"] == theirs.observation_space
    assert env.single_action_space == theirs.action_space
    assert env.env_spec.time_limit == theirs.spec.max_episode_steps
    assert env.env_spec.control_hz == pytest.approx(theirs.metadata["render_fps"], rel=0.02)
    obs, _ = env.reset()
    assert obs in env.observation_space
    assert env.env_spec.exact_state
    assert env.env_spec.obs["state"].unit
    assert EnvSpec.from_json(env.env_spec.to_json()) == env.env_spec
    assert env.metadata["autoreset_mode"] == gymnasium.vector.AutoresetMode.SAME_STEP


@pytest.mark.parametrize("env_id", sorted(TASKS))
@pytest.mark.parametrize("threads", [1, 2])
def test_a_loaded_state_continues_bit_for_bit_in_a_new_env(env_id: str, threads: int) -> None:
    first = make_vec(env_id, num_envs=5, num_threads=2, seed=3, max_episode_steps=SHORT)
    first.reset()
    actions = _actions(first, 60)
    _roll(first, actions[:25])
    saved = copy.deepcopy(first.state_dict())
    wanted = _roll(first, actions[25:])
    second = make_vec(env_id, num_envs=5, num_threads=threads, seed=99, max_episode_steps=SHORT)
    second.load_state_dict(saved)
    assert _equal(_roll(second, actions[25:]), wanted)
    # and in one that has been somewhere else meanwhile
    first.load_state_dict(saved)
    assert _equal(_roll(first, actions[25:]), wanted)


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Humanoid-v5", "Reacher-v5"])
def test_results_do_not_depend_on_threads(env_id: str) -> None:
    rolls = []
    for threads in (1, 2, None):
        env = make_vec(env_id, num_envs=4, num_threads=threads, seed=5)
        env.reset()
        rolls.append(_roll(env, _actions(env, 30)))
    assert _equal(rolls[0], rolls[1])
    assert _equal(rolls[0], rolls[2])


@pytest.mark.parametrize("env_id", sorted(TASKS))
def test_episode_starts_depend_on_seed_and_index_alone(env_id: str) -> None:
    def starts(num_envs: int, seed: int | None) -> np.ndarray:
        env = make_vec(env_id, num_envs=num_envs, max_episode_steps=1, seed=7)
        obs, _ = env.reset(seed=seed)
        found = [obs["state"]]
        while len(np.concatenate(found)) < 12:
            found.append(env.step(np.zeros(env.action_space.shape, np.float32))[0]["state"])
        return np.concatenate(found)[:12]

    assert np.array_equal(starts(1, 4), starts(3, 4))
    assert np.array_equal(starts(4, 4), starts(12, 4))
    assert np.array_equal(starts(2, None), starts(6, 7)), "the first reset without a seed takes make_vec's"
    twelve = starts(12, 4)
    assert len(np.unique(twelve, axis=0)) == 12
    assert not np.array_equal(twelve, starts(12, 5))


def test_reset_without_a_seed_goes_on_with_the_next_episodes() -> None:
    env = make_vec("Hopper-v5", num_envs=2, seed=1)
    env.reset()
    third, _ = env.reset(), env.reset()
    named, _ = make_vec("Hopper-v5", num_envs=2, seed=1).reset(options={"episode": np.array([4, 5])})
    assert np.array_equal(env.reset(options={"episode": np.array([4, 5])})[0]["state"], named["state"])
    fresh = make_vec("Hopper-v5", num_envs=6, seed=1).reset()[0]["state"]
    assert np.array_equal(fresh[2:4], third[0]["state"])
    assert np.array_equal(fresh[4:6], named["state"])


def test_a_finished_row_shows_its_last_observation_and_starts_the_next_episode() -> None:
    env = make_vec("Hopper-v5", num_envs=8, seed=0, max_episode_steps=12)
    env.reset()
    lengths, ends = np.zeros(8, int), {"terminated": 0, "truncated": 0}
    for action in _actions(env, 120):
        obs, _, terminated, truncated, infos = env.step(action)
        lengths += 1
        done = terminated | truncated
        assert np.array_equal(truncated, lengths == 12)
        assert ("final_obs" in infos) == done.any() == ("_final_obs" in infos)
        if done.any():
            assert np.array_equal(infos["_final_obs"], done)
            final = infos["final_obs"]["state"]
            assert (final[terminated, 0] < 0.7).any() or (np.abs(final[terminated, 1]) > 0.2).any() or truncated.any()
            assert (np.abs(obs["state"][done, 0] - 1.25) < 0.01).all(), "the torso is where an episode starts"
        lengths[done] = 0
        ends["terminated"] += int(terminated.sum())
        ends["truncated"] += int(truncated.sum())
    assert ends["terminated"] > 5
    assert ends["truncated"] > 0


def test_without_copy_the_same_numbers_come_in_reused_arrays() -> None:
    kept, reused = (make_vec("Walker2d-v5", num_envs=4, copy=c, max_episode_steps=SHORT) for c in (True, False))
    actions = _actions(kept, 60)
    kept.reset(seed=0)
    reused.reset(seed=0)
    assert _equal(_roll(kept, actions), _roll(reused, actions))
    one, two = (kept.step(actions[0])[0]["state"] for _ in range(2))
    assert one is not two
    one, two = (reused.step(actions[0])[0]["state"] for _ in range(2))
    assert one is two


def test_a_diverging_simulation_is_reported_and_the_others_go_on() -> None:
    env: Any = make_vec("HalfCheetah-v5", num_envs=3)
    env.reset()
    env.batch.state[1, 12] = 1e12  # an absurd velocity
    _, _, _, _, infos = env.step(np.zeros((3, 6), np.float32))
    assert infos["simulation_warning"].tolist() == [False, True, False]
    obs, reward, _, _, infos = env.step(np.zeros((3, 6), np.float32))
    assert "simulation_warning" not in infos
    assert np.isfinite(obs["state"]).all()
    assert np.isfinite(reward).all()
    env.batch.state[2, 12] = 1e12
    assert env.step(np.zeros((3, 6), np.float32))[4]["simulation_warning"].tolist() == [False, False, True]


def test_an_error_inside_mujoco_names_the_task_and_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    env: Any = make_vec("Hopper-v5", num_envs=3)
    env.reset()

    def fail(nstep: int) -> None:
        raise SimulationError(np.array([2]), "stack overflow", 3)

    monkeypatch.setattr(env.batch, "step", fail)
    with pytest.raises(RobotRLError, match=r"Hopper-v5.*simulation 2: stack overflow"):
        env.step(np.zeros((3, 3), np.float32))


def test_arrays_of_a_batch_with_forces_outlive_it() -> None:
    env: Any = make_vec("Ant-v5", num_envs=2)
    env.reset(seed=0)
    rows, forces, wanted = env.batch.state, env.batch.forces, env.batch.state.copy()
    del env
    gc.collect()
    make_vec("Ant-v5", num_envs=2).reset(seed=1)
    assert np.array_equal(rows, wanted)
    assert not forces.any()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: make_vec("HalfCheeta-v5"), ["Unknown env 'HalfCheeta-v5'", "'HalfCheetah-v5'"]),
        (lambda: make_vec("Hopper-v5", healthy_zrange=(0, 1)), ["no option 'healthy_zrange'", "'healthy_z_range'"]),
        (lambda: make_vec("Hopper-v5", healthy_z_range=3.0), ["'healthy_z_range'", "2 numbers", "(0.7, inf)"]),
        (lambda: make_vec("Ant-v5", ctrl_cost_weight="high"), ["'ctrl_cost_weight'", "'high'", "a number"]),
        (lambda: make_vec("Ant-v5", frame_skip=0), ["'frame_skip'", "at least 1"]),
        (lambda: make_vec("Ant-v5", main_body="tail"), ["no body 'tail'", "torso"]),
        (lambda: make_vec("Ant-v5", include_cfrc_ext_in_observation=1), ["true or false"]),
        (lambda: make_vec("Ant-v5", xml_file="cat.xml"), ["no model at", "cat.xml"]),
        (lambda: make_vec("Ant-v5", num_envs=0), ["num_envs is 0"]),
        (lambda: make_vec("Ant-v5", num_threads=0), ["num_threads is 0"]),
        (lambda: make_vec("Ant-v5", seed=-1), ["seed is -1"]),
        (lambda: make_vec("Ant-v5", max_episode_steps=0), ["max_episode_steps is 0"]),
        (lambda: make_vec("Ant-v5").step(np.zeros((1, 8), np.float32)), ["reset()"]),
        (lambda: make_vec("Ant-v5").state_dict(), ["reset()"]),
    ],
)
def test_mistakes_are_told_in_a_sentence(call: Any, words: list[str]) -> None:
    with pytest.raises(RobotRLError) as error:
        call()
    for word in words:
        assert word in str(error.value)


def test_actions_of_another_shape_are_refused() -> None:
    env = make_vec("Hopper-v5", num_envs=4)
    env.reset()
    with pytest.raises(RobotRLError, match=r"\(4, 2\).*\(4, 3\)"):
        env.step(np.zeros((4, 2), np.float32))


@pytest.mark.parametrize("other", [{"num_envs": 3}, {"id": "Walker2d-v5"}])
def test_a_state_of_another_env_is_refused(other: dict[str, Any]) -> None:
    env = make_vec("Hopper-v5", num_envs=2)
    env.reset()
    with pytest.raises(RobotRLError, match="Make the env with the same id"):
        make_vec(other.pop("id", "Hopper-v5"), **{"num_envs": 2, **other}).load_state_dict(env.state_dict())


def test_a_model_of_ones_own_can_be_used(tmp_path: Any) -> None:
    source = TASKS["Hopper-v5"]().xml_file
    from robotrl.envs.native import model

    heavier = (model.ASSETS / source).read_text().replace('timestep="0.002"', 'timestep="0.001"')
    path = tmp_path / "hopper.xml"
    path.write_text(heavier)
    env = make_vec("Hopper-v5", xml_file=str(path))
    assert env.env_spec.control_hz == pytest.approx(250.0)


def test_episode_streams_give_what_episode_rng_gives() -> None:
    streams = EpisodeStreams(12345678901234567890123)
    for episode in (5, 0, 5, 2**40):
        want = episode_rng(12345678901234567890123, episode).normal(size=5)
        assert np.array_equal(streams.at(episode).normal(size=5), want)
    seeds = {episode_seed(seed, episode) for seed in range(20) for episode in range(50)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.skipif(not has_gl(), reason="no off-screen OpenGL")
@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Ant-v5", "Pusher-v5"])
def test_pictures_show_the_rows_asked_for_and_leave_the_simulation_alone(env_id: str) -> None:
    env, twin = (make_vec(env_id, num_envs=3, seed=2) for _ in range(2))
    for each in (env, twin):
        each.reset()
    actions = _actions(env, 20)
    _roll(env, actions[:10])
    _roll(twin, actions[:10])
    pictures = env.render_rows([2, 0], height=48, width=64)
    assert pictures.shape == (2, 48, 64, 3)
    assert pictures.dtype == np.uint8
    assert pictures.std() > 5
    assert not np.array_equal(pictures[0], pictures[1])
    assert np.array_equal(env.render_rows([0], height=48, width=64)[0], pictures[1])
    assert _equal(_roll(env, actions[10:]), _roll(twin, actions[10:]))
    with pytest.raises(RobotRLError, match="camera"):
        env.render_rows([0], height=48, width=64, camera="nowhere")
    env.close()
