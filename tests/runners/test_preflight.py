"""A policy, an env and a data set that do not belong together are told apart, with what differs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from robotrl.data.dataset import Dataset
from robotrl.data.schema import Schema
from robotrl.data.writer import DatasetWriter
from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.policies.lerobot_config import LeRobotConfig
from robotrl.runners.preflight import preflight
from robotrl.types import ActionSpec, ArraySpec, RobotRLError
from tests.data.made import dataset, episode, spec
from tests.policies.lerobot_made import SMALL

ENV = spec("front", "wrist")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "made"
    dataset(root, 12, "front", "wrist")
    return root


def numbers(root):
    columns = Dataset(root).read(["obs/state", "action"])
    return {key: torch.as_tensor(value) for key, value in columns.items()}


@pytest.fixture(scope="module", params=["mlp", "lerobot"])
def policy(request, data):
    """One of ours and one of LeRobot's, fitted to the data."""
    rows = numbers(data)
    if request.param == "lerobot":
        pytest.importorskip("lerobot")
        config = PolicyConfig(kind="lerobot", lerobot=LeRobotConfig(type="act", settings=SMALL["act"]))
        policy = build_policy(config, ENV)
        policy.fit({key: value.unsqueeze(0) for key, value in rows.items()})
        return policy
    policy = build_policy(PolicyConfig(kind="mlp", hidden=[4], groups=["state"]), ENV)
    policy.inputs.normaliser.merge(*policy.inputs.moments({"state": rows["obs/state"]}))
    return policy


def test_what_belongs_together_passes_and_says_what_was_compared(policy, data):
    before = {key: value.clone() for key, value in policy.state_dict().items()}
    lines = preflight(policy, env=ENV, data=data)
    assert len(lines) == 5
    assert any("frame rate" in line for line in lines)
    assert all(torch.equal(before[key], value) for key, value in policy.state_dict().items())


def changed(data, root, change, env=ENV):
    """The same episodes with other numbers."""
    with DatasetWriter(root, Schema.from_env(env), env=env) as writer:
        for number in range(12):
            one = episode(number, env)
            change(one.steps)
            writer.save_all([one])
    return root


def another_unit(steps):
    steps["obs/state"] = steps["obs/state"] * np.float32(57.3)


def test_numbers_in_another_unit_are_named(policy, data, tmp_path):
    other = changed(data, tmp_path / "degrees", another_unit)
    with pytest.raises(RobotRLError, match=r"not normalised like the policy: .*number \d of|goes from") as error:
        preflight(policy, env=ENV, data=other)
    assert "another order of features" in str(error.value) or "another order of" in str(error.value)


def test_another_order_of_numbers_shows_in_their_statistics(data, tmp_path):
    def order(steps):
        steps["obs/state"] = steps["obs/state"] * 0.1 + np.array([0, 5, -5], np.float32)

    def other_order(steps):
        order(steps)
        steps["obs/state"] = np.ascontiguousarray(steps["obs/state"][:, ::-1])

    rows = numbers(changed(data, tmp_path / "a", order))
    policy = build_policy(PolicyConfig(kind="mlp", hidden=[4], groups=["state"]), ENV)
    policy.inputs.normaliser.merge(*policy.inputs.moments({"state": rows["obs/state"]}))
    with pytest.raises(RobotRLError, match=r"number 0 of its inputs .* another order of features"):
        preflight(policy, data=changed(data, tmp_path / "b", other_order))


def test_another_scaling_of_actions_and_another_frame_rate_are_named(policy, data, tmp_path):
    other = replace(ENV, action=ActionSpec("continuous", (2,), (-10.0, 0.0), (10.0, 20.0)), control_hz=10.0)
    root = tmp_path / "other"
    dataset(root, 2, env=other)
    with pytest.raises(RobotRLError, match=r"recorded at 10 steps a second.*another scaling"):
        preflight(policy, data=root)


def test_an_env_without_a_camera_or_with_larger_pictures_is_named(data):
    pytest.importorskip("lerobot")
    config = PolicyConfig(kind="lerobot", lerobot=LeRobotConfig(type="act", settings=SMALL["act"]))
    policy = build_policy(config, ENV)
    with pytest.raises(RobotRLError, match="reads the observation group 'image/wrist', the env has"):
        preflight(policy, env=spec("front"))
    larger = replace(ENV, obs=ENV.obs | {"image/front": ArraySpec((3, 64, 64), "uint8")})
    with pytest.raises(RobotRLError, match=r"reads the group 'image/front' as uint8\[3, 32, 32\], the env gives uint8"):
        preflight(policy, env=larger)
    two = data.parent / "front-only"
    dataset(two, 2, "front")
    with pytest.raises(RobotRLError) as error:
        preflight(policy, env=spec("front"), data=two)
    policy_and_env, policy_and_data = str(error.value).splitlines()
    assert "the env has" in policy_and_env
    assert "has no 'observation.images.wrist', which the policy reads" in policy_and_data
