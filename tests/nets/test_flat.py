import pytest
import torch
from torch import nn

from robotrl.nets.flat import clip_gradient, flatten_parameters, zero_gradient
from robotrl.nets.mlp import MLP


def nets():
    torch.manual_seed(0)
    first = MLP(3, [5, 4], 2)
    second = MLP(3, [5, 4], 2)
    second.load_state_dict(first.state_dict())
    return first, second


def test_names_values_and_outputs_stay():
    net, like = nets()
    x, names = torch.randn(6, 3), [name for name, _ in net.named_parameters()]
    flat = flatten_parameters(net.parameters())
    assert [name for name, _ in net.named_parameters()] == names == [name for name, _ in like.named_parameters()]
    assert net.state_dict().keys() == like.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), like.parameters(), strict=True))
    assert flat.numel() == sum(p.numel() for p in like.parameters())
    assert torch.equal(net(x), like(x))


@pytest.mark.parametrize("make", [lambda p: torch.optim.Adam(p, lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)])
def test_an_optimiser_of_the_vector_trains_as_one_of_the_parameters(make):
    net, like = nets()
    flat = flatten_parameters(net.parameters())
    ours, theirs = make([flat]), make(like.parameters())
    for step in range(5):
        x = torch.randn(6, 3, generator=torch.Generator().manual_seed(step))
        zero_gradient(flat)
        like.zero_grad()
        for module in (net, like):
            module(x).square().sum().backward()
        grads = torch.cat([p.grad.reshape(-1) for p in like.parameters()])
        assert torch.equal(flat.grad, grads)
        ours.step()
        theirs.step()
    for a, b in zip(net.parameters(), like.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_loading_and_writing_a_module_reaches_the_vector():
    net, like = nets()
    flat = flatten_parameters(net.parameters())
    with torch.no_grad():
        for p in like.parameters():
            p.add_(1.0)
    net.load_state_dict(like.state_dict())
    assert torch.equal(flat.detach(), torch.cat([p.detach().reshape(-1) for p in like.parameters()]))
    assert all(p.data_ptr() >= flat.data_ptr() for p in net.parameters())


def test_parameters_of_several_modules_may_share_a_vector():
    first, second = nets()
    bonus = nn.Parameter(torch.zeros(2))
    flat = flatten_parameters([*first.parameters(), bonus, *second.parameters()])
    (first(torch.ones(1, 3)) + second(torch.ones(1, 3)) + bonus).sum().backward()
    assert bonus.grad.tolist() == [1.0, 1.0]
    assert torch.equal(flat.grad[: flat.numel() // 2 - 1], flat.grad[flat.numel() // 2 + 1 :])


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_clipping_is_torchs(scale):
    net, like = nets()
    flat = flatten_parameters(net.parameters())
    for module in (net, like):
        (scale * module(torch.ones(4, 3)).sum()).backward()
    norm = clip_gradient(flat, 0.5)
    expected = nn.utils.clip_grad_norm_(like.parameters(), 0.5)
    torch.testing.assert_close(norm, expected)
    torch.testing.assert_close(flat.grad, torch.cat([p.grad.reshape(-1) for p in like.parameters()]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_becomes_zero_and_its_norm_tells(bad):
    net, _ = nets()
    flat = flatten_parameters(net.parameters())
    flat.grad[3] = bad
    flat.grad[5] = 1.0
    assert not clip_gradient(flat, 0.5).isfinite()
    assert (flat.grad == 0).all()
