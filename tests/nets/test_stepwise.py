import pytest
import torch

from robotrl.nets.stepwise import Regression, StepwiseMLP

H, D, A, B = 4, 5, 3, 7


@pytest.fixture
def net():
    torch.manual_seed(0)
    return StepwiseMLP(H, D, [6, 8], A, extra=2).double()


def plain(net, rows, x):
    """The same networks through autograd, one after the other; `x [H, D, B]`."""
    outs = []
    for row, inputs in zip(rows, x, strict=True):
        h = inputs
        layers = net.layers(row)
        for i, layer in enumerate(layers):
            h = layer[:, :-1] @ h + layer[:, -1:]
            h = torch.tanh(h) if i < len(layers) - 1 else h
        outs.append(h)
    return torch.stack(outs)


def test_it_starts_as_pytorchs_layers_with_a_small_last_one(net):
    first, middle, last = net.layers(net.weights)
    assert first.abs().max() <= 1 / D**0.5 and first.abs().max() > 0.8 / D**0.5
    assert middle.abs().max() <= 1 / 6**0.5
    assert last[..., :-1].abs().max() <= 0.1 / 8**0.5
    assert (last[..., -1] == 0).all() and (net.tail(net.weights) == 0).all()
    assert not torch.equal(first[0], first[1])


def test_outputs_are_those_of_the_networks_one_by_one(net):
    x = torch.randn(H, D, B, dtype=torch.float64)
    torch.testing.assert_close(net.run(net.weights, x)[0], plain(net, net.weights, x))


def test_the_jacobian_times_a_vector_is_that_of_autograd(net):
    x, v = torch.randn(H, D, B, dtype=torch.float64), torch.randn_like(net.weights)
    _, expected = torch.autograd.functional.jvp(lambda w: plain(net, w, x), net.weights.data, v)
    _, hidden = net.run(net.weights, x)
    torch.testing.assert_close(net.push(net.weights.data, v, x, hidden), expected)


def test_a_vector_times_the_jacobian_is_that_of_autograd(net):
    x, g = torch.randn(H, D, B, dtype=torch.float64), torch.randn(H, A, B, dtype=torch.float64)
    (expected,) = torch.autograd.grad(plain(net, net.weights, x), net.weights, g)
    _, hidden = net.run(net.weights, x)
    torch.testing.assert_close(net.pull(net.weights.data, g, x, hidden), expected)


def test_many_actions_in_a_place_are_those_actions_one_by_one():
    torch.manual_seed(1)
    critic = StepwiseMLP(H, D + A, [6, 8], 1)
    x, actions = torch.randn(H, D, B), torch.randn(H, A, B, 3)
    got = critic.many(critic.weights.data, x, actions)
    for k in range(3):
        expected, _ = critic.run(critic.weights.data, torch.cat([x, actions[..., k]], 1))
        torch.testing.assert_close(got[..., k], expected.squeeze(1))


def test_the_fit_is_adam_on_the_weighted_squared_error():
    torch.manual_seed(2)
    critic = StepwiseMLP(H, D, [6, 8], 1)
    x, target = torch.randn(D, B), torch.randn(B)
    weight = torch.tensor([1 / 3] * 3 + [1 / 4] * 4)
    row = critic.weights.data[2].clone().requires_grad_()
    adam = torch.optim.Adam([row], lr=1e-2)
    for _ in range(6):
        error = (plain(critic, row[None], x[None])[0, 0] - target).square()
        adam.zero_grad()
        (weight * error).sum().backward()
        adam.step()
    others = critic.weights.data[[0, 1, 3]].clone()
    regression = Regression(critic, weight)
    ones = torch.cat([x, torch.ones(1, B)])
    for _ in range(2):  # its buffers leave nothing behind
        got = critic.weights.data[2].clone()
        errors = regression.fit(got, ones, target, steps=6, learning_rate=1e-2)
        torch.testing.assert_close(got, row.data, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(errors, error.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(regression.predict(got, ones), plain(critic, got[None], x[None])[0, 0])
    assert torch.equal(critic.weights.data[[0, 1, 3]], others)
