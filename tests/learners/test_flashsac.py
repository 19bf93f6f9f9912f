"""What is particular to FlashSAC; what holds for every learner is in `test_every_learner.py`."""

import math

import pytest
import torch

from robotrl.functional.distributions import project_categorical
from robotrl.functional.returns import bellman_rows
from robotrl.learners.flashsac import FlashSACConfig
from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.policies.flash import MAX_HOLD
from robotrl.registry import learners
from robotrl.types import Progress, RobotRLError
from tests import envs_for_tests as envs
from tests.learners.cases import make
from tests.nets.flash_reference import AsWritten


def filled(**config):
    parts = make("flashsac", envs.Target(num_envs=2), **config)
    for _ in range(3):
        rollout = parts.collector.collect(parts.learner.acting, 20)
        parts.replay.add(rollout)
        parts.learner.observe(rollout, Progress(1000))
    return parts


def one_update(parts):
    (batch,) = parts.replay.batches(parts.learner.batch_spec, 1)
    return parts.learner.update(batch)[0]


def norms_of(net):
    rows = [torch.linalg.vector_norm(weight, dim=-1).flatten() for weight in net.weights]
    both = zip(net.gains, net.shifts, strict=True)
    gains = [(gain.square().mean(1) + shift.square().mean(1)).flatten() for gain, shift in both]
    return torch.cat(rows), torch.cat([*gains, net.gain.square().mean(-1).flatten()])


def test_weights_keep_unit_norm_and_gains_theirs_through_updates():
    parts = filled(learning_rate=1e-2)
    for _ in range(4):
        one_update(parts)
    for net in (parts.learner.critics, parts.learner.policy.net.net):
        for found in norms_of(net):
            torch.testing.assert_close(found, torch.ones_like(found), atol=1e-4, rtol=0)
    assert parts.learner._critic_flat.grad.any()


def test_a_projected_distribution_keeps_its_mass_and_its_mean():
    chances = torch.softmax(torch.randn(50, 101), -1)
    bins = torch.linspace(-5, 5, 101)
    values = 0.7 * bins + torch.rand(50, 1)
    projected = project_categorical(chances, values, 5.0)
    torch.testing.assert_close(projected.sum(-1), torch.ones(50))
    torch.testing.assert_close(projected @ bins, (chances * values).sum(-1), atol=1e-4, rtol=1e-4)
    assert (projected >= 0).all()


@pytest.mark.parametrize(("value", "place"), [(-99.0, 0), (99.0, 100), (-5.0, 0), (5.0, 100), (0.1, 51)])
def test_values_beyond_the_bins_go_to_the_last_one(value, place):
    chances = torch.zeros(1, 101).index_fill_(1, torch.tensor([7]), 1.0)
    projected = project_categorical(chances, torch.full((1, 101), value), 5.0)
    assert projected[0, place].item() == pytest.approx(1.0, abs=1e-4)


def test_the_actor_steps_at_every_second_update():
    parts = filled(actor_every=2)
    moved = []
    for _ in range(4):
        before = parts.learner._actor_flat.detach().clone()
        metrics = one_update(parts)
        moved.append(not torch.equal(before, parts.learner._actor_flat))
        assert ("loss/policy" in metrics) == moved[-1]
    assert moved == [True, False, True, False]


@pytest.fixture
def stepped():
    """A learner after an update, rows for the next one, and what a test asks of all of it."""
    parts = filled(batch_size=32)
    one_update(parts)
    (batch,) = parts.replay.batches(parts.learner.batch_spec, 1)
    rows = bellman_rows(batch["online"], 1, parts.learner.config.gamma, parts.learner.policy.actions.from_env)
    return parts.learner, rows, rows["obs/state"], rows["next_obs/state"]


def assert_gradients(net, expected):
    for parameter, value in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, value, atol=2e-6, rtol=2e-4)


def test_the_actors_gradient_is_that_of_its_loss_as_written_and_the_critics_get_none(stepped):
    learner, _, obs, after = stepped
    actor, critics, metrics = AsWritten(learner.policy.net.net), AsWritten(learner.critics), {}
    learner._critic_flat.grad.zero_()
    torch.manual_seed(3)
    action, log_prob = learner.policy.sample(actor(torch.cat([obs, after]), of_batch=True)[0, : len(obs)])
    q = torch.softmax(critics(torch.cat([obs, action], -1), of_batch=False), -1) @ learner._bins
    loss = (learner._log_temperature.detach().exp() * log_prob - q.amin(0)).mean()
    torch.manual_seed(3)
    learner._policy_gradient(obs, after, metrics)
    assert_gradients(learner.policy.net.net, torch.autograd.grad(loss, actor.parameters))
    torch.testing.assert_close(metrics["loss/policy"], loss.detach())
    assert not learner._critic_flat.grad.any()


