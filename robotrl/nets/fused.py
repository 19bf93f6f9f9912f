"""A small MLP's gradient without autograd, for methods that make a million tiny steps.

At a hundred rows and 64 units autograd's bookkeeping takes longer than the arithmetic of a step. Here a layer and its
bias are one matrix `[out, in + 1]`, every array is feature-major `[units, rows]` with a row of ones at its end, and all
of them are allocated once for a number of rows. It runs on the CPU, in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robotrl.nets.mlp import MLP

Array = NDArray[np.float32]


class FusedMLP:
    """The layers of an `MLP`, and numbers beside them, in one flat vector with its gradient.

    `flat` is a parameter for `robotrl.nets.flat.Adam`; it is a copy: `load` takes the weights of a module, `store` puts
    them into one. Biases that do not learn in `like` stay as they were loaded.

    Args:
        like: a network of the same sizes and activation.
        extra: numbers beside the layers, such as a policy's log-deviations.
    """

    def __init__(self, like: MLP, extra: int = 0) -> None:
        shapes = [(layer.out_features, layer.in_features + 1) for layer in _layers(like)]
        self.flat = nn.Parameter(torch.zeros(sum(a * b for a, b in shapes) + extra))
        self.flat.grad = torch.zeros_like(self.flat)
        self.values: Array = self.flat.detach().numpy()
        self.gradient: Array = self.flat.grad.numpy()
        self._weights, self.extra = _views(self.values, shapes)
        self._gradients, self.extra_gradient = _views(self.gradient, shapes)
        self._fixed = [g[:, -1] for g, layer in zip(self._gradients, _layers(like), strict=True) if _fixed(layer)]
        self._act, self._slope = _ACTIVATIONS[type(like.activation)]
        self._buffers: dict[int, tuple[list[Array], list[Array]]] = {}
        self._x: Array = np.zeros((0, 0), np.float32)
        self._hidden: list[Array] = []
        self._spare: list[Array] = []

    def load(self, mlp: MLP, extra: Tensor | None = None) -> None:
        """Take the weights of a network, and the numbers beside it."""
        for weights, layer in zip(self._weights, _layers(mlp), strict=True):
            weights[:, :-1], weights[:, -1] = _numpy(layer.weight), _numpy(layer.bias)
        if extra is not None:
            self.extra[:] = _numpy(extra)

    @torch.no_grad()
    def store(self, mlp: MLP, extra: Tensor | None = None) -> None:
        """Put the weights into a network, and the numbers beside it into `extra`."""
        for weights, layer in zip(self._weights, _layers(mlp), strict=True):
            layer.weight.copy_(torch.from_numpy(weights[:, :-1]))
            layer.bias.copy_(torch.from_numpy(weights[:, -1]))
        if extra is not None:
            extra.copy_(torch.from_numpy(self.extra))

    def forward(self, x: Array) -> Array:
        """Outputs `[out, B]` of `x [in + 1, B]`, whose last row is ones; valid until the next call."""
        self._hidden, self._spare = self._room(x.shape[1])
        h = x
        for weights, room in zip(self._weights[:-1], self._hidden, strict=True):
            inner = room[:-1]
            np.dot(weights, h, out=inner)
            self._act(inner)
            h = room
        self._x = x
        out: Array = self._weights[-1] @ h
        return out

    def backward(self, grad: Array) -> None:
        """Overwrite the layers' part of `gradient`, given that of the outputs of the last `forward`, `[out, B]`."""
        below = [self._x, *self._hidden]
        for i in range(len(self._weights) - 1, -1, -1):
            np.dot(grad, below[i].T, out=self._gradients[i])
            if i:
                room = self._spare[i - 1]
                np.dot(self._weights[i][:, :-1].T, grad, out=room)
                self._slope(room, below[i][:-1])
                grad = room
        for column in self._fixed:
            column[:] = 0.0

    def _room(self, rows: int) -> tuple[list[Array], list[Array]]:
        """Arrays for hidden layers and their gradients, kept for the few batch sizes there are."""
        if rows not in self._buffers:
            if len(self._buffers) >= 8:
                self._buffers.clear()
            units = [len(weights) for weights in self._weights[:-1]]
            hidden: list[Array] = [np.ones((n + 1, rows), np.float32) for n in units]
            self._buffers[rows] = hidden, [np.empty((n, rows), np.float32) for n in units]
        return self._buffers[rows]


def with_ones(x: Tensor) -> Array:
    """Rows `[B, in]` as the input of `FusedMLP.forward`, `[in + 1, B]`."""
    columns = np.ones((x.shape[1] + 1, x.shape[0]), np.float32)
    columns[:-1] = _numpy(x).T
    return columns


def _numpy(tensor: Tensor) -> Array:
    array: Array = tensor.detach().cpu().numpy()
    return array


def _layers(mlp: MLP) -> list[nn.Linear]:
    return [layer for layer in mlp.layers if isinstance(layer, nn.Linear)]


def _fixed(layer: nn.Linear) -> bool:
    return not layer.bias.requires_grad


def _views(flat: Array, shapes: Sequence[tuple[int, int]]) -> tuple[list[Array], Array]:
    """The matrices that lie one after the other in `flat`, and the rest."""
    ends = np.cumsum([0, *(a * b for a, b in shapes)]).tolist()
    matrices: list[Array] = [flat[i:j].reshape(shape) for (i, j), shape in zip(pairwise(ends), shapes, strict=True)]
    return matrices, flat[ends[-1] :]


def _tanh(z: Array) -> None:
    np.tanh(z, out=z)


def _tanh_slope(g: Array, h: Array) -> None:
    g -= g * np.square(h)


def _relu(z: Array) -> None:
    np.maximum(z, 0.0, out=z)


def _relu_slope(g: Array, h: Array) -> None:
    g *= h > 0.0


def _elu(z: Array) -> None:
    np.copyto(z, np.expm1(z), where=z < 0.0)


def _elu_slope(g: Array, h: Array) -> None:
    g *= np.minimum(h, 0.0) + 1.0


_ACTIVATIONS: dict[type[nn.Module], tuple[Callable[[Array], None], Callable[[Array, Array], None]]] = {
    nn.Tanh: (_tanh, _tanh_slope),
    nn.ReLU: (_relu, _relu_slope),
    nn.ELU: (_elu, _elu_slope),
}
"""In place: an activation, and the product of a gradient with its slope, given its output."""

SUPPORTED: tuple[Any, ...] = tuple(_ACTIVATIONS)


__all__ = ["SUPPORTED", "FusedMLP", "with_ones"]
