"""One rule for episode starts: with `reset(seed=s)`, slot j's k-th episode is episode `i = j + k * num_envs`.

What an episode draws depends on `(s, i)` alone, so an evaluation does not depend on how many envs run side by side.
The numbers come from Philox (Salmon et al., SC 2011), a counter-based generator: the seed is the key and the episode
a counter word, so any episode's stream is reached without drawing the ones before it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_STARTS, _SEEDS, _MODELS = 0, 1, 2
_WORD = 2**64


def _key(seed: int, domain: int) -> NDArray[np.uint64]:
    # the seed's high half, if any, goes into the second word, above the domain: 120-bit seeds stay distinct
    return np.array([seed % _WORD, (domain + ((seed // _WORD) << 8)) % _WORD], np.uint64)


def _counter(episode: int) -> NDArray[np.uint64]:
    # word 0 counts the draws of an episode, so no two episodes overlap within 2**66 numbers
    return np.array([0, episode % _WORD, 0, 0], np.uint64)


def episode_rng(seed: int, episode: int) -> np.random.Generator:
    """The generator of episode `episode` under `seed`: its start state is drawn from it.

    Args:
        seed: non-negative integer.
        episode: the index `i = slot + k * num_envs`, non-negative.
    """
    return np.random.Generator(np.random.Philox(key=_key(seed, _STARTS), counter=_counter(episode)))


def model_rng(seed: int, episode: int) -> np.random.Generator:
    """Like `episode_rng`, but for what is randomised in the model: switching it on leaves start states as they were."""
    return np.random.Generator(np.random.Philox(key=_key(seed, _MODELS), counter=_counter(episode)))


def episode_seed(seed: int, episode: int) -> int:
    """A 31-bit seed for episode `episode` under `seed`, for envs that take an integer instead of a generator."""
    return int(np.random.Philox(key=_key(seed, _SEEDS), counter=_counter(episode)).random_raw() >> 33)


class EpisodeStreams:
    """`episode_rng` for many episodes of one seed, ten times cheaper: one generator that is moved to each episode.

    The generator that `at` returns is the same object every time, so draw from it before asking for the next.
    """

    def __init__(self, seed: int) -> None:
        self._bits = np.random.Philox(key=_key(seed, _STARTS))
        self._generator = np.random.Generator(self._bits)
        self._fresh = self._bits.state
        self._counter = self._fresh["state"]["counter"]

    def at(self, episode: int) -> np.random.Generator:
        """The generator, at the start of `episode`."""
        self._counter[1] = episode
        self._bits.state = self._fresh
        return self._generator
