"""Is it a place a roboticist believes in? What rests stays, what is held is held, nothing passes through anything."""

import mujoco
import numpy as np
import pytest
import torch

from robotrl.envs import make_vec
from robotrl.envs.tabletop.experts import Expert
from robotrl.envs.tabletop.scene import Props, build_model
from robotrl.envs.tabletop.tasks import TASKS
from robotrl.types import RobotRLError

SHUT, OPEN = 0.0, 1.0


def make(task, num_envs=4, **options):
    return make_vec(
        f"tabletop/{task}", num_envs=num_envs, terminate_on_success=False, max_episode_steps=None, **options
    )


def hold(env, steps, grip):
    actions = np.zeros((env.num_envs, 7), np.float32)
    actions[:, 6] = grip
    for _ in range(steps):
        result = env.step(actions)
    return result


def look(env):
    return env._reader.read(slice(None), env.layout)


def holding(seed=1):
    """An env whose arms hold their blocks up."""
    env = make("pick", 4)
    expert = Expert(None, env.env_spec)
    obs, _ = env.reset(seed=seed)
    state = expert.initial_state(4)
    for _ in range(80):
        action, _, state = expert.act({k: torch.as_tensor(v) for k, v in obs.items()}, state, explore=False)
        obs, _, _, _, infos = env.step(action.numpy())
    assert infos["success"].all()
    return env


def in_hand(env):
    """Where the block is in the tool's frame, m."""
    s = look(env)
    return (s.tool_rot.transpose(0, 2, 1) @ (s.objects[:, 0] - s.tool)[..., None])[..., 0]


@pytest.mark.parametrize("task", ["stack", "insert", "sort", "store", "place"])
def test_what_rests_neither_drifts_nor_jitters(task):
    env = make(task)
    env.reset(seed=0)
    hold(env, 10, OPEN)
    before = look(env)
    fastest = 0.0
    for _ in range(40):
        hold(env, 1, OPEN)
        now = look(env)
        fastest = max(fastest, np.abs(now.speeds).max(), np.abs(now.part_speeds).max())
    assert np.abs(now.objects - before.objects).max() < 1e-4
    assert np.abs(now.parts - before.parts).max() < 1e-4
    assert np.abs(now.fixture - before.fixture).max() < 1e-4
    assert fastest < 1e-3


def test_the_arm_stays_where_it_is_told_with_and_without_a_load():
    env = holding()
    hold(env, 20, SHUT)
    before = look(env).tool
    hold(env, 60, SHUT)
    assert np.abs(look(env).tool - before).max() < 1e-4
    assert np.abs(look(env).tool - env.controller.pos).max() < 1e-3


def test_a_grasp_holds_by_friction_alone():
    env = holding()
    start = in_hand(env)
    hold(env, 100, SHUT)
    assert np.linalg.norm(in_hand(env) - start, axis=1).max() < 0.001


def test_a_grasp_survives_shaking_at_6_m_per_s2():
    env = holding()
    start = in_hand(env)
    action = np.zeros((4, 7), np.float32)
    for k in range(60):
        action[:, 1], action[:, 2] = 0.025 * np.sin(0.6 * k), 0.015 * np.cos(0.9 * k)
        env.step(action)
    assert np.linalg.norm(in_hand(env) - start, axis=1).max() < 0.006


def test_an_open_gripper_lets_go():
    env = holding()
    hold(env, 30, OPEN)
    np.testing.assert_allclose(look(env).objects[:, 0, 2], 0.02, atol=1e-3)


def test_a_block_that_the_arm_presses_down_with_all_its_force_stays_on_the_table():
    env = make("pick")
    env.reset(seed=2)
    deepest = 0.0
    for k in range(50):
        s = look(env)
        wanted = s.objects[:, 0] + np.array([0.0, 0.0, 0.1 if k < 25 else 0.0])
        actions = np.zeros((4, 7), np.float32)
        actions[:, :3] = np.clip(wanted - env.controller.pos, -0.025, 0.025)
        env.step(actions)
        deepest = min(deepest, (look(env).objects[..., 2] - 0.02).min())
    assert deepest > -0.0015
    assert np.abs(look(env).objects).max() < 1.0


