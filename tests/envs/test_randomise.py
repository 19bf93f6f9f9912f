"""Randomised physics: what it changes, that MuJoCo agrees, and that a record replays it."""

from __future__ import annotations

import copy
import json
from typing import Any

import mujoco
import numpy as np
import pytest

from robotrl.envs import make_vec
from robotrl.envs.native.model import load_model
from robotrl.types import RobotRLError

N = 4
EVERYTHING = [
    {"field": "body_mass", "low": 0.8, "high": 1.2},
    {"field": "geom_friction", "distribution": "loguniform", "low": 0.5, "high": 2.0, "shared": True},
    {"field": "geom_size", "names": ["torso_geom"], "low": 0.95, "high": 1.05},
    {"field": "actuator_gain", "low": 0.9, "high": 1.1},
    {"field": "joint_damping", "low": 0.5, "high": 2.0},
    {"field": "joint_armature", "low": 0.5, "high": 2.0},
    {"field": "joint_frictionloss", "names": ["hip_1", "ankle_1"], "low": 0.0, "high": 0.3, "mode": "set"},
    {"field": "gravity", "distribution": "normal", "low": 9.0, "high": 10.6, "mode": "set"},
]


def _env(randomise: Any, env_id: str = "Ant-v5", num_envs: int = N, **options: Any) -> Any:
    env = make_vec(env_id, num_envs=num_envs, num_threads=2, randomise=randomise, **options)
    env.reset(seed=0)
    return env


def _states(env: Any, steps: int = 30, seed: int = 0) -> np.ndarray:
    rng, shape = np.random.default_rng(seed), env.action_space.shape
    out = []
    for _ in range(steps):
        obs, reward, *_ = env.step(rng.uniform(-1, 1, shape).astype(np.float32))
        out.append(np.concatenate([obs["state"], reward[:, None]], axis=1))
    return np.stack(out)


def _alone(env: Any, row: int, change: Any, steps: int = 10) -> None:
    """Row `row` moves exactly as a single MjData of a model that `change` was applied to."""
    model = load_model(env.task.xml_file)
    data = mujoco.MjData(model)
    change(model)
    mujoco.mj_setConst(model, data)
    mujoco.mj_resetData(model, data)
    data.qpos[:], data.qvel[:] = env.task.qpos[row], env.task.qvel[row]
    rng = np.random.default_rng(1)
    for _ in range(steps):
        actions = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        env.step(actions)
        data.ctrl[:] = actions[row]
        mujoco.mj_step(model, data, env.task.frame_skip)
        assert data.qpos.tobytes() == env.task.qpos[row].tobytes()
        assert data.qvel.tobytes() == env.task.qvel[row].tobytes()


def test_a_heavier_body_moves_as_a_model_with_that_mass_to_the_bit() -> None:
    term = {"field": "body_mass", "names": ["torso"], "low": 1.5, "high": 3.0}
    env, plain = _env([term], "Hopper-v5"), _env(None, "Hopper-v5")
    masses = env.randomisation["body_mass/torso"]
    original = load_model("hopper.xml").body("torso").mass[0]
    assert (masses > 1.5 * original).all()
    assert len(set(masses)) == N

    def change(model: mujoco.MjModel) -> None:
        model.body("torso").inertia[:] *= masses[2] / model.body("torso").mass[0]
        model.body("torso").mass[:] = masses[2]

    _alone(env, 2, change)
    env.reset(seed=0)
    assert not np.array_equal(_states(env), _states(plain))


def _gravity(model: mujoco.MjModel, value: float) -> None:
    model.opt.gravity[:] = model.opt.gravity * (value / np.linalg.norm(model.opt.gravity))


