"""FlashSAC's network member by member in PyTorch's own operations, for autograd to differentiate."""

from copy import deepcopy

import torch
from torch import Tensor
from torch.nn import functional as F

from robotrl.nets.flash import EPS, MOMENTUM, RMS_EPS, FlashStack


class AsWritten:
    """A copy of `net`; `parameters` are in the order of its own."""

    def __init__(self, net: FlashStack) -> None:
        self.net = deepcopy(net).requires_grad_(True)
        self.parameters = list(self.net.parameters())

    def __call__(self, x: Tensor, *, of_batch: bool) -> Tensor:
        return torch.stack([self._member(e, x, of_batch) for e in range(len(self.net.gain))])

    def _member(self, e: int, x: Tensor, of_batch: bool) -> Tensor:
        net = self.net
        h = F.linear(self._norm(0, e, x, of_batch), net.weights[0][e])
        for i in range(1, len(net.gains), 2):
            inner = F.relu(self._norm(i, e, F.linear(h, net.weights[i][e]), of_batch))
            h = h + F.relu(self._norm(i + 1, e, F.linear(inner, net.weights[i + 1][e]), of_batch))
        unit = F.rms_norm(h, h.shape[-1:], net.gain[e, 0], RMS_EPS)
        return F.linear(unit, net.weights[-1][e], net.bias[e, 0])

    def _norm(self, i: int, e: int, x: Tensor, of_batch: bool) -> Tensor:
        gains, dim = self.net.gains, x.shape[1]
        start = 0 if i == 0 else gains[0].shape[1] + sum(g.numel() for g in gains[1:i]) + e * dim
        mean, var = (s[start : start + dim] for s in (self.net.mean, self.net.var))
        if i == 0 and e > 0 and of_batch:  # statistics that the members share move once
            mean, var = mean.clone(), var.clone()
        return F.batch_norm(x, mean, var, gains[i][e, :, 0], self.net.shifts[i][e, :, 0], of_batch, MOMENTUM, EPS)
