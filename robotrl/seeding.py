"""The global random number generators: seeded once, saved with every checkpoint."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from robotrl.types import StateDict


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators (every GPU included).

    Owners of their own `numpy.random.Generator` (environments, replays) seed and save it themselves.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries may still draw from it
    torch.manual_seed(seed)


def rng_state() -> StateDict:
    """The state of all global generators, ready for a checkpoint."""
    version, words, gauss = random.getstate()
    state: StateDict = {
        "python": {"version": version, "words": np.array(words, dtype=np.uint64), "gauss": gauss},
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: StateDict) -> None:
    """Continue the streams where `rng_state` was taken. States of GPUs that are not here are left out."""
    python: dict[str, Any] = state["python"]
    random.setstate((python["version"], tuple(int(word) for word in python["words"]), python["gauss"]))
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        for device, value in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(value, device)


__all__ = ["rng_state", "seed_everything", "set_rng_state"]
