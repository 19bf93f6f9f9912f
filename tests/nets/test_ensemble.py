import pytest
import torch
from torch import nn

from robotrl.nets.ensemble import Ensemble
from robotrl.nets.flat import flatten_parameters, zero_gradient
from robotrl.nets.stack import Layers, relu_stack

SHAPES = {
    "two critics": {"size": 2},
    "ten with layer normalisation": {"size": 10, "layer_norm": True},
    "one": {"size": 1},
    "several outputs": {"size": 3, "out_dim": 5},
    "elu": {"size": 2, "activation": "elu"},
    "tanh, normalised": {"size": 2, "activation": "tanh", "layer_norm": True},
}


def make(**options):
    torch.manual_seed(0)
    net = Ensemble(7, [24, 16], **options)
    with torch.no_grad():  # gains, shifts and biases start at ones and zeros, which would hide a mistake
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def member(net, e):
    """One member as PyTorch's own layers, with parameters of its own."""
    layers, last = [], len(net.weights) - 1
    for i, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
        linear = nn.Linear(*weight.shape[1:])
        linear.load_state_dict({"weight": weight[e].t(), "bias": bias[e, 0]})
        layers.append(linear)
        if i < last and net.layer_norm:
            norm = nn.LayerNorm(weight.shape[2])
            norm.load_state_dict({"weight": net.gains[i][e, 0], "bias": net.shifts[i][e, 0]})
            layers.append(norm)
        if i < last:
            layers.append({"relu": nn.ReLU, "elu": nn.ELU, "tanh": nn.Tanh}[net.activation]())
    return nn.Sequential(*layers)


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
def test_stacked_members_are_a_loop_of_single_ones_in_value_and_every_gradient(options):
    net = make(**options)
    x = torch.randn(11, 7, requires_grad=True)
    weight_of_loss = torch.randn(net.size, 11, options.get("out_dim", 1))
    out = net(x)
    (out * weight_of_loss).sum().backward()
    x_grad = x.grad.clone()
    x.grad = None
    for e in range(net.size):
        single = member(net, e)
        value = single(x)
        torch.testing.assert_close(out[e], value)
        (value * weight_of_loss[e]).sum().backward()
        linears = [m for m in single if isinstance(m, nn.Linear)]
        norms = [m for m in single if isinstance(m, nn.LayerNorm)]
        for i, linear in enumerate(linears):
            torch.testing.assert_close(net.weights[i].grad[e], linear.weight.grad.t(), atol=2e-5, rtol=2e-5)
            torch.testing.assert_close(net.biases[i].grad[e, 0], linear.bias.grad, atol=2e-5, rtol=2e-5)
        for i, norm in enumerate(norms):
            torch.testing.assert_close(net.gains[i].grad[e, 0], norm.weight.grad, atol=2e-5, rtol=2e-5)
            torch.testing.assert_close(net.shifts[i].grad[e, 0], norm.bias.grad, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(x_grad, x.grad, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
def test_a_pullback_gives_the_gradients_of_autograd(options):
    net = make(**options)
    flat = flatten_parameters(net.parameters())
    x = torch.randn(11, 7, requires_grad=True)
    grad = torch.randn(net.size, 11, options.get("out_dim", 1))
    net(x).backward(grad)
    by_weights, by_x = flat.grad.clone(), x.grad.clone()
    flat.grad.fill_(7.0)
    out, pull = net.pullback(x)
    torch.testing.assert_close(out, net(x).detach())
    torch.testing.assert_close(pull(grad, to_weights=False, to_x=slice(None)), by_x)
    some = net.pullback(x)[1](grad, to_weights=False, to_x=slice(-3, None))
    torch.testing.assert_close(some, by_x[:, -3:])
    assert (flat.grad == 7.0).all()
    out, pull = net.pullback(x)
    assert pull(grad) is None
    torch.testing.assert_close(flat.grad, by_weights, atol=2e-5, rtol=2e-5)  # overwritten, not added to


def test_a_pullback_keeps_what_dropout_dropped():
    net = make(size=2, dropout=0.5)
    flatten_parameters(net.parameters())
    x = torch.randn(4, 7)
    step = 1e-3 * torch.randn(4, 7)

    def at(x):
        torch.manual_seed(5)  # the same units are dropped
        return net.pullback(x)

    out, pull = at(x)
    assert not torch.equal(out, net.pullback(x)[0])
    predicted = (pull(torch.ones_like(out), to_weights=False, to_x=slice(None)) * 2 * step).sum()
    torch.testing.assert_close((at(x + step)[0] - at(x - step)[0]).sum(), predicted, rtol=0.05, atol=1e-3)


def test_a_stack_can_be_differentiated_twice():
    torch.manual_seed(0)
    shapes = {"weights": [(2, 3, 5), (2, 5, 1)], "biases": [(2, 1, 5), (2, 1, 1)], "gains": [(2, 1, 5)]}
    tensors = {k: [torch.randn(s, dtype=torch.float64) for s in v] for k, v in shapes.items()}
    layers = Layers(**tensors, shifts=[torch.randn(2, 1, 5, dtype=torch.float64)], dtype=torch.float64)
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    weight = layers.weights[0].requires_grad_()
    slope = torch.autograd.grad(relu_stack(x, layers).double().sum(), x, create_graph=True)[0]
    (by_weight,) = torch.autograd.grad(slope.square().sum(), weight)
    step = 1e-5 * torch.randn_like(weight)

    def penalty(sign):
        with torch.no_grad():
            weight.add_(sign * step)
        value = torch.autograd.grad(relu_stack(x, layers).double().sum(), x)[0].square().sum()
        with torch.no_grad():
            weight.sub_(sign * step)
        return value

    torch.testing.assert_close(penalty(1) - penalty(-1), 2 * (by_weight * step).sum(), rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"layer_norm": True}])
def test_asking_some_members_gives_what_all_would_have_said_there(options):
    net, x = make(size=5, **options), torch.randn(4, 7)
    chosen = torch.tensor([3, 1])
    torch.testing.assert_close(net(x, chosen), net(x)[chosen])


def test_members_start_different():
    net, x = Ensemble(7, [24, 16], 2), torch.randn(4, 7)
    first, second = net(x)
    assert (first - second).abs().min() > 1e-3


@pytest.mark.parametrize("options", [{}, {"layer_norm": True}])
def test_bf16_rounds_products_only_and_keeps_fp32_weights_and_gradients(options):
    exact, rounded = make(size=2, **options), make(size=2, precision="bf16", **options)
    x = torch.randn(64, 7)
    for net in (exact, rounded):
        flat = flatten_parameters(net.parameters())
        zero_gradient(flat)
        out = net(x)
        assert out.dtype == torch.float32
        out.square().mean().backward()
        assert flat.dtype == flat.grad.dtype == torch.float32
        net.flat = flat
    assert torch.equal(exact.flat, rounded.flat)
    torch.testing.assert_close(rounded(x), exact(x), atol=0.05, rtol=0.05)
    error = (rounded.flat.grad - exact.flat.grad).norm() / exact.flat.grad.norm()
    assert 0.0 < error < 0.02


def test_dropout_acts_in_training_and_not_in_evaluation():
    net, x = Ensemble(7, [64], 2, dropout=0.5), torch.randn(4, 7)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))