CHANGES = [
    ("geom_friction", "floor", 1.7, lambda m, v: m.geom_friction.__setitem__((m.geom("floor").id, 0), v)),
    ("geom_size", "left_ankle_geom", 1.2, lambda m, v: m.geom("left_ankle_geom").size.__imul__(v)),
    ("actuator_gain", "#2", 0.6, lambda m, v: m.actuator_gainprm.__setitem__((2, 0), v)),
    ("joint_damping", "hip_1", 4.0, lambda m, v: m.joint("hip_1").damping.__setitem__(0, v)),
    ("joint_armature", "hip_1", 2.0, lambda m, v: m.joint("hip_1").armature.__setitem__(0, v)),
    ("joint_frictionloss", "hip_1", 3.0, lambda m, v: m.joint("hip_1").frictionloss.__setitem__(0, v)),
    ("gravity", "", 4.0, _gravity),
]


@pytest.mark.parametrize(("field", "name", "value", "change"), CHANGES, ids=[c[0] for c in CHANGES])
def test_every_field_moves_as_a_model_with_that_value_to_the_bit(
    field: str, name: str, value: float, change: Any
) -> None:
    key = f"{field}/{name}" if name else field
    env = _env({"record": {key: [value] * N}})
    _alone(env, 1, lambda model: change(model, value))
    plain = _env(None)
    env.reset(seed=0)
    assert not np.array_equal(_states(env), _states(plain))


def test_sizes_take_their_bounding_volumes_with_them() -> None:
    env = _env({"record": {"geom_size/torso1": np.full(N, 1.5), "geom_size/head": np.full(N, 0.7)}}, "Humanoid-v5")
    ours, before = env.batch.get_model(1), load_model("humanoid.xml")
    for name, factor in (("torso1", 1.5), ("head", 0.7)):
        i = before.geom(name).id
        assert ours.geom_rbound[i] == pytest.approx(factor * before.geom_rbound[i], rel=1e-12)
        assert ours.geom_aabb[i, 3:] == pytest.approx(factor * before.geom_aabb[i, 3:], rel=1e-12)
    assert not np.array_equal(ours.bvh_aabb, before.bvh_aabb)


def test_a_centre_of_mass_reward_uses_the_randomised_masses() -> None:
    masses = np.tile(load_model("humanoid.xml").body_mass, (N, 1))
    masses[:, load_model("humanoid.xml").body("right_shin").id] = heavy = np.array([1.0, 40.0, 2.0, 20.0])
    env = _env({"record": {"body_mass/right_shin": heavy}}, "Humanoid-v5")
    want = (masses[..., None] * env.task.xipos).sum(1) / masses.sum(1)[:, None]
    assert env.task.xy == pytest.approx(want[:, :2], abs=1e-12)


def test_a_record_replays_the_same_dynamics_and_is_json() -> None:
    env = _env({"terms": EVERYTHING, "every": "run"})
    record = json.loads(json.dumps({name: values.tolist() for name, values in env.randomisation.items()}))
    assert "body_mass/torso" in record
    assert "actuator_gain/#0" in record
    assert len(set(record["geom_friction/floor"])) == N
    replay = _env({"record": record})
    assert np.array_equal(_states(env), _states(replay))
    assert {k: v.tolist() for k, v in replay.randomisation.items()} == record


def test_draws_depend_on_seed_and_episode_alone() -> None:
    terms = [{"field": "body_mass", "low": 0.5, "high": 1.5}, {"field": "gravity", "low": 0.9, "high": 1.1}]
    two, six = _env(terms, num_envs=2), _env(terms, num_envs=6)
    drawn = [two.randomisation["gravity"]]
    for _ in range(2):
        two.reset()
        drawn.append(two.randomisation["gravity"])
    assert np.array_equal(np.concatenate(drawn), six.randomisation["gravity"])
    assert len(set(six.randomisation["gravity"])) == 6
    six.reset(seed=1)
    assert not set(six.randomisation["gravity"]) & set(np.concatenate(drawn))


def test_start_states_are_the_same_with_and_without() -> None:
    env, plain = _env([{"field": "body_mass", "low": 0.5, "high": 1.5}], "Hopper-v5"), _env(None, "Hopper-v5")
    assert np.array_equal(env.task.qpos, plain.task.qpos)