def test_fingers_driven_into_fixtures_do_not_pass_through():
    env = make("store", 4)
    env.reset(seed=3)
    top = np.column_stack([env.layouts["fixture/x"] + 0.1, env.layouts["fixture/y"], np.full(4, 0.2)])
    for goal_height in (0.2, 0.02):
        for _ in range(30):
            actions = np.zeros((4, 7), np.float32)
            top[:, 2] = goal_height
            actions[:, :3] = np.clip(top - env.controller.pos, -0.02, 0.02)
            env.step(actions)
    # the cabinet's top is 9.5 cm high, the finger tips are 9 mm below the tool's point
    assert look(env).tool[:, 2].min() - 0.009 > 0.09


def test_a_falling_block_never_gains_energy():
    model = build_model(Props(blocks=1))
    data = mujoco.MjData(model)
    block = model.joint("object0/free")
    at, vel = block.qposadr[0], block.dofadr[0]
    data.qpos[at : at + 7] = [0.5, 0.2, 0.15, 0.9, 0.3, 0.2, 0.1]
    data.qpos[at + 3 : at + 7] /= np.linalg.norm(data.qpos[at + 3 : at + 7])
    mass, inertia = model.body("object0/block").mass[0], model.body("object0/block").inertia
    energies = []
    for _ in range(600):
        mujoco.mj_step(model, data)
        if data.ncon:
            continue  # what a contact's spring holds for a moment is not counted
        v, w = data.qvel[vel : vel + 3], data.qvel[vel + 3 : vel + 6]
        energies.append(mass * (9.81 * data.qpos[at + 2] + 0.5 * v @ v) + 0.5 * (inertia * w) @ w)
    energies = np.array(energies)
    assert len(energies) > 70  # it falls, and bounces
    assert np.diff(energies).max() < 1e-4 * energies[0]
    assert data.qpos[at + 2] < 0.021 and np.abs(data.qvel[vel : vel + 6]).max() < 1e-3


def test_joint_limits_hold_against_the_servos():
    env = make("reach", 4, control="joint")
    env.reset(seed=0)
    space, rng = env.action_space, np.random.default_rng(0)
    for _ in range(6):
        corner = np.where(rng.random(space.shape) < 0.5, space.low, space.high).astype(np.float32)
        corner[:, 1], corner[:, 3] = -1.0, -1.5  # upright, clear of the table
        for _ in range(15):
            env.step(corner)
            q = env.batch.bind("qpos")[:, :7]
            assert (q > env.kinematics.low - 0.02).all() and (q < env.kinematics.high + 0.02).all()


@pytest.mark.parametrize("task", TASKS)
def test_wild_actions_break_nothing(task):
    env = make(task, 3)
    env.reset(seed=0)
    space, rng = env.action_space, np.random.default_rng(0)
    for _ in range(25):
        actions = np.where(rng.random(space.shape) < 0.5, space.low, space.high).astype(np.float32)
        for _ in range(2):
            obs, *_ = env.step(actions)
    assert all(np.isfinite(value).all() for value in obs.values())
    assert np.abs(look(env).objects[..., 2]).max() < 0.7 and look(env).objects[..., 2].min() > -0.002


@pytest.mark.parametrize("ends", [True, False])
def test_an_object_that_flies_off_ends_its_episode_as_a_failure(ends):
    env = make_vec("tabletop/pick", num_envs=3, terminate_on_success=ends)
    env.reset(seed=0)
    env.batch.bind("qpos")[1, env.addresses.object_q[0]] = 7.0
    _, reward, terminated, truncated, infos = hold(env, 1, OPEN)
    assert terminated.tolist() == infos["lost"].tolist() == [False, True, False]
    assert not truncated.any() and not infos["success"].any() and not reward.any()
    *_, terminated, _, infos = hold(env, 1, OPEN)
    assert not terminated.any() and not infos["lost"].any()  # the next episode has begun


def test_an_object_that_is_nowhere_is_an_error():
    env = make("pick", 3)
    env.reset(seed=0)
    env.batch.bind("qpos")[1, env.addresses.object_q[0]] = np.nan
    with pytest.raises(RobotRLError, match=r"row 1.*not finite"):
        hold(env, 1, OPEN)


def test_memory_that_runs_full_is_an_error_and_not_wrong_physics():
    env = make("pick", 2, memory=16_000)
    env.reset(seed=0)
    with pytest.raises(RobotRLError, match=r"memory|cannot simulate"):
        hold(env, 5, OPEN)
