import torch
from torch.distributions import Categorical, Independent, Normal, kl_divergence

from robotrl.functional.distributions import (
    categorical_entropy,
    categorical_log_prob,
    gaussian_entropy,
    gaussian_kl,
    gaussian_log_prob,
)


def gaussians(count=2):
    generator = torch.Generator().manual_seed(5)
    draw = torch.randn(2 * count, 7, 4, 3, generator=generator, dtype=torch.float64)
    return [(draw[2 * i], 0.7 * draw[2 * i + 1] - 0.5) for i in range(count)]


def torch_gaussian(mean, log_std):
    return Independent(Normal(mean, log_std.exp()), 1)


def test_gaussians_are_those_of_torch_distributions():
    (mean, log_std), (x, other_log_std) = gaussians()
    p, q = torch_gaussian(mean, log_std), torch_gaussian(x, other_log_std)
    torch.testing.assert_close(gaussian_log_prob(x, mean, log_std), p.log_prob(x))
    torch.testing.assert_close(gaussian_entropy(log_std), p.entropy())
    torch.testing.assert_close(gaussian_kl(mean, log_std, x, other_log_std), kl_divergence(p, q))


def test_one_deviation_serves_a_whole_batch():
    (mean, log_std), (x, _) = gaussians()
    shared = log_std[0, 0]
    expected = torch_gaussian(mean, shared.expand_as(mean))
    torch.testing.assert_close(gaussian_log_prob(x, mean, shared), expected.log_prob(x))
    torch.testing.assert_close(gaussian_entropy(shared), expected.entropy()[0, 0])


def test_gradients_of_the_gaussian_are_those_of_torch_distributions():
    (mean, log_std), (x, _) = gaussians()
    found = []
    for log_prob in (gaussian_log_prob, lambda a, m, s: torch_gaussian(m, s).log_prob(a)):
        leaves = [v.clone().requires_grad_() for v in (x, mean, log_std)]
        found.append(torch.autograd.grad(log_prob(*leaves).square().sum(), leaves))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_divergence_from_itself_is_zero_and_from_others_positive():
    (mean, log_std), (other, other_log_std) = gaussians()
    assert gaussian_kl(mean, log_std, mean, log_std).abs().max() < 1e-12
    assert (gaussian_kl(mean, log_std, other, other_log_std) > 0).all()


def test_categoricals_are_those_of_torch_distributions():
    generator = torch.Generator().manual_seed(5)
    logits = 3 * torch.randn(7, 4, 6, generator=generator, dtype=torch.float64)
    action = torch.randint(0, 6, (7, 4), generator=generator)
    expected = Categorical(logits=logits)
    torch.testing.assert_close(categorical_log_prob(action, logits), expected.log_prob(action))
    torch.testing.assert_close(categorical_log_prob(action.int(), logits), expected.log_prob(action))
    torch.testing.assert_close(categorical_entropy(logits), expected.entropy())


def test_categoricals_are_finite_for_logits_of_any_size():
    logits = torch.tensor([[1e4, 0.0, -1e4]], requires_grad=True)
    value = categorical_log_prob(torch.tensor([2]), logits) + categorical_entropy(logits)
    assert value.item() == -2e4
    value.sum().backward()
    assert torch.isfinite(logits.grad).all()