def test_the_critics_gradient_is_that_of_the_cross_entropy_as_written(stepped):
    learner, rows, obs, after = stepped
    actor, critics, targets = (AsWritten(n) for n in (learner.policy.net.net, learner.critics, learner.targets))
    bins, metrics = learner._bins, {}
    torch.manual_seed(3)
    with torch.no_grad():
        action, log_prob = learner.policy.sample(actor(after, of_batch=False)[0])
        x = torch.cat([torch.cat([obs, after]), torch.cat([rows["unit_action"], action])], -1)
        one, other = torch.softmax(targets(x, of_batch=True)[:, len(obs) :], -1)
        lesser = torch.where((one @ bins <= other @ bins).unsqueeze(-1), one, other)
        soft = bins - (learner._log_temperature.exp() * log_prob).unsqueeze(-1)
        values = (rows["reward"] / learner.reward_scale).unsqueeze(-1) + rows["discount"].unsqueeze(-1) * soft
        target = project_categorical(lesser, values, learner.config.value_range)
    loss = -(target * torch.log_softmax(critics(x, of_batch=True)[:, : len(obs)], -1)).sum(-1).mean()
    torch.manual_seed(3)
    learner._critic_gradient(rows, obs, after, metrics)
    assert_gradients(learner.critics, torch.autograd.grad(loss, critics.parameters))
    torch.testing.assert_close(metrics["loss/critic"], loss.detach())


def test_rewards_are_scaled_so_that_returns_fit_the_bins():
    learner = make("flashsac", envs.ConstantReward(num_envs=1)).learner
    assert learner.reward_scale == 1.0
    fresh = {
        "reward": torch.full((50, 1), 20.0),
        "terminated": torch.zeros(50, 1, dtype=torch.bool),
        "truncated": torch.zeros(50, 1, dtype=torch.bool),
    }
    learner.observe(fresh, Progress(1000))
    largest = 20.0 * (1 - 0.99**50) / (1 - 0.99)
    assert learner.reward_scale == pytest.approx(max(largest / 5.0, float(learner._return_stats.var) ** 0.5))
    assert largest / learner.reward_scale <= 5.0 + 1e-6


def test_the_target_entropy_is_that_of_a_gaussian_of_the_target_deviation():
    learner = make("flashsac", envs.Target(num_envs=2), target_std=0.15).learner
    normal = torch.distributions.Normal(0.0, 0.15)
    assert learner._target_entropy == pytest.approx(2 * normal.entropy().item())


def test_the_learning_rate_falls_along_half_a_cosine():
    learner = make("flashsac", envs.Target(num_envs=2)).learner
    rates = []
    for steps in (0, 50, 100):
        learner.observe({}, Progress(100, env_steps=steps))
        rates.append(learner._adams["critic"].lr)
    assert rates == pytest.approx([3e-4, 2.25e-4, 1.5e-4])


def test_noise_is_held_for_as_long_as_the_truncated_zeta_distribution_says():
    policy = make("flashsac", envs.Target(num_envs=2)).learner.policy
    obs, state = {"state": torch.zeros(500, 2)}, policy.initial_state(500)
    noises = []
    for _ in range(200):
        _, _, state = policy.act(obs, state, explore=True)
        noises.append(state["noise"])
    changes = (torch.stack(noises[1:]) != torch.stack(noises[:-1])).any(-1)
    chances = torch.arange(1, MAX_HOLD + 1).float() ** -2
    expected = (chances * torch.arange(1, MAX_HOLD + 1)).sum() / chances.sum()  # steps between changes
    assert 1 / changes.float().mean().item() == pytest.approx(expected.item(), rel=0.05)
    runs = torch.diff(torch.where(torch.cat([changes[:, 0]]))[0])
    assert runs.max() <= MAX_HOLD


def test_a_new_episode_starts_with_new_noise_and_the_others_hold_theirs():
    policy = make("flashsac", envs.Target(num_envs=2)).learner.policy
    state = {"noise": torch.ones(2, 2), "held": torch.tensor([5, 5])}
    _, _, after = policy.act(
        {"state": torch.zeros(2, 2)}, policy.reset_state(state, torch.tensor([True, False])), explore=True
    )
    assert not torch.equal(after["noise"][0], torch.ones(2))
    assert torch.equal(after["noise"][1], torch.ones(2))
    assert after["held"][1] == 4


def test_the_policys_state_is_kept_through_the_random_phase():
    parts = make("flashsac", envs.Target(num_envs=4), random_env_steps=60).run(3)
    assert parts.learner.acting is parts.learner.policy
    assert set(parts.collector.state_dict()["policy_state"]) == {"noise", "held"}


def test_n_step_returns_are_learned_from():
    metrics = one_update(filled(n_step=3))
    assert math.isfinite(metrics["loss/critic"])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"critic_hidden": [64, 32]}, r"critic_hidden is \[64, 32\]; FlashSAC's blocks have one width"),
        ({"batch_size": 1}, "batch_size is 1; it must be at least 2"),
        ({"target_std": 0.0}, "target_std is 0.0; it must be greater than 0"),
        ({"tau": 2.0}, r"tau is 2.0; it must lie in \[0, 1\]"),
    ],
)
def test_wrong_settings_are_told(settings, told):
    with pytest.raises(RobotRLError, match=told):
        FlashSACConfig(**settings)


def test_another_policy_images_and_uneven_widths_are_refused():
    spec = envs.Target(num_envs=1).env_spec
    with pytest.raises(RobotRLError, match="learner=flashsac trains policy=flash, not policy=squashed"):
        learners.get("flashsac")(build_policy(PolicyConfig(kind="squashed"), spec), spec, FlashSACConfig(), num_envs=1)
    with pytest.raises(RobotRLError, match=r"policy.hidden is \[64, 32\]"):
        build_policy(PolicyConfig(kind="flash", hidden=[64, 32]), spec)
    with pytest.raises(RobotRLError, match=r"policy=flash reads numbers, not the images \['image/front'\]"):
        build_policy(PolicyConfig(kind="flash"), envs.SpotContinuous(num_envs=1).env_spec)
