"""LaProp is the published one, clips each tensor by its own norm, and never writes what is not finite."""

import torch
from torch import nn

from robotrl.nets.laprop import LaProp


def parameters():
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.zeros(4))]


def set_gradients(params, scale=1.0):
    for p in params:
        p.grad.copy_(scale * torch.randn_like(p))


def test_steps_are_those_of_the_written_out_algorithm():
    params = parameters()
    optimiser = LaProp(params, 0.1, warmup=4, clip=0.3)
    plain = [p.detach().clone() for p in params]
    mean, square = [torch.zeros_like(p) for p in plain], [torch.zeros_like(p) for p in plain]
    for t in range(1, 7):
        set_gradients(params)
        for i, p in enumerate(plain):
            g = params[i].grad.clone()
            g *= min(1.0, 0.3 * max(1e-3, p.norm().item()) / g.norm().item())
            square[i] = 0.999 * square[i] + 0.001 * g**2
            mean[i] = 0.9 * mean[i] + 0.1 * g / ((square[i] / (1 - 0.999**t)).sqrt() + 1e-20)
            plain[i] = p - 0.1 * min(1.0, t / 4) * mean[i] / (1 - 0.9**t)
        optimiser.step()
        for p, expected in zip(params, plain, strict=True):
            torch.testing.assert_close(p.detach(), expected, rtol=1e-4, atol=1e-6)


def test_a_gradient_that_is_not_finite_changes_no_weight_and_is_counted():
    params = parameters()
    optimiser = LaProp(params, 0.1)
    for _ in range(2):
        set_gradients(params)
        optimiser.step()
    before = optimiser.flat.detach().clone()
    for bad in (torch.inf, torch.nan):
        set_gradients(params)
        params[0].grad[0, 0] = bad
        optimiser.step()
    assert torch.equal(optimiser.flat.detach(), before)
    assert int(optimiser.skipped_in_a_row) == 2
    set_gradients(params)
    assert optimiser.step().isfinite()
    assert int(optimiser.skipped_in_a_row) == 0
    assert optimiser.flat.isfinite().all()
    assert not torch.equal(optimiser.flat.detach(), before)


def test_it_continues_exactly_from_its_state():
    one, other = parameters(), parameters()
    first, second = LaProp(one, 0.1), LaProp(other, 0.1)
    set_gradients(one)
    first.step()
    second.load_state_dict(first.state_dict())
    second.flat.data.copy_(first.flat.data)
    torch.manual_seed(5)
    set_gradients(one)
    torch.manual_seed(5)
    set_gradients(other)
    first.step()
    second.step()
    assert torch.equal(first.flat, second.flat)
