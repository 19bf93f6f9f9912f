import pytest
import torch

from robotrl.functional.natural import conjugate_gradients
from robotrl.learners.trpo import NPG, TRPO, NPGConfig, TRPOConfig
from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.types import RobotRLError, group
from tests import envs_for_tests as envs
from tests.learners.cases import make


def one_update(name, env, **config):
    parts = make(name, env, policy={"hidden": [4]}, **config)
    rollout = parts.collector.collect(parts.learner.acting, 24)
    before = parts.learner._actor_flat.data.clone()
    metrics, _ = parts.learner.update({"online": rollout})
    return parts.learner, rollout, before, metrics


def divergence(learner, rollout, at):
    """KL of the policy with parameters `at` from the one it has, through autograd."""
    policy = learner.policy
    x, first = policy.inputs(group(rollout, "obs")), rollout["is_first"]
    with torch.no_grad():
        old = policy.sequence(x, {}, first)
        old_std = policy.log_std.clone()

    def kl(flat):
        values, start = {}, 0
        for name, p in [(n, p) for n, p in policy.named_parameters() if p.requires_grad]:
            values[name] = flat[start : start + p.numel()].view_as(p)
            start += p.numel()
        h = x["vector"]
        layers = [n.removesuffix(".weight") for n in values if n.endswith(".weight")]
        for i, layer in enumerate(layers):
            h = h @ values[layer + ".weight"].t() + values[layer + ".bias"]
            h = torch.tanh(h) if i < len(layers) - 1 else h
        std = values.get("log_std", policy.log_std)
        return learner._kl(old, old_std, h) if "log_std" not in values else _gaussian(old, old_std, h, std)

    return kl(at), kl


def _gaussian(mean, log_std, new, new_log_std):
    p = torch.distributions.Normal(mean, log_std.exp())
    q = torch.distributions.Normal(new, new_log_std.exp())
    return torch.distributions.kl_divergence(p, q).sum(-1).mean()


def named_flat(policy):
    return torch.cat([p.detach().reshape(-1) for _, p in policy.named_parameters() if p.requires_grad])


@pytest.mark.parametrize("env_class", [envs.Target, envs.Pick])
def test_the_fisher_product_is_the_second_derivative_of_the_divergence(env_class):
    parts = make("trpo", env_class(num_envs=4), policy={"hidden": [4], "normalise_obs": False}, damping=0.0)
    learner = parts.learner
    rollout = parts.collector.collect(learner.acting, 6)
    _, kl = divergence(learner, rollout, named_flat(learner.policy))
    hessian = torch.autograd.functional.hessian(kl, named_flat(learner.policy))
    products = []
    solve = conjugate_gradients

    def watched(product, b, **kwargs):
        v = torch.randn_like(b)
        products.append((v, product(v)))
        return solve(product, b, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robotrl.learners.trpo.conjugate_gradients", watched)
        learner.update({"online": rollout})
    order = [n for n, p in learner.policy.named_parameters() if p.requires_grad]
    sizes = {n: p.numel() for n, p in learner.policy.named_parameters()}
    own = {id(p): n for n, p in learner.policy.named_parameters()}
    mine = [own[id(p)] for p in learner._parameters]
    v, got = (dict(zip(mine, x.split([sizes[n] for n in mine]), strict=True)) for x in products[0])
    expected = hessian @ torch.cat([v[n] for n in order])
    torch.testing.assert_close(torch.cat([got[n] for n in order]), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("env_class", [envs.Target, envs.Pick])
def test_a_step_improves_the_surrogate_and_stays_within_the_divergence(env_class):
    _, _, _, metrics = one_update("trpo", env_class(num_envs=8), max_kl=0.01)
    assert 0 < metrics["policy/kl"] <= 0.01
    assert metrics["policy/improvement"] > 0
    assert metrics["policy/step_share"] > 0


def test_the_natural_gradient_steps_as_far_as_the_divergence_says_to_second_order():
    learner, _, before, metrics = one_update("npg", envs.Target(num_envs=8), max_kl=1e-4, damping=1e-2)
    assert 0.5e-4 < metrics["policy/kl"] < 1.1e-4  # the damping takes some of it
    assert metrics["policy/step_share"] == 1
    assert not torch.equal(before, learner._actor_flat.data)


def test_advantages_that_are_not_finite_leave_the_policy_as_it_is():
    for name in ("trpo", "npg"):
        parts = make(name, envs.Target(num_envs=2), value_epochs=1)
        rollout = parts.collector.collect(parts.learner.acting, 8)
        rollout["reward"][3] = torch.nan
        before = parts.learner._actor_flat.data.clone(), parts.learner._critic_flat.data.clone()
        parts.learner.update({"online": rollout})
        assert torch.equal(before[0], parts.learner._actor_flat.data), name
        assert torch.equal(before[1], parts.learner._critic_flat.data), name


def test_a_squashed_policy_is_refused():
    env = envs.Target(num_envs=2)
    policy = build_policy(PolicyConfig(kind="squashed"), env.env_spec)
    with pytest.raises(RobotRLError, match="policy=mlp, cnn or gru"):
        TRPO(policy, env.env_spec, TRPOConfig(), num_envs=2)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"max_kl": 0.0}, "max_kl"),
        ({"damping": -1.0}, "damping"),
        ({"gamma": 1.5}, "gamma"),
        ({"cg_steps": 0}, "cg_st"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, text):
    with pytest.raises(RobotRLError, match=text):
        TRPOConfig(**settings)


def test_npg_is_trpo_without_the_line_search():
    assert TRPOConfig().use_line_search and not NPGConfig().use_line_search
    assert NPG.update is TRPO.update
