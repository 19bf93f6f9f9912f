"""What is particular to SAC, DAC and AILBoost where the policy sees pictures."""

from collections import defaultdict

import pytest
import torch

from robotrl.learners.sac import SACConfig
from robotrl.types import RobotRLError
from tests import envs_for_tests as envs
from tests.learners.cases import make


def filled(name="sac", env=None, **config):
    parts = make(name, env or envs.SpotContinuous(num_envs=4), **config)
    rollout = parts.collector.collect(parts.learner.acting, 40)
    parts.replay.add(rollout)
    (batch,) = parts.replay.batches(parts.learner.batch_spec, 1)
    return parts.learner, batch


def test_the_convolutions_follow_the_critics_alone():
    learner, batch = filled(image_shift=0)
    seeing, metrics = learner.policy.net.seeing_parameters(), defaultdict(list)
    assert seeing
    trained_by_the_actor = {p.data_ptr() for p in learner.policy.actor_parameters() if p not in set(seeing)}
    flat = learner._actor_flat
    assert all(flat.data_ptr() <= ptr < flat.data_ptr() + 4 * flat.numel() for ptr in trained_by_the_actor)
    (part,) = learner._slices(batch)
    rows = learner.vision.see(part)
    before = learner.vision._flat.detach().clone()
    sampled, pull = learner._sample(rows, ["obs", "next_obs"])
    learner._policy_gradient(rows, sampled["obs"], pull, metrics)
    assert learner._actor_flat.grad.any()
    assert not any(p.grad.any() for p in seeing)
    learner._critic_gradient(rows, sampled["next_obs"], metrics)
    assert any(p.grad.any() for p in seeing)
    assert not torch.equal(learner.vision._flat, before)
    assert metrics["grad_norm/encoder"][0] > 0


def test_the_encoders_gradient_is_that_of_the_critics_loss_as_written():
    learner, batch = filled(image_shift=0)
    (part,) = learner._slices(batch)
    alpha, net = learner._log_temperature.detach().exp(), learner.policy.net
    torch.manual_seed(1)
    with torch.no_grad():
        after = {key[9:]: value for key, value in part.items() if key.startswith("next_obs/")}
        action, log_prob = learner.policy.sample(net(learner.policy.inputs(after), torch.zeros(0, 0))[0])
        seen = {"image/front": net.encoders[0].see(after["image/front"]), "state": after["state"]}
        x = learner.critic_inputs.joined(learner.critic_inputs(seen), action)
        value = learner.targets(x).squeeze(-1).amin(0) - alpha * log_prob
        target = part["reward"] + part["discount"] * value
    now = {"image/front": net.encoders[0].see(part["obs/image/front"]), "state": part["obs/state"]}
    q = learner.critics(learner.critic_inputs.joined(learner.critic_inputs(now), part["unit_action"])).squeeze(-1)
    expected = torch.autograd.grad((q - target).square().mean(), net.seeing_parameters())
    torch.manual_seed(1)
    rows = learner.vision.see(part)
    learner._critic_gradient(rows, learner._sample(rows, ["next_obs"])[0]["next_obs"], defaultdict(list))
    for parameter, value in zip(net.seeing_parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, value, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("options", [{"utd_ratio": 3, "num_critics": 4}, {"n_step": 3}, {"matmul_precision": "bf16"}])
def test_sacs_other_options_work_from_pictures(options):
    learner, batch = filled(**options)
    metrics, _ = learner.update(batch)
    assert metrics["grad_norm/nonfinite"] == 0
    assert all(torch.isfinite(value).all() for value in metrics.values())


@pytest.mark.parametrize("name", ["dac", "ailboost"])
def test_the_discriminator_sees_through_the_policys_convolutions_and_leaves_the_policy_alone(name):
    learner, batch = filled(name, sac=SACConfig(batch_size=16, random_env_steps=0, image_shift=0))
    part, onlooker = batch["online"], learner.adversary._onlooker
    pairs = learner.adversary.pairs(part)
    features = onlooker.projections[0](learner.policy.net.encoders[0].see(part["obs/image/front"]))
    torch.testing.assert_close(pairs[:, : features.shape[1]], features.detach())
    assert pairs.shape[1] == learner.adversary.net.in_dim == onlooker.dim + 2
    before = {key: value.clone() for key, value in learner.policy.state_dict().items()}
    learner.adversary.step(batch["expert"], part)
    assert all(torch.equal(value, before[key]) for key, value in learner.policy.state_dict().items())


def test_critics_of_other_pictures_than_the_policys_are_refused():
    with pytest.raises(RobotRLError, match=r"critic_groups has the images \[\], the policy reads \['image/front'\]"):
        make("sac", envs.SpotContinuous(num_envs=1), critic_groups=["state"])
    with pytest.raises(RobotRLError, match="image_shift is -1; it must be at least 0"):
        SACConfig(image_shift=-1)
