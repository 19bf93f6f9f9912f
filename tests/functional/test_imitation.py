"""Losses against their minima, absorbing states and boosting weights by hand."""

import math

import pytest
import torch
from torch.nn import functional as F

from robotrl.functional import imitation as im
from robotrl.nets.discriminator import Discriminator


@pytest.mark.parametrize("rate", [0.05, 0.3])
@pytest.mark.parametrize("count", [1, 2, 21, 300])
def test_boosting_weights_are_those_of_repeated_mixing_and_sum_to_one(count, rate):
    weights = torch.ones(1, dtype=torch.float64)
    for _ in range(count - 1):
        weights = torch.cat([weights * (1.0 - rate), weights.new_tensor([rate])])
    torch.testing.assert_close(im.boosting_weights(count, rate), weights)
    assert im.boosting_weights(count, rate).sum().item() == pytest.approx(1.0, abs=1e-12)


def test_the_first_member_keeps_its_weight_for_long():
    assert im.boosting_weights(10, 0.05)[0].item() == pytest.approx(0.95**9)
    assert im.boosting_weights(59, 0.05).argmax() == 0
    assert im.boosting_weights(60, 0.05).argmax() == 59


@pytest.mark.parametrize("loss", [im.cross_entropy_loss, im.reverse_kl_loss])
def test_both_losses_are_least_at_the_log_ratio(loss):
    # two outcomes, of which the expert shows the first in 80 % of the steps, the policy in 30 %
    expert, policy = torch.tensor([0.8, 0.2]), torch.tensor([0.3, 0.7])
    d = torch.zeros(2, requires_grad=True)
    adam = torch.optim.Adam([d], lr=0.02)
    for _ in range(2000):
        adam.zero_grad()
        loss(d, d, expert, policy).backward()
        adam.step()
    torch.testing.assert_close(d.detach(), (expert / policy).log(), atol=2e-3, rtol=0)


def test_a_weight_counts_as_that_many_copies():
    values, weight = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.0, 3.0])
    assert im.weighted_mean(values, weight).item() == pytest.approx((1 + 3 * 4) / 4)


def test_every_termination_adds_one_absorbing_step():
    pairs = torch.randn(4, 3)
    with_it, weight = im.with_absorbing(pairs, torch.tensor([False, True, True, False]))
    assert torch.equal(with_it[:4], pairs)
    assert with_it[4].tolist() == [0.0, 0.0, 1.0]
    assert weight.tolist() == [1.0, 1.0, 1.0, 1.0, 2.0]


def test_where_nothing_terminates_the_absorbing_state_counts_for_nothing():
    _, weight = im.with_absorbing(torch.randn(4, 3), torch.zeros(4, dtype=torch.bool))
    assert weight[-1] == 0


def test_interpolates_lie_on_the_lines_between_the_pairs():
    none = torch.zeros(64, dtype=torch.bool)
    expert, policy = torch.ones(64, 2), torch.zeros(64, 2)
    points = im.interpolates(expert, policy, none, none)
    assert torch.equal(points[:, 0], points[:, 1]), "one share a pair"
    assert ((points >= 0) & (points <= 1)).all()
    assert 0.3 < points[:, 0].mean() < 0.7


def test_half_of_the_terminating_pairs_stand_for_the_absorbing_state():
    ends = torch.arange(4000) < 2000
    pairs = F.pad(torch.full((4000, 1), 5.0), (0, 1))
    points = im.interpolates(pairs, pairs, ends, ~ends)
    expert_side = points[ends]  # there the policy's pair stays, so the indicator is the share, or 0
    assert 0.4 < (expert_side[:, 1] > 0).float().mean() < 0.6
    assert 0.4 < (points[~ends][:, 1] > 0).float().mean() < 0.6


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_written_gradient_and_the_penalty_are_autograds(activation, bounded):
    net = Discriminator(5, [16, 8], activation=activation, bounded=bounded).double()
    for bias in net.biases:
        torch.nn.init.normal_(bias)
    x = torch.randn(32, 5, dtype=torch.float64, requires_grad=True)
    out, gradient = net.with_gradient(x)
    torch.testing.assert_close(out, net(x))
    (expected,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    torch.testing.assert_close(gradient, expected)
    one = torch.tensor(1)
    ours = torch.autograd.grad(im.gradient_penalty(gradient, one), list(net.parameters()), allow_unused=True)
    theirs = torch.autograd.grad(im.gradient_penalty(expected, one), list(net.parameters()), allow_unused=True)
    for a, b, parameter in zip(ours, theirs, net.parameters(), strict=True):
        zero = torch.zeros_like(parameter)
        torch.testing.assert_close(zero if a is None else a, zero if b is None else b)


def test_without_hidden_layers_the_gradient_is_the_weight():
    net = Discriminator(3, [])
    _, gradient = net.with_gradient(torch.randn(4, 3))
    assert torch.equal(gradient, net.weights[0].expand(4, 3))


def test_the_penalty_is_the_mean_square_of_how_far_slopes_are_from_one():
    gradient = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    assert im.gradient_penalty(gradient, torch.tensor(2)).item() == pytest.approx((16 + 1) / 2, rel=1e-5)


def test_the_indicator_counts_in_the_penalty_only_where_something_terminated():
    gradient = torch.tensor([[0.0, 1.0]])
    assert im.gradient_penalty(gradient, torch.tensor(1)).item() == pytest.approx(0.0, abs=1e-6)
    assert im.gradient_penalty(gradient, torch.tensor(0)).item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("loss", [im.cross_entropy_loss, im.reverse_kl_loss])
def test_an_unbounded_discriminator_learns_the_log_ratio_of_two_gaussians(loss):
    torch.manual_seed(0)
    net = Discriminator(1, [64, 64])
    adam = torch.optim.Adam(net.parameters(), lr=3e-3)
    ones = torch.ones(512)
    for step in range(800):
        adam.param_groups[0]["lr"] = 3e-3 * (1 - step / 800)
        expert, policy = torch.randn(512, 1) * 0.8 + 0.5, torch.randn(512, 1)
        adam.zero_grad()
        loss(net(expert), net(policy), ones, ones).backward()
        adam.step()
    x = torch.linspace(-1.0, 2.0, 13).unsqueeze(-1)
    exact = (-0.5 * ((x - 0.5) / 0.8).square() - math.log(0.8) + 0.5 * x.square()).squeeze(-1)
    assert (net(x) - exact).abs().max() < 0.15


def test_a_bounded_discriminator_cannot_leave_its_bounds():
    net = Discriminator(2, [8], bounded=True)
    assert net(torch.randn(100, 2) * 1e4).abs().max() <= 1.0
