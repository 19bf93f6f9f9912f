"""Forward and inverse kinematics against MuJoCo and against themselves."""

import mujoco
import numpy as np
import pytest

from robotrl.envs.tabletop.kinematics import (
    DOWN,
    Kinematics,
    Pose,
    matrix_of_quaternion,
    rotation_matrix,
    rotation_vector,
)
from robotrl.envs.tabletop.scene import Props, build_model, rest_posture


@pytest.fixture(scope="module")
def model():
    return build_model(Props())


@pytest.fixture(scope="module")
def arm(model):
    return Kinematics(model)


def postures(arm, count, seed=0):
    return np.random.default_rng(seed).uniform(arm.low, arm.high, (count, 7))


def test_poses_and_jacobians_are_mujocos(model, arm):
    data = mujoco.MjData(model)
    q = postures(arm, 50)
    pose, jacobian = arm.jacobian(q)
    tool = model.site("tcp").id
    for i in range(len(q)):
        data.qpos[:7] = q[i]
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        linear, angular = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        mujoco.mj_jacSite(model, data, linear, angular, tool)
        np.testing.assert_allclose(pose.pos[i], data.site_xpos[tool], atol=1e-12)
        np.testing.assert_allclose(pose.rot[i], data.site_xmat[tool].reshape(3, 3), atol=1e-12)
        np.testing.assert_allclose(jacobian[i], np.vstack([linear, angular])[:, :7], atol=1e-12)


def test_200_random_reachable_poses_are_found_within_the_joint_limits(arm):
    goal = arm.forward(postures(arm, 200))
    found = arm.solve(goal, np.tile(rest_posture(arm), (200, 1)))
    assert found.reached.all()
    assert found.position_error.max() < 1e-4 and found.rotation_error.max() < 1e-3
    assert (found.q >= arm.low).all() and (found.q <= arm.high).all()


def test_a_pose_out_of_reach_is_reported_and_the_nearest_posture_given(arm):
    goal = Pose(np.array([[1.5, 0.0, 0.3], [0.45, 0.1, 0.3]]), np.stack([DOWN, DOWN]))
    found = arm.solve(goal, np.tile(rest_posture(arm), (2, 1)), restarts=3)
    assert found.reached.tolist() == [False, True]
    assert np.isfinite(found.q).all()
    assert 0.4 < found.position_error[0] < 1.2  # the arm is stretched towards it


def test_a_row_does_not_depend_on_the_others(arm):
    q = postures(arm, 33)
    goal = arm.forward(postures(arm, 33, seed=1))
    rest, most = rest_posture(arm), np.full(7, 0.1)
    together = arm.step(q, goal, rest=rest, pull=0.02, most=most)
    for i in range(33):
        alone = arm.step(q[i : i + 1], Pose(goal.pos[i : i + 1], goal.rot[i : i + 1]), rest=rest, pull=0.02, most=most)
        assert np.array_equal(alone[0], together[i])


def test_rotation_vectors_and_matrices_are_each_others_inverse_up_to_half_a_turn():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(100, 3))
    vectors *= (rng.uniform(0, np.pi, 100) / np.linalg.norm(vectors, axis=1))[:, None]
    vectors[0] = 0.0
    same = np.tile(np.eye(3), (100, 1, 1))
    np.testing.assert_allclose(rotation_vector(rotation_matrix(vectors), same), vectors, atol=1e-7)
    half = rotation_matrix(np.array([[np.pi, 0.0, 0.0], [0.0, np.pi, 0.0]]))
    np.testing.assert_allclose(np.linalg.norm(rotation_vector(half, same[:2]), axis=1), np.pi, atol=1e-6)


def test_quaternions_are_read_as_mujoco_reads_them():
    quats = np.random.default_rng(0).normal(size=(20, 4))
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    expected = np.empty((20, 9))
    for quat, matrix in zip(quats, expected, strict=True):
        mujoco.mju_quat2Mat(matrix, quat)
    np.testing.assert_allclose(matrix_of_quaternion(quats), expected.reshape(20, 3, 3), atol=1e-12)
