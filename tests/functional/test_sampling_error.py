"""Sampling error: against counts by hand, theory, and the fits that it claims to be."""

import numpy as np
import pytest
import torch

from robotrl.envs.tabular import table_of
from robotrl.functional.sampling_error import (
    categorical_sampling_error,
    counts,
    gaussian_sampling_error,
    tabular_sampling_error,
    total_variation,
    visitation,
)
from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.policies.sampling_error import sampling_error
from robotrl.types import RobotRLError
from tests import envs_for_tests as envs


def test_counts_are_by_state_and_action():
    assert counts([0, 2, 2, 2], [1, 0, 0, 1], 3, 2).tolist() == [[0, 1], [0, 0], [2, 1]]


def test_the_exact_error_is_that_by_hand():
    policy = np.full((2, 2), 0.5)
    table = np.array([[3.0, 1.0], [0.0, 2.0]])
    by_hand = (3 * np.log(0.75 / 0.5) + np.log(0.25 / 0.5) + 2 * np.log(1 / 0.5)) / 6
    assert tabular_sampling_error(table, policy) == pytest.approx(by_hand)
    assert tabular_sampling_error(np.array([[2.0, 2.0], [1.0, 1.0]]), policy) == 0.0


def test_total_variation_is_half_the_difference_of_the_shares():
    assert total_variation(np.array([[3.0, 1.0]]), np.array([[0.5, 0.5]])) == pytest.approx(0.25)


def test_visits_to_the_two_step_task_are_those_by_hand():
    t = table_of("TwoStep")
    policy = np.tile([0.25, 0.75], (7, 1))
    share = visitation(policy, t.next_state, t.end, t.start, 10)
    expected = np.zeros((7, 2))
    expected[:3] = np.array([[0.25, 0.75], [0.0625, 0.1875], [0.1875, 0.5625]]) / 2
    np.testing.assert_allclose(share, expected)


def test_visits_to_the_grid_are_those_that_are_counted():
    t = table_of("GridWorld", side=3)
    policy, rng = np.full((9, 4), 0.25), np.random.default_rng(0)
    table = np.zeros((9, 4))
    for _ in range(20_000):
        state = t.start
        for _ in range(t.time_limit):
            action = rng.integers(4)
            table[state, action] += 1
            state = t.next_state[state, action]
            if t.end[state]:
                break
    expected = visitation(policy, t.next_state, t.end, t.start, t.time_limit)
    np.testing.assert_allclose(table / table.sum(), expected, atol=4e-3)


def test_on_policy_errors_fall_as_free_numbers_over_twice_the_data():
    rng = np.random.default_rng(1)
    n, f, a = 2000, 5, 3
    x = np.concatenate([rng.standard_normal((n, f - 1)), np.ones((n, 1))], axis=1)
    mean, log_std = x @ rng.standard_normal((f, a)), np.array([0.1, -0.5, 0.3])
    errors = [
        gaussian_sampling_error(x, mean + np.exp(log_std) * rng.standard_normal((n, a)), mean, log_std)
        for _ in range(60)
    ]
    assert min(errors) > 0
    assert np.mean(errors) == pytest.approx((f * a + a) / (2 * n), rel=0.15)
    weights = rng.standard_normal((f, a)) / 3
    logits = x @ weights
    log_policy = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    errors = []
    for _ in range(60):
        action = (log_policy + rng.gumbel(size=(n, a))).argmax(1)
        errors.append(categorical_sampling_error(x, action, log_policy, weights))
    assert min(errors) > 0
    assert np.mean(errors) == pytest.approx(f * (a - 1) / (2 * n), rel=0.2)


def test_the_fit_of_one_hot_features_is_the_count():
    rng = np.random.default_rng(2)
    policy = rng.dirichlet(np.ones(3), 4)
    state = rng.integers(0, 4, 300)
    action = np.array([rng.choice(3, p=policy[s]) for s in state])
    exact = tabular_sampling_error(counts(state, action, 4, 3), policy)
    fitted = categorical_sampling_error(np.eye(4)[state], action, np.log(policy)[state], np.log(policy))
    assert fitted == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("env", [envs.Target, envs.Pick])
@pytest.mark.parametrize("hidden", [[], [16]])
def test_a_policys_own_samples_have_a_ratio_of_one_and_skewed_ones_more(env, hidden):
    spec = env(num_envs=2).env_spec
    torch.manual_seed(0)
    policy = build_policy(PolicyConfig(kind="mlp", hidden=hidden), spec)
    obs = {"state": torch.rand(1000, *spec.obs["state"].shape)}
    _, extras, _ = policy.act(obs, {}, explore=True)
    own = sampling_error(policy, obs, extras["raw_action"], draws=8)
    assert 0.3 < own.ratio < 3.0
    often = torch.rand(1000) < 0.3
    skewed = extras["raw_action"] + 0.3 if policy.actions.continuous else extras["raw_action"] * often
    assert sampling_error(policy, obs, skewed).ratio > 5.0


def test_measuring_touches_no_global_stream_and_refuses_a_policy_with_a_memory():
    spec = envs.Target(num_envs=2).env_spec
    policy = build_policy(PolicyConfig(kind="mlp", hidden=[4]), spec)
    obs, raw = {"state": torch.rand(50, 2)}, torch.randn(50, 2)
    before = torch.get_rng_state()
    first, again = (sampling_error(policy, obs, raw, seed=3) for _ in range(2))
    assert first == again
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(RobotRLError, match="not for gru"):
        sampling_error(build_policy(PolicyConfig(kind="gru"), spec), obs, raw)
