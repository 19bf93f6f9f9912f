"""Numbers survive the way into bins and back, and equal logits mean exactly zero."""

import pytest
import torch

from robotrl.functional.twohot import (
    gaussian_histogram,
    mean_bin,
    symexp,
    symexp_bins,
    symlog,
    two_hot,
    two_hot_loss,
    two_hot_mean,
)

BINS = symexp_bins()


def test_symexp_undoes_symlog_over_many_magnitudes():
    x = torch.cat([-torch.logspace(-6, 6, 50), torch.zeros(1), torch.logspace(-6, 6, 50)])
    torch.testing.assert_close(symexp(symlog(x)), x, rtol=1e-4, atol=1e-7)
    assert symlog(torch.tensor(0.0)) == 0.0
    torch.testing.assert_close(symlog(torch.tensor(-9.0)), -torch.log(torch.tensor(10.0)))


def test_bins_are_exactly_symmetric_and_one_of_them_is_zero():
    assert len(BINS) == 255
    assert BINS[127] == 0.0
    assert torch.equal(BINS, -BINS.flip(0))
    assert (BINS.diff() > 0).all()
    with pytest.raises(ValueError, match="must be odd"):
        symexp_bins(254)


@pytest.mark.parametrize("value", [0.0, 1e-3, -0.7, 3.0, -1000.0, 123456.0])
def test_two_hot_weights_have_the_value_as_their_mean(value):
    weights = two_hot(torch.tensor([value]), BINS)
    assert (weights > 0).sum() <= 2
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0))
    torch.testing.assert_close((weights * BINS).sum().item(), value, rtol=1e-4, atol=1e-6)
    logits = torch.log(weights + 1e-30)
    torch.testing.assert_close(two_hot_mean(logits, BINS)[0].item(), value, rtol=1e-3, atol=1e-5)


def test_what_lies_beyond_the_bins_is_put_on_the_outermost():
    weights = two_hot(torch.tensor([1e12, -1e12]), BINS)
    assert weights[0, -1] == 1.0
    assert weights[1, 0] == 1.0


def test_equal_logits_mean_exactly_zero():
    assert torch.equal(two_hot_mean(torch.full((4, 255), 0.3), BINS), torch.zeros(4))


def test_the_loss_is_the_cross_entropy_with_the_two_hot_target():
    logits, target = torch.randn(7, 255), torch.randn(7) * 50.0
    expected = -(two_hot(target, BINS) * torch.log_softmax(logits, -1)).sum(-1)
    torch.testing.assert_close(two_hot_loss(logits, target, BINS), expected)


def test_the_losses_of_several_targets_add_up_and_so_do_their_gradients():
    logits = torch.randn(7, 255, dtype=torch.float64, requires_grad=True)
    targets, bins = torch.randn(7, 2, dtype=torch.float64) * 50.0, BINS.double()
    weights = torch.rand(7, dtype=torch.float64)
    expected = -sum((two_hot(t, bins) * torch.log_softmax(logits, -1)).sum(-1) for t in targets.unbind(-1))
    loss = two_hot_loss(logits, targets, bins)
    torch.testing.assert_close(loss, expected)
    (by_hand,), (by_autograd,) = (torch.autograd.grad((weights * x).sum(), logits) for x in (loss, expected))
    torch.testing.assert_close(by_hand, by_autograd)


def test_a_gaussians_histogram_is_what_counting_its_samples_gives():
    edges, x, sigma = torch.linspace(-1.0, 1.0, 9), torch.tensor([-0.9, 0.05, 0.6]), 0.3
    weights = gaussian_histogram(x, edges, sigma)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3))
    samples = x[:, None] + sigma * torch.randn(3, 400_000, generator=torch.Generator().manual_seed(0))
    counted = torch.stack([torch.histc(row, 8, -1.0, 1.0) for row in samples])
    torch.testing.assert_close(weights, counted / counted.sum(-1, keepdim=True), atol=4e-3, rtol=0.0)


def test_beyond_the_edges_and_with_the_narrowest_gaussian_the_nearest_bin_has_all():
    edges = torch.linspace(-1.0, 1.0, 9)
    weights = gaussian_histogram(torch.tensor([-50.0, 0.1, 50.0]), edges, 1e-3)
    torch.testing.assert_close(weights, torch.nn.functional.one_hot(torch.tensor([0, 4, 7]), 8).float())


def test_the_mean_moves_with_every_bit_of_probability():
    probs = torch.tensor([[0.3, 0.0, 0.05, 0.1, 0.55], [0.6, 0.0, 0.0, 0.0, 0.4], [0.0, 0.0, 0.0, 0.0, 1.0]])
    assert mean_bin(probs.log()).tolist() == [3, 2, 4]  # 2.6, 1.6, 4
