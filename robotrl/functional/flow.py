"""Flow matching (Lipman et al. 2023), in the sign convention of pi0 and LeRobot.

Time 1 is noise and time 0 is data: `x_t = t * noise + (1 - t) * data`; the velocity `dx/dt` that a network learns is
`noise - data`; a sample starts as noise at t = 1 and is integrated down to 0 with negative steps. (Papers often count
the other way round: s = 1 - t and velocity `data - noise`. Mixing the two is the commonest mistake.)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LEAST, SPAN = 0.001, 0.999
"""Times are drawn from (0.001, 1]: at 0 there is nothing left to learn."""


def flow_times(shape: tuple[int, ...], *, power: float = 1.5, device: torch.device | None = None) -> Tensor:
    """Times in (0.001, 1], more of them near the noise: Beta(`power`, 1), by inverting its distribution function."""
    return LEAST + SPAN * torch.rand(shape, device=device) ** (1.0 / power)


def noised(data: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """`x_t` for `time [...]`, one for each leading element of `data [..., *shape]`."""
    t = time.reshape(*time.shape, *[1] * (data.dim() - time.dim()))
    return torch.lerp(data, noise, t.to(data.dtype))


def velocity(data: Tensor, noise: Tensor) -> Tensor:
    """What the network is to say at every time: noise minus data."""
    return noise - data


def step_times(steps: int, device: torch.device | None = None) -> Tensor:
    """The times `[steps]` at which `integrate` asks for velocities."""
    return torch.tensor([1.0 - step / steps for step in range(steps)], device=device)


def integrate(field: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
    """Euler's method from `noise [B, ...]` at time 1 to data at time 0.

    Args:
        field: velocity `[B, ...]` at x `[B, ...]` and time `[B]`.
        noise: where to start.
        steps: of equal length.
    """
    x = noise
    for time in step_times(steps, x.device):
        x = euler_step(x, field(x, time.expand(len(x))), steps)
    return x


def euler_step(x: Tensor, flow: Tensor, steps: int) -> Tensor:
    """One of `steps` equal steps from time 1 to 0 along the velocity `flow`."""
    return torch.sub(x, flow, alpha=1.0 / steps)


def shifted(time: Tensor, shift: float) -> Tensor:
    """Times moved towards the noise (Esser et al. 2024, eq. 23): `shift * t / (1 + (shift - 1) * t)`."""
    return shift * time / (1.0 + (shift - 1.0) * time)


def prefix_weights(size: int, frozen: int, until: int) -> Tensor:
    """How strongly each of `size` actions of a new chunk is held to the old one: `[size]` in [0, 1].

    1 for the first `frozen`, which will have been executed before the new chunk arrives; 0 from `until` on, where the
    old chunk ends; in between an exponential decay (Black et al. 2025, "Real-time execution of action chunking flow
    policies", eq. 5).
    """
    at = torch.arange(size, dtype=torch.float32)
    share = ((until - at) / max(1, until - frozen + 1)).clamp(0.0, 1.0)
    decay = share * torch.expm1(share) / (torch.e - 1.0)
    return torch.where(at < frozen, 1.0, torch.where(at < until, decay, 0.0))


def guidance(time: Tensor, most: float = 5.0) -> Tensor:
    """How strongly a guided flow is pulled at `time [...]`: the weight of the correction, at most `most`.

    Black et al. 2025, eq. 2 to 4, in the convention here: with s = 1 - t it is `min(most, t / s * (t^2 + s^2) / t^2)`.
    """
    t, s = time, 1.0 - time
    return (t / s.clamp(min=1e-6) * (t.square() + s.square()) / t.square().clamp(min=1e-6)).clamp(max=most)


__all__ = [
    "euler_step", "flow_times", "guidance", "integrate", "noised", "prefix_weights", "shifted", "step_times",
    "velocity",
]  # fmt: skip
