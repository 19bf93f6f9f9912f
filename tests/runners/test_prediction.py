"""Open-loop prediction: what a world model imagines beside what happened."""

import json
from typing import ClassVar

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from robotrl.analysis.predictions import predict_saved, prediction_sheet
from robotrl.policies.io import save_policy
from robotrl.policies.world_model import load_world_model
from robotrl.runners.prediction import predict
from robotrl.types import RobotRLError, beside
from tests import envs_for_tests as envs
from tests.learners.cases import make

CONTEXT, HORIZON = 2, 3


def parts_of(env):
    return make("dreamer", env)


def found_for(env, **more):
    learner = parts_of(env).learner
    more = {"episodes": env.num_envs, "windows": 2, "context": CONTEXT, "horizon": HORIZON} | more
    return predict(learner.policy, learner.model, env, **more)


def test_a_saved_world_model_decodes_as_the_trained_one_and_keeps_its_discount(tmp_path):
    learner = parts_of(envs.Clock(num_envs=2, length=8)).learner
    learner.model.going_on.gamma = 0.9
    save_policy(learner.policy, tmp_path, beside=beside(learner))
    policy, model = load_world_model(tmp_path)
    features = torch.randn(3, policy.perception.size.features)
    for name, value in learner.model.decode(features).items():
        assert torch.equal(value, model.decode(features)[name])
    assert torch.equal(learner.model.reward.mean(features), model.reward.mean(features))
    assert model.going_on.gamma == pytest.approx(0.9)


def test_a_policy_saved_without_its_world_model_says_so(tmp_path):
    save_policy(parts_of(envs.Clock(num_envs=2, length=8)).learner.policy, tmp_path)
    with pytest.raises(RobotRLError, match=r"no world_model\.safetensors beside the policy"):
        load_world_model(tmp_path)


def test_a_policy_without_a_world_model_is_refused(tmp_path):
    save_policy(make("ppo", envs.Target(num_envs=2)).learner.policy, tmp_path)
    with pytest.raises(RobotRLError, match="no world model that could imagine"):
        load_world_model(tmp_path)


def test_copying_is_off_by_what_the_observation_moved():
    found = found_for(envs.Clock(num_envs=2, length=8))
    seen = found.seen["state"]
    assert seen.shape[:2] == (CONTEXT + HORIZON, 2)
    moved = found.copy["state"]
    assert moved.shape == (2, HORIZON)
    assert (np.diff(moved, axis=1) > 0).all(), "a clock is further from where it stood, the later it is"
    assert found.windows == 4


def test_a_model_that_decodes_the_truth_has_no_error():
    env = envs.Clock(num_envs=2, length=8)
    learner = parts_of(env).learner
    words = {"episodes": 2, "windows": 1, "context": CONTEXT, "horizon": HORIZON}
    truth = iter(np.moveaxis(predict(learner.policy, learner.model, env, **words).seen["state"], 1, 0))
    learner.model.decode = lambda _: {"state": torch.as_tensor(next(truth))[:, None]}
    found = predict(learner.policy, learner.model, env, **words)
    assert (found.model["state"] == 0).all()
    assert (found.copy["state"] > 0).all()


def test_the_model_follows_an_episode_from_its_start_to_the_moment_it_looks_ahead_from():
    env = envs.Clock(num_envs=2, length=8)
    learner, followed = parts_of(env).learner, []
    observe = learner.model.observe

    def recorded(obs, before, first, state):
        followed.append((first, observe(obs, before, first, state)))
        return followed[-1][1]

    learner.model.observe = recorded
    words = {"episodes": 2, "windows": 2, "context": CONTEXT, "horizon": HORIZON}
    found = predict(learner.policy, learner.model, env, **words)
    at = slice(8 - HORIZON - CONTEXT, 8 - HORIZON)
    assert len(followed) == 2
    for i, (first, states) in enumerate(followed):
        assert first[:, 0].tolist() == [True] + [False] * 7
        assert np.array_equal(found.latents["deter"][:CONTEXT, i], states.deter[at, 0])


def test_no_episode_that_is_long_enough_is_told():
    with pytest.raises(RobotRLError, match="No episode is long enough to look 30 steps ahead"):
        found_for(envs.Clock(num_envs=2, length=8), horizon=30)


class Picture(envs.SpotContinuous):
    """A picture of a size that the model can take."""

    groups: ClassVar = {"image/front": Box(0, 255, (3, 32, 32), np.uint8), "state": Box(-1.0, 1.0, (1,), np.float32)}

    def observe(self, now, step):
        seen = super().observe(now, step)
        return {**seen, "image/front": seen["image/front"].repeat(3, 1).repeat(3, 2).repeat(3, 3)[..., :32, :32]}


@pytest.mark.parametrize(
    "env", [envs.Clock(num_envs=2, length=8), Picture(num_envs=2, length=8)], ids=["numbers", "picture"]
)
def test_the_sheet_is_a_picture_with_errors_and_states_beside_it(env, tmp_path):
    found = found_for(env)
    sheet = prediction_sheet(found, tmp_path / "sheet.png")
    numbers, arrays = found.save(sheet)
    assert sheet.stat().st_size > 10_000
    assert json.loads(numbers.read_text())["horizon"] == HORIZON
    with np.load(arrays) as kept:
        assert {"latent/deter", "latent/stoch"} < set(kept.files)
    assert "3 steps ahead" in str(found)


def test_a_sheet_that_is_no_picture_is_refused(tmp_path):
    with pytest.raises(RobotRLError, match="is a picture"):
        predict_saved(tmp_path, None, tmp_path / "sheet.mp4")
