"""Networks of one shape, one for each step of an episode, and what is asked of them without a loop over samples.

The parameters of network h are row h of one matrix. Data are feature-major, `[H, features, B]`: with `W @ x` the
products of narrow layers take half the time of `x @ W.T`. All derivatives are written out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class StepwiseMLP(nn.Module):
    """`count` multilayer perceptrons with tanh, and `extra` further numbers in each row.

    Weights start as PyTorch's linear layers do, uniform within 1 / sqrt(inputs); the last layer's are scaled by
    `last_scale`, its biases zero; the extra numbers start at zero.

    Args:
        count: networks H.
        in_dim: inputs.
        hidden: widths of the hidden layers.
        out_dim: outputs.
        extra: further parameters a network has, at the end of its row.
        last_scale: of the last layer's initial weights.
    """

    def __init__(
        self, count: int, in_dim: int, hidden: Sequence[int], out_dim: int, *, extra: int = 0, last_scale: float = 0.1
    ) -> None:
        super().__init__()
        self.count, self.in_dim, self.out_dim, self.extra = count, in_dim, out_dim, extra
        self.shapes = [(fan_out, fan_in + 1) for fan_in, fan_out in pairwise([in_dim, *hidden, out_dim])]
        """Of each layer's weight; the last column is the bias."""
        self.size = sum(rows * columns for rows, columns in self.shapes) + extra
        self.weights = nn.Parameter(torch.zeros(count, self.size))
        with torch.no_grad():
            for i, layer in enumerate(self.layers(self.weights)):
                bound = 1.0 / math.sqrt(layer.shape[-1] - 1)
                drawn = torch.empty(layer.shape, device=layer.device).uniform_(-bound, bound)
                if i == len(self.shapes) - 1:
                    drawn *= last_scale
                    drawn[..., -1] = 0.0
                layer.copy_(drawn)

    def layers(self, rows: Tensor) -> list[Tensor]:
        """Weights and biases `[..., out, in + 1]` of each layer, views of `rows [..., P]`."""
        found, start = [], 0
        for shape in self.shapes:
            end = start + shape[0] * shape[1]
            found.append(rows[..., start:end].unflatten(-1, shape))
            start = end
        return found

    def tail(self, rows: Tensor) -> Tensor:
        """The further numbers, `[..., extra]`, a view."""
        return rows[..., self.size - self.extra :]

    def run(self, rows: Tensor, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Outputs `[H, out, B]` of inputs `x [H, in, B]`, and the hidden layers `[H, width, B]`."""
        hidden: list[Tensor] = []
        h = x
        for layer in self.layers(rows):
            z = torch.baddbmm(layer[..., -1:], layer[..., :-1], h)
            if len(hidden) == len(self.shapes) - 1:
                return z, hidden
            h = z.tanh_()
            hidden.append(h)
        raise AssertionError("a network has at least one layer")

    def push(self, rows: Tensor, tangent: Tensor, x: Tensor, hidden: Sequence[Tensor]) -> Tensor:
        """How outputs `[H, out, B]` move as the parameters move along `tangent [H, P]` (the Jacobian times it)."""
        inputs = [x, *hidden]
        moved: Tensor | None = None
        for i, (layer, by) in enumerate(zip(self.layers(rows), self.layers(tangent), strict=True)):
            z = torch.baddbmm(by[..., -1:], by[..., :-1], inputs[i])
            if moved is not None:
                z = z.baddbmm_(layer[..., :-1], moved)
            if i < len(hidden):
                z = torch.ops.aten.tanh_backward(z, hidden[i])
            moved = z
        assert moved is not None
        return moved

    def pull(self, rows: Tensor, grad: Tensor, x: Tensor, hidden: Sequence[Tensor]) -> Tensor:
        """The gradient `[H, P]` of what has the gradient `grad [H, out, B]` by the outputs; zero for the extra ones."""
        result = torch.zeros_like(rows)
        into, weights = self.layers(result), self.layers(rows)
        inputs = [x, *hidden]
        for i in range(len(weights) - 1, -1, -1):
            into[i][..., :-1] = torch.bmm(grad, inputs[i].transpose(1, 2))
            into[i][..., -1] = grad.sum(-1)
            if i:
                grad = torch.bmm(weights[i][..., :-1].transpose(1, 2), grad)
                grad = torch.ops.aten.tanh_backward(grad, inputs[i])
        return result

    def many(self, rows: Tensor, x: Tensor, actions: Tensor) -> Tensor:
        """One output for several actions in the same place: the first layer sees each observation once.

        Args:
            rows: `[H, P]`, of networks with one output.
            x: the first inputs, `[H, D, B]`.
            actions: the last inputs, `[H, A, B, K]`.

        Returns:
            `[H, B, K]`.
        """
        first, *rest = self.layers(rows)
        split = x.shape[1]
        seen = torch.baddbmm(first[..., -1:], first[..., :split], x)
        done = torch.bmm(first[..., split:-1], actions.flatten(2))
        h = done.unflatten(2, actions.shape[2:]).add_(seen.unsqueeze(-1)).flatten(2)
        for layer in rest:
            h = torch.baddbmm(layer[..., -1:], layer[..., :-1], h.tanh_())
        return h.squeeze(1).unflatten(1, actions.shape[2:])


class Regression:
    """Full-batch Adam on one network of a `StepwiseMLP` with one output, on fixed data; buffers are made once.

    A network this small on a batch this small would be all overhead, so there is none: no autograd, no temporaries, the
    bias a column of the weight and its input a row of ones.

    Args:
        net: whose networks are fitted.
        weight: of each sample's squared error, `[B]`.
    """

    def __init__(self, net: StepwiseMLP, weight: Tensor) -> None:
        like = net.weights.data
        batch = len(weight)
        self._twice = 2.0 * weight.to(like).unsqueeze(0)
        self._hidden = [like.new_ones(rows + 1, batch) for rows, _ in net.shapes[:-1]]
        self._grads = [like.new_empty(rows, batch) for rows, _ in net.shapes[:-1]]
        self._out, self._error = like.new_empty(1, batch), like.new_empty(1, batch)
        self._gradient = like.new_zeros(net.size)
        self._mean, self._square = like.new_zeros(net.size), like.new_zeros(net.size)
        self._count = torch.zeros((), dtype=torch.float32, device=like.device)
        self._into = net.layers(self._gradient)
        self._net = net

    @torch.no_grad()
    def fit(self, row: Tensor, x: Tensor, target: Tensor, *, steps: int, learning_rate: float) -> Tensor:
        """Move `row [P]` in place by `steps` of a fresh Adam; the squared errors `[B]` before the last of them.

        Args:
            row: of the net's weights.
            x: inputs and a last row of ones, `[in + 1, B]`.
            target: `[B]`.
            steps: of Adam.
            learning_rate: of Adam.
        """
        self._mean.zero_()
        self._square.zero_()
        layers = self._net.layers(row)
        inner = [layer[:, :-1].t() for layer in layers]  # what takes gradients back
        inputs = [x, *self._hidden]
        across = [value.t() for value in inputs]
        active = [value[:-1] for value in self._hidden]
        last = len(layers) - 1
        error, out, wanted = self._error, self._out, target.unsqueeze(0)
        for step in range(1, steps + 1):
            for i in range(last):
                torch.mm(layers[i], inputs[i], out=active[i])
                active[i].tanh_()
            torch.mm(layers[last], inputs[last], out=out)
            torch.sub(out, wanted, out=error)
            torch.mul(error, self._twice, out=out)
            grad = out
            for i in range(last, -1, -1):
                torch.mm(grad, across[i], out=self._into[i])
                if i:
                    back = self._grads[i - 1]
                    if i == last:
                        torch.mul(inner[i], grad, out=back)
                    else:
                        torch.mm(inner[i], grad, out=back)
                    torch.ops.aten.tanh_backward.grad_input(back, active[i - 1], grad_input=back)
                    grad = back
            torch._fused_adam_(
                [row], [self._gradient], [self._mean], [self._square], [], [self._count.fill_(step)],
                lr=learning_rate, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8, amsgrad=False, maximize=False,
            )  # fmt: skip
        return error.square().squeeze(0)

    @torch.no_grad()
    def predict(self, row: Tensor, x: Tensor) -> Tensor:
        """Outputs `[B]` of inputs `x [in + 1, B]`, of any B."""
        layers = self._net.layers(row)
        h = x
        for layer in layers[:-1]:
            h = torch.addmm(layer[:, -1:], layer[:, :-1], h[: layer.shape[1] - 1]).tanh_()
        return torch.addmm(layers[-1][:, -1:], layers[-1][:, :-1], h[: layers[-1].shape[1] - 1]).squeeze(0)


__all__ = ["Regression", "StepwiseMLP"]
