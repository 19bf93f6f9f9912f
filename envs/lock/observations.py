"""What a lock shows of its hidden state: a noisy Hadamard code, or the features of a picture."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from robotrl.envs.lock import ImagesOptions, Options
from robotrl.envs.lock.features import Features
from robotrl.types import RobotRLError

Float = NDArray[np.float32]
Int = NDArray[np.int64]

LATENTS = 3
"""Hidden states at each step: two good ones and the dead one."""
NOISE_STD = 0.1


class Observer(Protocol):
    """Observations of one kind for `num_envs` rows. What is random in those of an episode is drawn when it starts."""

    dim: int
    unit: str

    def start(self, row: int, rng: np.random.Generator) -> None:
        """Draw for a new episode in `row`."""
        ...

    def show(self, rows: Int, latent: Int, step: Int) -> Float:
        """Observations `[len(rows), dim]` of hidden states `latent` at steps `step`, from 0 to the horizon."""
        ...

    def picture(self, row: int, latent: int, step: int) -> NDArray[np.uint8] | None:
        """What a person would see, `[height, width]`; None: nothing."""
        ...


class Hadamard:
    """`hadamard(dim) @ (one-hot of the state, one-hot of the step, zeros, + noise)`, `[dim]`.

    The noise, N(0, 0.1), is on the first horizon + 3 entries. The entry of the end, the step after the last, has none:
    so it is in the authors' code. The product is made by additions in a fixed order (the fast Walsh-Hadamard
    transform), so an observation does not depend on how many are made at once.

    Raises:
        RobotRLError: `obs_dim` is no power of two, or too short for the horizon.
    """

    unit = "Hadamard code of state and step"

    def __init__(self, options: Options, num_envs: int) -> None:
        self.horizon = options.horizon
        least = 1 << (options.horizon + LATENTS).bit_length()  # the power of two from horizon + 4 on
        self.dim = least if options.obs_dim is None else options.obs_dim
        whole = isinstance(self.dim, int) and not isinstance(self.dim, bool) and self.dim > 0
        if not whole or self.dim & (self.dim - 1) or self.dim < least or self.dim > 1 << 16:
            raise RobotRLError(
                f"An observation of {self.dim} numbers cannot encode a lock with a horizon of {self.horizon}: it needs "
                f"a power of two of at least horizon + 4. Set env.options.obs_dim to {least}, or leave it out."
            )
        self._noise = np.zeros((num_envs, self.horizon + 1, self.horizon + LATENTS), np.float32)

    def start(self, row: int, rng: np.random.Generator) -> None:
        """The noise of all observations of the episode."""
        rng.standard_normal(dtype=np.float32, out=self._noise[row])
        self._noise[row] *= np.float32(NOISE_STD)

    def show(self, rows: Int, latent: Int, step: Int) -> Float:
        """See `Observer.show`."""
        code = np.zeros((len(rows), self.dim), np.float32)
        code[:, : self.horizon + LATENTS] = self._noise[rows, step]
        every = np.arange(len(rows))
        code[every, latent] += 1.0
        code[every, LATENTS + step] += 1.0
        return walsh_hadamard(code)

    def picture(self, row: int, latent: int, step: int) -> None:
        """There is nothing to see."""


class Glyphs:
    """Features `[dim]` of a random picture of the character that stands for state and step.

    Raises:
        RobotRLError: there are no features, or not enough characters for the horizon.
    """

    unit = "features of a picture, of length 1"

    def __init__(self, options: ImagesOptions, num_envs: int) -> None:
        self._features = Features.load(options.features, options.split)
        needed, there = LATENTS * (options.horizon + 1), self._features.num_classes
        if needed > there:
            raise RobotRLError(
                f"A lock with a horizon of {options.horizon} needs pictures of {needed} characters, three a step and "
                f"three for the end, but {options.features} has {there}. Set env.options.horizon to at most "
                f"{there // LATENTS - 1}."
            )
        self.dim = self._features.dim
        self._which = np.zeros((num_envs, options.horizon + 1), np.int64)

    def start(self, row: int, rng: np.random.Generator) -> None:
        """Which picture of its character each observation of the episode is."""
        self._which[row] = rng.integers(0, self._features.per_class, self._which.shape[1])

    def show(self, rows: Int, latent: Int, step: Int) -> Float:
        """See `Observer.show`."""
        return self._features.vectors[LATENTS * step + latent, self._which[rows, step]]

    def picture(self, row: int, latent: int, step: int) -> NDArray[np.uint8]:
        """The picture whose features are shown."""
        return self._features.picture(LATENTS * step + latent, int(self._which[row, step]))


def walsh_hadamard(x: Float) -> Float:
    """`x [N, 2^k]` times the Hadamard matrix of that size in Sylvester's order; overwrites `x`."""
    rows, dim = x.shape
    half = 1
    while half < dim:
        pairs = x.reshape(rows, dim // (2 * half), 2, half)
        first, second = pairs[:, :, 0], pairs[:, :, 1]
        total = first + second
        np.subtract(first, second, out=second)
        first[...] = total
        half *= 2
    return x


__all__ = ["LATENTS", "Glyphs", "Hadamard", "Observer", "walsh_hadamard"]
