"""What an action does to the simulated arm."""

import numpy as np
import pytest

from robotrl.envs import make_vec
from robotrl.envs.tabletop.kinematics import DOWN, Pose, about_z, length, rotation_matrix, rotation_vector
from robotrl.envs.tabletop.observation import STATE, part
from robotrl.types import RobotRLError


def make(num_envs, **options):
    return make_vec("tabletop/press", num_envs=num_envs, terminate_on_success=False, **options)


def tool(env):
    return env.kinematics.forward(env.batch.bind("qpos")[:, :7])


def test_the_arm_goes_to_200_random_poses_within_2_mm_and_1_degree():
    env = make(200, control="pose", max_episode_steps=None)
    rng = np.random.default_rng(0)
    # poses a task may ask for: over the table, pointing down give or take 30 degrees, turned by up to 70
    pos = rng.uniform([0.32, -0.35, 0.18], [0.62, 0.35, 0.5], (240, 3))
    tilt = rotation_matrix(np.column_stack([rng.uniform(-0.5, 0.5, (240, 2)), np.zeros(240)]))
    rot = tilt @ about_z(rng.uniform(-1.2, 1.2, 240))
    start = np.tile(env.controller.q[0], (240, 1))
    reachable = np.flatnonzero(env.kinematics.solve(Pose(pos, rot @ DOWN), start).reached)
    assert len(reachable) > 200
    pos, rot = pos[reachable[:200]], rot[reachable[:200]]
    still = np.tile(np.eye(3), (200, 1, 1))
    actions = np.column_stack([pos, rotation_vector(rot, still), np.ones(200)]).astype(np.float32)
    env.reset(seed=0)
    for _ in range(70):
        _, _, _, _, infos = env.step(actions)
    pose = tool(env)
    assert length(pose.pos - pos).max() < 0.002
    assert length(rotation_vector(rot @ DOWN, pose.rot)).max() < np.deg2rad(1)
    assert not infos["unreachable"].any() and not infos["clipped"].any()


def test_a_pose_out_of_reach_is_refused_and_the_arm_comes_back_from_it():
    env = make(2, control="pose", max_episode_steps=None)
    env.reset(seed=0)
    far = np.array([[0.75, 0.45, 0.6, 0, 0, 0, 1], [0.45, 0.0, 0.3, 0, 0, 0, 1]], np.float32)
    seen = np.zeros(2, bool)
    for _ in range(60):
        obs, _, _, _, infos = env.step(far)
        seen |= infos["unreachable"]
        assert all(np.isfinite(value).all() for value in obs.values())
    assert seen.tolist() == [True, False]
    q = env.batch.bind("qpos")[:, :7]
    assert (q > env.kinematics.low - 0.01).all() and (q < env.kinematics.high + 0.01).all()
    back = np.tile(far[1], (2, 1))
    for _ in range(60):
        env.step(back)
    assert length(tool(env).pos - back[:, :3]).max() < 0.002


def test_delta_moves_along_the_worlds_axes_by_metres_and_zero_holds_still():
    env = make(3, max_episode_steps=None)
    env.reset(seed=0)
    start = env.controller.pos.copy()
    actions = np.zeros((3, 7), np.float32)
    actions[:, :3] = 0.01 * np.eye(3)
    for _ in range(5):
        env.step(actions)
    for _ in range(20):
        env.step(np.zeros((3, 7), np.float32))
    np.testing.assert_allclose(tool(env).pos - start, 0.05 * np.eye(3), atol=1e-3)
    held = tool(env).pos
    for _ in range(60):
        env.step(np.zeros((3, 7), np.float32))
    assert np.abs(tool(env).pos - held).max() < 1e-4


def test_joint_commands_beyond_the_limits_are_clipped_counted_and_never_exceeded():
    env = make(2, control="joint", max_episode_steps=None)
    env.reset(seed=0)
    actions = np.zeros((2, 8), np.float32)
    actions[0] = [9, -9, 9, 9, -9, 9, 9, 2]
    actions[1] = [*env.controller.q[1], 0.5]
    for _ in range(40):
        obs, _, _, _, infos = env.step(actions)
        q = part(obs["state"], STATE, "joint_position")
        assert (q > env.kinematics.low - 0.02).all() and (q < env.kinematics.high + 0.02).all()
    assert infos["clipped"].tolist() == [8, 0]


def test_no_joint_is_commanded_faster_than_its_limit():
    env = make(4, control="joint", max_episode_steps=None)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    space = env.action_space
    for _ in range(20):
        before = env.controller.q.copy()
        env.step(rng.uniform(space.low, space.high).astype(np.float32))
        assert (np.abs(env.controller.q - before) <= np.array([2.175] * 4 + [2.61] * 3) / 20 + 1e-9).all()


def test_the_gripper_opens_and_closes_all_the_way():
    env = make(1, max_episode_steps=None)
    env.reset(seed=0)
    for wanted in (0.0, 1.0):
        action = np.array([[0, 0, 0, 0, 0, 0, wanted]], np.float32)
        for _ in range(25):
            obs, *_ = env.step(action)
        assert part(obs["state"], STATE, "opening")[0, 0] == pytest.approx(0.08 * wanted, abs=1e-3)


@pytest.mark.parametrize(
    ("actions", "says"),
    [
        (np.zeros((2, 6), np.float32), r"Actions have shape \(2, 6\)"),
        (np.full((2, 7), np.nan, np.float32), "not finite"),
    ],
)
def test_an_action_of_another_shape_or_not_finite_is_refused(actions, says):
    env = make(2)
    env.reset(seed=0)
    with pytest.raises(RobotRLError, match=says):
        env.step(actions)


def test_an_unknown_way_of_control_names_the_nearest():
    with pytest.raises(RobotRLError, match="Did you mean 'joint'"):
        make(1, control="joints")
