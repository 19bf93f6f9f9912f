"""The clipped surrogate and its gradient against autograd."""

import torch

from robotrl.functional.surrogate import clipped_surrogate


def test_its_gradient_is_that_of_autograd():
    torch.manual_seed(0)
    log_ratio = (0.4 * torch.randn(7, 5, dtype=torch.float64)).requires_grad_()
    advantage = torch.randn(7, 5, dtype=torch.float64)
    ratio = log_ratio.exp()
    expected = -torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
    expected.backward()
    loss, gradient = clipped_surrogate(log_ratio.detach(), advantage, 0.2)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, log_ratio.grad)


def test_only_moves_that_went_too_far_already_have_no_gradient():
    log_ratio = torch.log(torch.tensor([0.5, 0.5, 1.0, 1.5, 1.5]))
    advantage = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0])
    _, gradient = clipped_surrogate(log_ratio, advantage, 0.2)
    assert (gradient != 0).tolist() == [True, False, True, False, True]
