"""What is particular to DAC; what holds for every learner is in `test_every_learner.py`."""

import math

import pytest
import torch
from torch.nn import functional as F

from robotrl.learners.dac import DACConfig
from robotrl.learners.sac import SACConfig
from robotrl.types import RobotRLError
from tests import envs_for_tests as envs
from tests.learners.cases import demonstrations, make


def updates(parts, iterations):
    """The batches that the discriminator's learner got and those that it gave to SAC."""
    given, taken = [], []
    learner = parts.learner
    update, sac_update = learner.update, learner.sac.update
    learner.update = lambda batch: (given.append(batch), update(batch))[1]

    def watched(batch):
        taken.append({name: dict(part) for name, part in batch.items()})
        taken[-1]["expected"] = learner.adversary.pairs(batch["online"])
        taken[-1]["now"] = learner.adversary.net(taken[-1]["expected"]).detach()
        return sac_update(batch)

    learner.sac.update = watched
    parts.run(iterations)
    return given, taken


@pytest.mark.parametrize("name", ["dac", "ailboost"])
def test_sac_gets_the_reward_that_the_discriminator_gives_now_and_never_the_envs(name):
    _, taken = updates(make(name, envs.Target(num_envs=3)), 3)
    assert len(taken) == 24
    for batch in taken:
        torch.testing.assert_close(batch["online"]["reward"], batch["now"])
    first = torch.stack([batch["now"].mean() for batch in taken])
    assert first.unique().numel() > 3, "and it changes as the discriminator does"


@pytest.mark.parametrize("name", ["dac", "ailboost"])
def test_the_discriminator_sees_as_many_steps_of_the_expert_as_of_the_policy(name):
    given, _ = updates(make(name, envs.Target(num_envs=3), discriminator_batch_size=128), 2)
    both = [batch for batch in given if "disc" in batch]
    assert both
    assert all(len(b["disc"]["reward"]) == len(b["expert"]["reward"]) == 128 for b in both)
    shown = demonstrations(envs.Target(num_envs=3))._storage.fields["obs/state"]
    for batch in both:
        experts = batch["expert"]["obs/state"]
        assert torch.isin(experts, torch.from_numpy(shown)).all()
        assert not torch.isin(batch["disc"]["obs/state"], torch.from_numpy(shown)).any()


def test_a_softplus_reward_is_never_negative():
    parts = make("dac", envs.Target(num_envs=3), reward="softplus")
    _, taken = updates(parts, 2)
    for batch in taken:
        torch.testing.assert_close(batch["online"]["reward"], F.softplus(batch["now"]))


@pytest.mark.parametrize("name", ["dac", "ailboost"])
def test_n_step_rewards_are_recomputed_for_every_step_of_the_window(name):
    parts = make(name, envs.Target(num_envs=3), sac=SACConfig(batch_size=16, random_env_steps=0, n_step=3))
    _, taken = updates(parts, 2)
    assert taken[0]["online"]["reward"].shape == (3, 16)
    torch.testing.assert_close(taken[0]["online"]["reward"], taken[0]["now"])


def ending(name, *, ours, theirs, iterations=20):
    """A learner on a toy whose episodes of four steps end as `ours`, with demonstrations that end as `theirs`."""
    env = envs.ConstantReward(num_envs=4, length=4, ends=ours)
    demos = demonstrations(envs.ConstantReward(num_envs=4, length=4, ends=theirs))
    config = {"sac": SACConfig(batch_size=32, random_env_steps=0, gamma=0.5, tau=0.1), "discriminator_batch_size": 64}
    config |= {"discriminator_learning_rate": 1e-2, "penalty_coef": 0.1}
    config |= {"discriminator_updates": 8} if name == "ailboost" else {}
    return make(name, env, offline={"demos": demos}, **config).run(iterations)


@pytest.mark.parametrize("name", ["dac", "ailboost"])
def test_ending_early_costs_where_the_expert_goes_on_and_pays_where_it_ends(name):
    falls = ending(name, ours="terminated", theirs="truncated")
    succeeds = ending(name, ours="truncated", theirs="terminated")
    assert falls.learner.adversary.absorbing_value < -0.5
    learner = succeeds.learner  # its own steps never get there, but the discriminator knows what it would be worth
    pair = torch.zeros(1, learner.adversary.net.in_dim)
    pair[0, -1] = 1.0
    assert learner.adversary.net(pair).item() > 0.3


@pytest.mark.parametrize("name", ["dac", "ailboost"])
def test_the_absorbing_states_value_is_the_discounted_sum_of_its_reward(name):
    parts = ending(name, ours="terminated", theirs="truncated", iterations=2)
    learner = parts.learner
    batch = next(parts.replay.batches({"online": learner.batch_spec["online"]}, 1))["online"]
    assert batch["terminated"].any()
    for _ in range(400):
        rewarded = learner.adversary.rewarded(batch)
    pair = torch.zeros(1, learner.adversary.net.in_dim)
    pair[0, -1] = 1.0
    reward = learner.adversary.net(pair).item()
    assert learner.adversary.absorbing_value.item() == pytest.approx(reward / (1 - 0.5), rel=1e-4)
    alone = learner.adversary.net(learner.adversary.pairs(batch)).detach()
    expected = alone + batch["terminated"] * 0.5 * reward / (1 - 0.5)
    torch.testing.assert_close(rewarded["reward"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["dac", "ailboost"])
def test_where_nothing_terminates_the_absorbing_state_is_worth_nothing(name):
    parts = make(name, envs.Target(num_envs=3)).run(3)
    assert parts.learner.adversary.absorbing_value == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"discriminator_learning_rate": 0.0}, "learner.discriminator_learning_rate is 0.0; it must be greater than 0"),
        ({"penalty_coef": math.nan}, "learner.penalty_coef is nan"),
        ({"reward": "gail"}, "learner.reward is 'gail'; it must be logit or softplus"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(RobotRLError, match=message):
        DACConfig(**settings)
