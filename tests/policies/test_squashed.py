import math

import pytest
import torch

from robotrl.functional.distributions import squash_correction
from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.policies.squashed import LOG_STD_MAX, LOG_STD_MIN, UniformPolicy
from robotrl.types import ActionSpec, ArraySpec, EnvSpec, RobotRLError
from tests.envs_for_tests import Pick, Target

SPEC = Target(num_envs=1).env_spec


def make(**config):
    torch.manual_seed(0)
    return build_policy(PolicyConfig(**{"kind": "squashed", "hidden": [16]} | config), SPEC)


def test_log_probabilities_are_those_of_pytorchs_transformed_distribution():
    policy = make()
    out = torch.randn(50, 4)
    mean, log_std = policy.mean_and_log_std(out)
    base = torch.distributions.Normal(mean.double(), log_std.exp().double())
    reference = torch.distributions.TransformedDistribution(base, torch.distributions.TanhTransform(cache_size=1))
    raw = base.sample()
    expected = reference.log_prob(reference.transforms[0](raw)).sum(-1)
    found, _ = policy.log_prob_and_entropy(out, raw.float())
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)


def test_a_sample_comes_with_the_log_probability_of_itself():
    policy, out = make(), torch.randn(1000, 4)
    torch.manual_seed(1)
    action, log_prob = policy.sample(out)
    raw = torch.atanh(action.double())
    inside = raw.abs().amax(-1) < 5
    expected, _ = policy.log_prob_and_entropy(out.double(), raw)
    torch.testing.assert_close(log_prob[inside].double(), expected[inside], atol=2e-3, rtol=1e-3)


def test_a_samples_gradients_are_those_of_the_formula():
    policy = make()
    out = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)

    def sample(out):
        torch.manual_seed(3)
        return policy.sample(out)

    assert torch.autograd.gradcheck(sample, (out,))


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_a_pullback_is_the_same_sample_and_the_gradient_of_its_first_rows(scale):
    policy = make()
    out = (scale * torch.randn(64, 4)).requires_grad_()
    by_action, by_log_prob = torch.randn(40, 2), torch.randn(40)
    torch.manual_seed(3)
    action, log_prob = policy.sample(out)
    (expected,) = torch.autograd.grad((action[:40], log_prob[:40]), out, (by_action, by_log_prob))
    torch.manual_seed(3)
    again, log_prob_again, pull = policy.sample_pullback(out)
    assert not again.requires_grad
    assert torch.equal(again, action)
    assert torch.equal(log_prob_again, log_prob)
    torch.testing.assert_close(pull(by_action, by_log_prob), expected[:40])


def test_a_sample_is_the_formulas_own():
    policy, out = make(), 3.0 * torch.randn(500, 4, dtype=torch.float64)
    torch.manual_seed(3)
    action, log_prob = policy.sample(out)
    torch.manual_seed(3)
    mean, log_std = policy.mean_and_log_std(out)
    noise = torch.randn(500, 2, dtype=torch.float64)
    raw = mean + log_std.exp() * noise
    torch.testing.assert_close(action, torch.tanh(raw))
    gaussian = torch.distributions.Normal(mean, log_std.exp()).log_prob(raw).sum(-1)
    torch.testing.assert_close(log_prob, gaussian - squash_correction(raw))


@pytest.mark.parametrize("raw", [0.0, 3.0, 20.0, -20.0, 200.0])
def test_the_squash_correction_stays_finite_where_one_minus_tanh_squared_is_zero(raw):
    x = torch.tensor([raw], requires_grad=True)
    value = squash_correction(x)
    exact = 2 * (math.log(2.0) - abs(raw) - math.log1p(math.exp(-2 * abs(raw))))
    assert value.item() == pytest.approx(exact, abs=1e-5, rel=1e-6)
    value.backward()
    assert x.grad.item() == pytest.approx(-2 * math.tanh(raw), abs=1e-5)


def test_the_density_integrates_to_one_over_the_range():
    policy = build_policy(PolicyConfig(kind="squashed", hidden=[4]), _spec(1))
    unit = torch.linspace(-1, 1, 200_001, dtype=torch.float64)[1:-1]
    out = torch.tensor([[0.7, -0.4]], dtype=torch.float64).expand(len(unit), 2)
    log_prob, _ = policy.log_prob_and_entropy(out, torch.atanh(unit).unsqueeze(-1))
    assert torch.trapezoid(log_prob.exp(), unit).item() == pytest.approx(1.0, abs=1e-4)


def test_the_deviation_starts_where_it_is_told_and_stays_within_its_bounds():
    policy = make(log_std_init=-1.0)
    _, log_std = policy.mean_and_log_std(torch.zeros(1, 4))
    torch.testing.assert_close(log_std, torch.full((1, 2), -1.0))
    _, extreme = policy.mean_and_log_std(torch.tensor([[0.0, 0.0, -1e4, 1e4]]))
    torch.testing.assert_close(extreme, torch.tensor([[LOG_STD_MIN, LOG_STD_MAX]]))
    with pytest.raises(RobotRLError, match=r"log_std_init is 2.0; .* between -5 and 2"):
        make(log_std_init=2.0)


def test_actions_fill_the_envs_range_and_without_exploration_repeat():
    policy = make()
    obs = {"state": torch.randn(4000, 2)}
    action, extras, _ = policy.act(obs, {}, explore=True)
    low, high = action.amin(0), action.amax(0)
    assert (low > torch.tensor([-2.0, 0.0]) - 1e-6).all()
    assert (low < torch.tensor([-1.7, 0.1])).all()
    assert (high > torch.tensor([1.7, 0.9])).all()
    assert set(extras) == {"raw_action", "log_prob"}
    first, second = (policy.act(obs, {}, explore=False)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_actions_go_to_the_envs_units_and_back():
    policy = make()
    unit = torch.rand(20, 2) * 2 - 1
    torch.testing.assert_close(policy.actions.from_env(policy.actions.to_env(unit)), unit)


def test_uniform_actions_are_uniform_and_look_like_the_policys_own():
    uniform, obs = UniformPolicy(SPEC, ("state",), torch.device("cpu")), {"state": torch.zeros(20_000, 2)}
    action, extras, _ = uniform.act(obs, {}, explore=True)
    policy_extras = make().act(obs, {}, explore=True)[1]
    assert {k: (v.shape, v.dtype) for k, v in extras.items()} == {
        k: (v.shape, v.dtype) for k, v in policy_extras.items()
    }
    torch.testing.assert_close(action.mean(0), torch.tensor([0.0, 0.5]), atol=0.03, rtol=0)
    torch.testing.assert_close(action.std(0), torch.tensor([4.0, 1.0]) / math.sqrt(12), atol=0.02, rtol=0)


def _spec(dim, bound=1.0):
    return EnvSpec("x", {"state": ArraySpec((3,))}, ActionSpec("continuous", (dim,), (-bound,) * dim, (bound,) * dim))


def test_discrete_and_unbounded_actions_are_refused_in_the_users_words():
    with pytest.raises(RobotRLError, match=r"Pick has discrete actions; .* Use learner=ppo"):
        build_policy(PolicyConfig(kind="squashed"), Pick(num_envs=1).env_spec)
    with pytest.raises(RobotRLError, match="x has actions without bounds"):
        build_policy(PolicyConfig(kind="squashed"), _spec(2, math.inf))
