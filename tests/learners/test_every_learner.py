"""What holds for every learner: registering one and describing it in `cases.py` is all it takes to be tested here."""

import numpy as np
import pytest
import torch

from robotrl.collect import Collector
from robotrl.policies.io import load_policy, save_policy
from robotrl.registry import learners
from robotrl.runners.evaluate import evaluate
from robotrl.seeding import seed_everything
from robotrl.types import group
from tests import envs_for_tests as envs
from tests.learners.cases import CASES, TASKS, make
from tests.protocol.harness import assert_same, check_exact_continuation, timeless

NAMES = learners.names()
COMBINATIONS = [
    pytest.param(name, *combination, id="-".join((name, *combination)))
    for name in NAMES
    for combination in (CASES[name].combinations if name in CASES else ())
]
each = pytest.mark.parametrize("name", NAMES)
each_combination = pytest.mark.parametrize(("name", "kind", "actions"), COMBINATIONS)


@pytest.fixture(autouse=True)
def _exemptions(request):
    name = request.node.callspec.params.get("name") if hasattr(request.node, "callspec") else None
    claim = request.node.originalname.removeprefix("test_")
    if name in CASES and claim in CASES[name].exempt:
        pytest.skip(f"{name} is exempt: {CASES[name].exempt[claim]}")


def test_every_registered_learner_is_described_and_every_exemption_has_a_reason():
    assert set(CASES) == set(NAMES)
    for name, case in CASES.items():
        assert set(case.combinations) <= set(TASKS), name
        assert set(case.learning) == set(case.combinations), name
        claims = {key.removeprefix("test_") for key in globals() if key.startswith("test_")}
        assert set(case.exempt) <= claims, name
        assert all(len(reason.split()) >= 5 for reason in case.exempt.values()), name


def learned_value(name, env):
    case = CASES[name]
    policy = {"normalise_obs": False}
    parts = make(name, env, policy=policy, schedule={"rollout_steps": 10}, **case.value_config)
    parts.run(case.value_iterations)
    with torch.no_grad():
        return case.value(parts.learner, {"state": torch.ones(1, 1)}).item()


@each
def test_truncation_bootstraps(name):
    value = learned_value(name, envs.ConstantReward(num_envs=8, length=5, ends="truncated"))
    assert value == pytest.approx(10.0, rel=0.03)  # 1 / (1 - 0.9): an episode that is cut off has a future


@each
def test_termination_does_not_bootstrap(name):
    value = learned_value(name, envs.ConstantReward(num_envs=8, length=1, ends="terminated"))
    assert value == pytest.approx(1.0, rel=0.03)


@each_combination
def test_importance_ratios_are_one_before_the_first_gradient_step(name, kind, actions):
    parts = make(name, TASKS[kind, actions](num_envs=4, length=5), kind=kind).run(3)  # a normaliser that has seen data
    policy = parts.learner.acting
    rollout = parts.collector.collect(policy, 13)
    out = policy.sequence(policy.inputs(group(rollout, "obs")), group_at_start(rollout), rollout["is_first"])
    log_prob, _ = policy.log_prob_and_entropy(out, rollout["raw_action"])
    assert (log_prob - rollout["log_prob"]).abs().max() <= 1e-5


def group_at_start(rollout):
    return {key: value[0] for key, value in group(rollout, "state").items()}


@each
def test_next_obs_at_an_episode_end_is_the_final_one(name):
    seen = []
    parts = make(name, envs.Clock(num_envs=3, length=4))
    update = parts.learner.update
    parts.learner.update = lambda batch: (seen.append(batch), update(batch))[1]
    parts.run(4)
    ends = 0
    for batch in seen:
        for part in batch.values():
            obs, after = part["obs/state"], part["next_obs/state"]
            assert torch.equal(after[..., 0], obs[..., 0])  # the same episode
            assert torch.equal(after[..., 1], obs[..., 1] + 1)  # one step on
            ends += int((part["truncated"] & (after[..., 1] == 4)).sum())
    assert ends > 0


@each_combination
def test_losses_are_those_with_a_coefficient_and_all_metrics_are_finite(name, kind, actions):
    parts = make(name, TASKS[kind, actions](num_envs=4, length=5), kind=kind).run(3)
    for metrics in parts.log:
        found = {key.removeprefix("loss/") for key in metrics if key.startswith("loss/")}
        assert found == CASES[name].losses(parts.learner)
        for key, value in metrics.items():
            assert not value.requires_grad, key
            assert value.numel() == 1, key
            assert torch.isfinite(value).all(), key


def trained(name, seed):
    parts = make(name, envs.Target(num_envs=3), seed=seed).run(3)
    return parts.state()["learner"], timeless(parts.log)


@each
def test_the_same_seed_repeats_and_another_differs(name):
    first, again, other = trained(name, 5), trained(name, 5), trained(name, 6)
    assert_same(first, again)
    with pytest.raises(AssertionError):
        assert_same(first, other)


@each_combination
def test_a_loaded_policy_acts_as_the_trained_one_without_the_env(name, kind, actions, tmp_path):
    env = TASKS[kind, actions](num_envs=4, length=5)
    parts = make(name, env, kind=kind).run(3)
    trained_policy = parts.learner.policy
    loaded = load_policy(save_policy(trained_policy, tmp_path / "policy"))
    rollout = Collector(env).collect(parts.learner.acting, 7)
    for explore in (False, True):
        states = [trained_policy.initial_state(4), loaded.initial_state(4)]
        for t in range(7):
            obs, done = {k: v[t] for k, v in group(rollout, "obs").items()}, rollout["is_first"][t]
            results = []
            for policy, state in zip((trained_policy, loaded), states, strict=True):
                seed_everything(t)
                results.append(policy.act(obs, policy.reset_state(state, done), explore=explore))
            assert_same(*results)
            states = [result[2] for result in results]


@each_combination
def test_it_continues_exactly_from_its_state(name, kind, actions):
    def build():
        return make(name, TASKS[kind, actions](num_envs=3, length=5), kind=kind, seed=3)

    check_exact_continuation(build, iterations=2)


@each
def test_it_does_not_change_what_it_is_given(name):
    parts = make(name, envs.Target(num_envs=3))
    update, unchanged = parts.learner.update, []

    def watched(batch):
        before = {n: {k: v.clone() for k, v in part.items()} for n, part in batch.items()}
        result = update(batch)
        assert_same(before, batch)
        unchanged.append(True)
        return result

    parts.learner.update = watched
    parts.run(2)
    assert unchanged


@pytest.mark.learn
@each_combination
def test_it_learns(name, kind, actions):
    how = CASES[name].learning[kind, actions]
    env_class = TASKS[kind, actions]
    env = env_class(num_envs=how.num_envs, copy=False, **how.env)
    parts = make(name, env, kind=kind, seed=1, schedule={"rollout_steps": how.rollout_steps}, **how.config)
    before = evaluate(parts.learner.policy, env_class(num_envs=20, **how.env), episodes=40, seed=9)
    parts.run(how.iterations)
    after = evaluate(parts.learner.policy, env_class(num_envs=20, **how.env), episodes=40, seed=9)
    assert np.mean(before.returns) < how.reach
    assert np.mean(after.returns) >= how.reach
