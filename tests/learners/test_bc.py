"""What is particular to behaviour cloning; what holds for every learner is in `test_every_learner.py`."""

import pytest
import torch

from robotrl.learners.bc import LOG_STD_MIN, BCConfig
from robotrl.types import Progress, RobotRLError
from tests import envs_for_tests as envs
from tests.learners.cases import make


def batch_of(parts, **config):
    (batch,) = parts.replay.batches(parts.learner.batch_spec, 1)
    return batch


def test_nothing_is_collected():
    parts = make("bc", envs.Target(num_envs=2)).run(2)
    assert parts.collector is None
    assert parts.replay.calls["add"] == 0
    assert parts.progress.updates == 16


@pytest.mark.parametrize("kind", ["mlp", "squashed"])
def test_the_squared_error_is_in_units_of_the_action_range(kind):
    parts = make("bc", envs.Target(num_envs=2), kind=kind, loss="mse", policy={"normalise_obs": False})
    policy, batch = parts.learner.policy, batch_of(parts)
    obs = {"state": batch["demos"]["obs/state"][0]}
    action, _, _ = policy.act(obs, {}, explore=False)
    difference = (policy.actions.from_env(action) - policy.actions.from_env(batch["demos"]["action"][0])).square()
    assert parts.learner.update(batch)[0]["loss/mse"].item() == pytest.approx(difference.mean().item(), rel=1e-4)


def test_the_likelihood_is_that_of_the_acting_policy():
    parts = make("bc", envs.Target(num_envs=2), policy={"normalise_obs": False})
    policy, batch = parts.learner.policy, batch_of(parts)
    rows = batch["demos"]
    out = policy.sequence(policy.inputs({"state": rows["obs/state"]}), {}, rows["is_first"])
    normal = torch.distributions.Normal(out, policy.log_std.exp())
    expected = -normal.log_prob(policy.actions.from_env(rows["action"])).sum(-1).mean()
    assert parts.learner.update(batch)[0]["loss/nll"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_steps_behind_an_episodes_end_do_not_count():
    parts = make("bc", envs.Target(num_envs=2, length=5), length=4, batch_size=200)
    batch = batch_of(parts)
    valid = batch["demos"]["valid"]
    assert not valid.all()
    spoiled = {"demos": {**batch["demos"], "action": torch.where(valid.unsqueeze(-1), batch["demos"]["action"], 1e6)}}
    assert parts.learner.update(spoiled)[0]["loss/nll"] < 1e3


def test_a_recurrent_policy_learns_from_windows_longer_than_one_step():
    parts = make("bc", envs.Target(num_envs=2), kind="gru", length=6, learning_rate=1e-2).run(20)
    losses = [metrics["loss/nll"].item() for metrics in parts.log]
    assert losses[-1] < losses[0] - 1.0


def test_the_deviation_of_demonstrations_without_noise_stays_finite():
    parts = make("bc", envs.Target(num_envs=2), learning_rate=0.5).run(10)
    assert parts.learner.policy.log_std.min() >= LOG_STD_MIN


def test_the_normaliser_takes_the_demonstrations_moments():
    parts = make("bc", envs.Target(num_envs=2), batch_size=512).run(5)
    normaliser = parts.learner.policy.inputs.normaliser
    seen = torch.cat([batch_of(parts)["demos"]["obs/state"][0] for _ in range(20)])
    torch.testing.assert_close(normaliser.mean.float(), seen.mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(normaliser.var.sqrt().float(), seen.std(0), atol=0.1, rtol=0)


def test_the_learning_rate_falls_to_zero_over_the_run():
    learner = make("bc", envs.Target(num_envs=2), learning_rate=0.1).learner
    learner.observe({}, Progress(100, env_steps=75))
    assert learner._adam.lr == pytest.approx(0.025)


def test_weight_decay_takes_off_a_share():
    weights = {}
    for decay in (0.0, 10.0):
        parts = make("bc", envs.Target(num_envs=2), weight_decay=decay, lr_schedule="constant").run(2)
        weights[decay] = parts.learner._flat.norm()
    assert weights[10.0] < 0.95 * weights[0.0]


def test_discrete_actions_have_no_squared_error():
    with pytest.raises(RobotRLError, match=r"Pick has discrete actions, .* Use learner.loss=nll"):
        make("bc", envs.Pick(num_envs=2), loss="mse")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"loss": "l1"}, "loss is 'l1'; it must be nll or mse"),
        ({"length": 0}, "length is 0; it must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be greater than 0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0; it must not be negative"),
    ],
)
def test_wrong_settings_are_told(settings, told):
    with pytest.raises(RobotRLError, match=told):
        BCConfig(**settings)
