"""A mixture plays one member an episode, keeps copies, and is saved and loaded as any policy."""

from dataclasses import replace

import pytest
import torch

from robotrl.functional.imitation import boosting_weights
from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.policies.io import load_policy, save_policy
from robotrl.policies.mixture import MixturePolicy, act_by_member, snapshot
from robotrl.runners.evaluate import evaluate
from robotrl.types import RobotRLError
from tests import envs_for_tests as envs
from tests.policies.test_io import resave


def single(seed=0, **config):
    torch.manual_seed(seed)
    policy = build_policy(PolicyConfig(kind="mlp", hidden=[8], **config), envs.Target(num_envs=1).env_spec)
    torch.nn.init.normal_(policy.net.head.layers[-1].weight)
    return policy


def mixture(count=3, weights=None):
    made = MixturePolicy.of(single())
    members = [snapshot(single(seed)) for seed in range(count)]
    made.set_members(members, torch.ones(count) if weights is None else torch.as_tensor(weights))
    return made


OBS = {"state": torch.linspace(-1.0, 1.0, 14).reshape(7, 2)}


def test_every_row_is_acted_on_by_its_own_member():
    made, member = mixture(), torch.tensor([2, 0, 1, 1, 0, 2, 2])
    action, extras, state = made.act(OBS, {"member": member}, explore=False)
    for row, index in enumerate(member.tolist()):
        alone, more, _ = made.members[index].act({"state": OBS["state"][row : row + 1]}, {}, explore=False)
        torch.testing.assert_close(action[row : row + 1], alone)
        torch.testing.assert_close(extras["log_prob"][row : row + 1], more["log_prob"])
    assert torch.equal(extras["member"], member)
    assert state == {"member": member}


def test_one_member_for_all_rows_is_that_member():
    made = mixture()
    action, _ = act_by_member(made.members, OBS, torch.full((7,), 1), explore=False)
    assert torch.equal(action, made.members[1].act(OBS, {}, explore=False)[0])


def test_members_are_drawn_by_their_weights_and_only_at_the_start_of_an_episode():
    weights = boosting_weights(4, 0.3)
    made = mixture(4, weights)
    torch.manual_seed(1)
    drawn = made.initial_state(40_000)["member"]
    torch.testing.assert_close(torch.bincount(drawn) / 40_000, weights.float(), atol=0.01, rtol=0)
    done = torch.zeros(40_000, dtype=torch.bool)
    done[:20_000] = True
    after = made.reset_state({"member": drawn}, done)["member"]
    assert torch.equal(after[20_000:], drawn[20_000:])
    assert not torch.equal(after[:20_000], drawn[:20_000])


def test_weights_are_scaled_to_sum_to_one():
    assert mixture(2, [1.0, 3.0]).weights.tolist() == [0.25, 0.75]


def test_a_snapshot_shares_nothing_with_the_policy_it_was_taken_of():
    from robotrl.nets.flat import flatten_parameters

    policy = single()
    flat = flatten_parameters(policy.actor_parameters())  # as learners have it: parameters are views
    taken, before = snapshot(policy), {k: v.clone() for k, v in policy.state_dict().items()}
    flat.data.add_(1.0)
    policy.inputs.normaliser.merge(*policy.inputs.normaliser.moments(torch.randn(50, 2)))
    assert all(torch.equal(before[key], value) for key, value in taken.state_dict().items())
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in taken.parameters())
    assert sum(p.untyped_storage().nbytes() for p in taken.parameters()) == 4 * flat.numel(), "no view of the whole"


def test_a_mixture_is_saved_and_loaded_without_what_trained_it(tmp_path):
    made = mixture(5, boosting_weights(5, 0.3))
    made.members[2].inputs.normaliser.merge(*made.members[2].inputs.normaliser.moments(torch.randn(50, 2)))
    loaded = load_policy(save_policy(made, tmp_path / "p"))
    assert isinstance(loaded, MixturePolicy)
    assert loaded.config == replace(single().config, kind="mixture", members=5, member_kind="mlp")
    assert torch.equal(loaded.weights, made.weights)
    state = {"member": torch.tensor([4, 2, 0, 2, 1, 3, 0])}
    assert torch.equal(made.act(OBS, state, explore=False)[0], loaded.act(OBS, state, explore=False)[0])
    ours, theirs = (evaluate(p, envs.Target(num_envs=4), episodes=12, seed=3).returns for p in (made, loaded))
    assert ours == theirs
    assert len(set(ours)) > 1


def test_a_saved_mixture_cannot_ask_for_any_number_of_members(tmp_path):
    save_policy(mixture(2), tmp_path / "p")
    resave(tmp_path / "p", lambda data: data["config"].update(members=10**9))
    with pytest.raises(RobotRLError, match=r"policy.members is 1000000000; it must lie in \[0, 1000\]"):
        load_policy(tmp_path / "p")


def test_what_cannot_be_a_mixture_is_refused_with_the_reason():
    spec = envs.Memory(num_envs=1).env_spec
    with pytest.raises(RobotRLError, match=r"needs members, but policy.members is 0. learner=ailboost trains one"):
        build_policy(PolicyConfig(kind="mixture"), spec)
    with pytest.raises(RobotRLError, match="members are policies of another kind"):
        build_policy(PolicyConfig(kind="mixture", members=1, member_kind="mixture"), spec)
    with pytest.raises(RobotRLError, match="member_kind=gru has a memory"):
        build_policy(PolicyConfig(kind="mixture", members=1, member_kind="gru"), spec)


def test_a_mixture_does_not_fit_another_env():
    with pytest.raises(RobotRLError, match="does not fit"):
        mixture().check_env(envs.Spot(num_envs=1).env_spec)
