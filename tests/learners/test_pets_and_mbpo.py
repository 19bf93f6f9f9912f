"""What PETS and MBPO refuse, and how MBPO imagines."""

import math

import pytest
import torch

from robotrl.learners.mbpo import MBPOConfig
from robotrl.learners.pets import PETSConfig
from robotrl.learners.sac import SACConfig
from robotrl.policies.config import PlannerConfig
from robotrl.types import RobotRLError
from tests import envs_for_tests as envs
from tests.learners.cases import make


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (PETSConfig, {"learning_rate": 0.0}, "learner.learning_rate is 0.0; it must be greater than 0"),
        (PETSConfig, {"learning_rate": math.nan}, "learner.learning_rate is nan"),
        (PETSConfig, {"batch_size": 0}, "learner.batch_size is 0; it must be at least 1"),
        (MBPOConfig, {"real_share": 1.0}, r"learner.real_share is 1.0; it must lie in \[0, 1\)"),
        (MBPOConfig, {"models": 0}, "learner.models is 0"),
        (
            MBPOConfig,
            {"rollout_length": 3, "final_rollout_length": 2},
            "final_rollout_length is 2; it must be at least",
        ),
        (MBPOConfig, {"rollout_growth": [5, 1]}, "rollout_growth is .*two numbers of env steps, first and last"),
        (MBPOConfig, {"sac": SACConfig(n_step=3)}, "imagines single steps"),
        (PlannerConfig, {"method": "cem"}, "policy.planner.method is 'cem'; it must be icem or mppi"),
        (PlannerConfig, {"elites": 200}, "each must be at most the next"),
        (PlannerConfig, {"horizon": 0}, "policy.planner.horizon is 0; it must be at least 1"),
        (PlannerConfig, {"shrink": 0.5}, "shrink of at least 1"),
        (PlannerConfig, {"momentum": 1.0}, "momentum is 1.0"),
    ],
)
def test_wrong_settings_are_refused(config, settings, message):
    with pytest.raises(RobotRLError, match=message):
        config(**settings)


def test_a_planner_takes_no_images():
    with pytest.raises(RobotRLError, match=r"predicts numbers, but it was given .*use learner=dreamer for images"):
        make("pets", envs.SpotContinuous(num_envs=2), policy={"groups": ["image/front"]})


@pytest.mark.parametrize("length", [1, 3])
def test_imagined_steps_are_as_many_as_asked_for_and_of_the_policy(length):
    parts = make("mbpo", envs.Target(num_envs=4), rollout_length=length, real_share=0.25, models=2).run(2)
    learner = parts.learner
    batch = next(iter(parts.replay.batches(learner.batch_spec, 1)))
    sac = learner.config.sac
    assert len(batch["real"]["reward"]) == 0.25 * sac.batch_size
    imagined = learner._imagine({"state": batch["start"]["obs/state"]})
    assert len(imagined["reward"]) == 0.75 * sac.batch_size
    assert imagined["obs/state"].shape == imagined["next_obs/state"].shape
    assert imagined["action"].abs().max() <= max(learner.policy.spec.action.high)
    assert torch.isfinite(imagined["reward"]).all()


def test_rollouts_grow_between_the_steps_asked_for():
    learner = make("mbpo", envs.Target(num_envs=4), final_rollout_length=5, rollout_growth=[100, 200]).learner
    found = []
    for env_steps in (0, 100, 150, 200, 900):
        learner._env_steps = env_steps
        found.append(learner._length())
    assert found == [1, 1, 3, 5, 5]


def test_where_a_rollout_ended_nothing_is_imagined_any_more():
    learner = make("mbpo", envs.Target(num_envs=4), rollout_length=4, models=2).learner
    model = learner.fit.model
    step = model.step
    model.step = lambda obs, action: step(obs, action)._replace(going_on=torch.zeros(obs.shape[:-1]))
    shape = learner.policy.spec.obs["state"].shape
    imagined = learner._imagine({"state": torch.randn(2 * 3, *shape)})
    assert imagined["terminated"].all()
    assert len(imagined["reward"]) == learner._imagined
    assert len({tuple(row.tolist()) for row in imagined["obs/state"]}) <= 6