def test_every_episode_draws_anew_and_every_run_does_not() -> None:
    term = {"field": "joint_damping", "low": 0.5, "high": 2.0}
    for every, changes in (("episode", True), ("run", False)):
        env = _env({"terms": [term], "every": every}, "HalfCheetah-v5", max_episode_steps=3)
        before = env.randomisation["joint_damping/bfoot"]
        _states(env, 3)
        assert np.array_equal(before, env.randomisation["joint_damping/bfoot"]) != changes
        env.reset(seed=0)
        assert np.array_equal(before, env.randomisation["joint_damping/bfoot"])


@pytest.mark.parametrize("every", ["episode", "run"])
def test_a_state_with_randomised_physics_continues_bit_for_bit(every: str) -> None:
    config = {"terms": EVERYTHING, "every": every}
    env = _env(config, max_episode_steps=12)
    _states(env, 30)
    saved = copy.deepcopy(env.state_dict())
    wanted = _states(env, 30, seed=1)
    fresh = make_vec("Ant-v5", num_envs=N, num_threads=1, seed=9, randomise=config, max_episode_steps=12)
    fresh.load_state_dict(saved)
    assert np.array_equal(_states(fresh, 30, seed=1), wanted)
    with pytest.raises(RobotRLError, match="this env has none"):
        make_vec("Ant-v5", num_envs=N).load_state_dict(saved)


def test_normal_draws_stay_within_their_bounds_around_the_middle() -> None:
    env = _env([{"field": "gravity", "distribution": "normal", "low": 8, "high": 12, "mode": "set"}], num_envs=400)
    values = env.randomisation["gravity"]
    assert values.min() >= 8
    assert values.max() <= 12
    assert values.mean() == pytest.approx(10, abs=0.2)
    assert 0.8 < values.std() < 1.1


TORSO = {"field": "body_mass", "names": ["torso"], "low": 0.9, "high": 1.1}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ([{**TORSO, "field": "body_mas"}], ["'body_mas' cannot be randomised", "'body_mass'"]),
        ([{**TORSO, "names": ["torzo"]}], ["no body 'torzo'", "'torso'"]),
        ([{**TORSO, "mode": "multiply"}], ["'multiply'", "scale, add, set"]),
        ([{**TORSO, "distribution": "gauss"}], ["'gauss'", "uniform, loguniform, normal"]),
        ([{**TORSO, "loww": 1}], ["no key 'loww'", "'low'"]),
        ([{"field": "gravity", "low": 1}], ["lacks 'high'"]),
        ([{**TORSO, "low": 2}], ["low must not exceed high"]),
        ([{**TORSO, "low": -2}], ["body_mass/torso would become", "above 0"]),
        ([{**TORSO, "low": "light"}], ["'light'", "finite number"]),
        ([{**TORSO, "low": 0, "distribution": "loguniform"}], ["loguniform needs positive"]),
        ([TORSO, TORSO], ["'body_mass/torso' is randomised by two terms"]),
        ([{**TORSO, "field": "geom_size", "names": ["floor"]}], ["geom_size/floor cannot be randomised"]),
        ([{"field": "joint_frictionloss", "low": 1, "high": 2}], ["zero everywhere", "Name each joint"]),
        ("heavy", ["must be a list of terms"]),
        ({"terms": [TORSO], "often": "run"}, ["no key 'often'"]),
        ({"terms": [TORSO], "every": "day"}, ["'day'", "'episode' or 'run'"]),
        ({"record": {"body_mass/torso": [1.0]}}, ["(1,) values", "4 simulations"]),
        ({"record": {"body_mass/torso": [1.0, 2.0, float("nan"), 1.0]}}, ["body_mass/torso would become"]),
    ],
)
def test_mistakes_are_told_in_a_sentence(config: Any, words: list[str]) -> None:
    with pytest.raises(RobotRLError) as error:
        _env(config)
    for word in words:
        assert word in str(error.value)
