"""What is particular to AILBoost; what it shares with DAC is in `test_dac.py`."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from robotrl.functional.imitation import boosting_weights
from robotrl.learners.ailboost import AILBoostConfig
from robotrl.learners.sac import SACConfig
from robotrl.policies.io import load_policy, save_policy
from robotrl.policies.turns import EXPLORING
from robotrl.runners.evaluate import evaluate
from robotrl.types import RobotRLError
from tests import envs_for_tests as envs
from tests.learners.cases import make


def rounds(iterations, *, rollout_steps=5, num_envs=1, schedule=None, **config):
    env = envs.Target(num_envs=num_envs)
    clock = {"rollout_steps": rollout_steps, "updates": 2.0} | (schedule or {})
    return make("ailboost", env, schedule=clock, **config).run(iterations)


def stored(parts, *keys):
    store = parts.replay.inner.sources["online"]
    fields = store._storage.take(np.arange(len(store)))
    return [fields[key] for key in keys]


def members_by_episode(parts):
    member, episode = stored(parts, "member", "episode")
    found = [member[episode == i].unique() for i in episode.unique()]
    assert all(len(values) == 1 for values in found), "an episode is played by one policy"
    return [int(values) for values in found]


@pytest.mark.parametrize("rollout_steps", [1, 5, 8, 13])
def test_a_members_episode_and_an_exploring_one_take_turns(rollout_steps):
    parts = rounds(96 // rollout_steps, rollout_steps=rollout_steps, schedule={"updates": 1.0})
    found = members_by_episode(parts)
    if rollout_steps <= 8:  # with longer rollouts a round's end is seen an episode late
        assert found[:10] == [0, EXPLORING, 1, EXPLORING, 2, EXPLORING, 3, EXPLORING, 4, EXPLORING]
    assert sorted(set(found)) == list(range(-1, max(found) + 1))


def test_every_member_plays_its_steps_and_exploring_takes_its_own():
    parts = rounds(50, schedule={"updates": 1.0}, member_env_steps=16, explore_env_steps=24)
    wait = [EXPLORING] * 3
    assert members_by_episode(parts)[:15] == [0, 0, *wait, 1, 1, *wait, 2, 2, *wait]


def test_random_exploration_comes_before_the_second_member():
    parts = rounds(40, sac=SACConfig(batch_size=16, random_env_steps=64))
    assert members_by_episode(parts)[:11] == [0, *[EXPLORING] * 8, 1, EXPLORING]


def test_members_are_what_the_policy_was_and_stay_so():
    parts = rounds(0)
    learner = parts.learner
    initial = {key: value.clone() for key, value in learner.policy.state_dict().items()}
    seen = {}
    for _ in range(40):
        parts.run(1)
        for index, member in enumerate(learner.mixture.members):
            copies = {key: value.clone() for key, value in member.state_dict().items()}
            before = seen.setdefault(index, copies)
            assert all(torch.equal(before[key], value) for key, value in copies.items())
    assert len(seen) > 5
    assert all(torch.equal(initial[key], value) for key, value in seen[0].items())
    weight = [state["net.head.layers.0.weight"] for state in seen.values()]
    assert all(not torch.equal(a, b) for a, b in pairwise(weight))
    own = {p.untyped_storage().data_ptr() for p in learner.policy.parameters()}
    held = [p.untyped_storage().data_ptr() for member in learner.mixture.members for p in member.parameters()]
    assert not own & set(held)
    assert len(set(held)) == len(held)


def test_the_mixture_has_the_weights_of_boosting():
    parts = rounds(40, boost_rate=0.3)
    count = len(parts.learner.mixture.members)
    assert count > 5
    torch.testing.assert_close(parts.learner.mixture.weights, boosting_weights(count, 0.3))
    assert parts.learner.mixture.weights.sum().item() == pytest.approx(1.0, abs=1e-12)


def test_the_discriminator_sees_members_by_their_weight_and_no_exploration():
    parts = rounds(48, boost_rate=0.3, discriminator_updates=1000)
    parts.learner.config.discriminator_batch_size = 20_000
    (batch,) = parts.replay.batches(parts.learner.batch_spec, 1)
    weights = parts.learner.mixture.weights
    assert batch["disc"]["member"].min() >= 0
    shares = torch.bincount(batch["disc"]["member"], minlength=len(weights)) / 20_000
    torch.testing.assert_close(shares, weights.float(), atol=0.015, rtol=0)


def test_the_discriminator_makes_its_steps_in_every_round_and_no_more():
    steps = []
    parts = rounds(0, discriminator_updates=3)
    step = parts.learner.adversary.step
    parts.learner.adversary.step = lambda *args: (steps.append(parts.learner._members), step(*args))[1]
    parts.run(60)
    per_round = np.bincount(steps)[1:-1]
    assert len(per_round) > 10
    assert (per_round == 3).all()


def test_nothing_is_updated_before_the_first_member_has_played():
    parts = rounds(1)
    before = {key: value.clone() for key, value in parts.learner.policy.state_dict().items()}
    assert parts.progress.updates == 2
    assert parts.progress.grad_steps == 0
    assert "loss/critic" not in parts.log[-1]
    parts.run(1)
    assert parts.progress.grad_steps == 2 + 2, "SAC's updates and the discriminator's"
    assert not all(torch.equal(before[key], value) for key, value in parts.learner.policy.state_dict().items())


def test_the_oldest_members_go_when_there_are_too_many():
    parts = rounds(60, max_members=4, boost_rate=0.3, discriminator_updates=1000)
    learner = parts.learner
    count = learner._members
    assert count > 8
    kept = boosting_weights(count, 0.3)[-4:]
    torch.testing.assert_close(learner.mixture.weights, kept / kept.sum())
    assert learner.mixture.config.members == len(learner.mixture.members) == 4
    (batch,) = parts.replay.batches(learner.batch_spec, 1)
    assert batch["disc"]["member"].min() >= count - 4


def test_the_mixture_is_offered_evaluated_and_saved_beside_the_last_policy(tmp_path):
    learner = rounds(40, boost_rate=0.3).learner
    mixture = learner.other_policies["mixture"]
    loaded = load_policy(save_policy(mixture, tmp_path / "mixture"))
    results = [
        evaluate(policy, envs.Target(num_envs=4), episodes=16, seed=2).returns
        for policy in (mixture, loaded, learner.policy)
    ]
    assert results[0] == results[1]
    assert results[0] != results[2], "the mixture is not the last policy"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"boost_rate": 0.0}, "learner.boost_rate is 0.0; it must lie between 0 and 1"),
        ({"member_env_steps": 0}, "learner.member_env_steps is 0; it must be at least 1"),
        ({"discriminator_learning_rate": math.nan}, "learner.discriminator_learning_rate is nan"),
        ({"max_members": 1}, r"learner.max_members is 1; it must lie in \[2, 1000\]"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(RobotRLError, match=message):
        AILBoostConfig(**settings)
