"""Tiny features for `lock/images`, made once a process."""

import tempfile
from functools import cache

from robotrl.envs.lock.build import Recipe, build

WRITTEN = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


@cache
def tiny_features() -> str:
    """A folder with features of 36 characters, three pictures of each, of an untrained network."""
    folder = tempfile.mkdtemp(prefix="robotrl-lock-features-")
    build(folder, Recipe(train_pictures=3, test_pictures=2, steps=1, dim=8, probe_steps=5, characters=WRITTEN))
    return folder


def options(env_id: str) -> dict[str, str]:
    """What an env cannot be made without."""
    return {"features": tiny_features()} if env_id == "lock/images" else {}
