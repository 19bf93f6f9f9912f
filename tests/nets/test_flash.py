import pytest
import torch

from robotrl.nets.flash import FlashStack
from robotrl.nets.flat import flatten_parameters
from tests.nets.flash_reference import AsWritten

SHAPES = {"two critics": (2, 5, 8, 2, 7), "an actor": (1, 3, 6, 1, 4), "no block": (3, 4, 5, 0, 2)}
ROWS = {"the first half": slice(0, 9), "the second half": slice(9, None), "all": slice(0, None)}


def make(shape):
    """In float64, with gains and shifts that would show a mistake, and with statistics of some batches."""
    torch.manual_seed(0)
    net = FlashStack(*shape).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    for _ in range(3):
        net.of_batch(1.0 + 2.0 * torch.randn(18, shape[1], dtype=torch.float64), slice(0, None))
    return net


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_outputs_gradients_and_statistics_of_a_batch_are_those_of_the_network_as_written(shape, rows):
    net = make(shape)
    plain, flat = AsWritten(net), flatten_parameters(net.parameters())
    x = torch.randn(18, shape[1], dtype=torch.float64)
    expected = plain(x, of_batch=True)[:, rows]
    weight = torch.randn_like(expected)
    flat.grad.fill_(7.0)
    out, pull = net.pullback(x, rows)
    close(out, expected.detach())
    pull(weight)
    for parameter, value in zip(net.parameters(), torch.autograd.grad(expected, plain.parameters, weight), strict=True):
        close(parameter.grad, value)
    for found, followed in zip(net.buffers(), plain.net.buffers(), strict=True):
        close(found, followed)
    close(net.of_batch(x, rows), out)  # running statistics have moved, those of the batch are the same


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_with_running_statistics_outputs_and_the_gradient_by_the_input_are_those_as_written(shape):
    net = make(shape)
    plain, flat, before = AsWritten(net), flatten_parameters(net.parameters()), [b.clone() for b in net.buffers()]
    x = torch.randn(6, shape[1], dtype=torch.float64, requires_grad=True)
    expected = plain(x, of_batch=False)
    weight = torch.randn_like(expected)
    out, pull = net.pullback_to_input(x)
    close(out, expected.detach())
    close(net(x), expected)
    close(pull(weight), torch.autograd.grad(expected, x, weight)[0])
    assert not flat.grad.any()
    assert all(torch.equal(b, c) for b, c in zip(net.buffers(), before, strict=True))


def test_steps_and_their_successors_are_normalised_together():
    """The batch's statistics are of both halves: moving the successors moves what is said of the steps."""
    net, x = make(SHAPES["two critics"]), torch.randn(20, 5, dtype=torch.float64)
    alone = net.of_batch(x[:10], slice(0, 10))
    assert not torch.allclose(net.of_batch(x, slice(0, 10)), alone)


def test_normalising_gives_rows_gains_and_shifts_their_norm_and_moves_no_direction():
    net = make(SHAPES["two critics"])
    before = [weight.clone() for weight in net.weights]
    net.normalise()
    for weight, old in zip(net.weights, before, strict=True):
        close(torch.linalg.vector_norm(weight, dim=-1), torch.ones_like(weight[..., 0]))
        close(torch.cosine_similarity(weight, old, dim=-1), torch.ones_like(weight[..., 0]))
    for gain, shift in zip(net.gains, net.shifts, strict=True):
        squares = gain.square().mean(1) + shift.square().mean(1)
        torch.testing.assert_close(squares, torch.ones_like(squares), atol=1e-7, rtol=0)
