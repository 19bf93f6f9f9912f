"""Small data sets of demonstrations of any env, written as a user's would be."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from robotrl.collect import Collector
from robotrl.data.schema import Schema
from robotrl.data.writer import DatasetWriter, Episode
from robotrl.policies.squashed import UniformPolicy
from robotrl.types import Policy


def write_demos(root: Path, env: Any, *, episodes: int = 2, policy: Policy | None = None, seed: int = 0) -> Path:
    """The first `episodes` of `env`, which has one row and is closed, played by `policy` (None: at random)."""
    spec = env.env_spec
    torch.manual_seed(seed)
    policy = policy or UniformPolicy(spec, tuple(spec.obs), torch.device("cpu"))
    collector, kept = Collector(env, seed=seed), []
    assert spec.time_limit is not None
    rollout = collector.collect(policy, episodes * spec.time_limit)
    schema = Schema.from_env(spec)
    columns = {key: value[:, 0].numpy() for key, value in rollout.items() if not key.startswith("state/")}
    for number in range(episodes):
        rows = np.flatnonzero(columns["episode"] == number)
        steps = {
            key: schema.single(key, value[rows])
            for key, value in columns.items()
            if key.startswith("obs/") or key in ("action", "reward", "terminated", "truncated")
        }
        finals = {f"obs/{group}": columns[f"next_obs/{group}"][rows[-1]] for group in spec.obs}
        final = {key: schema.single(key, value) for key, value in finals.items()}
        kept.append(Episode(steps, "demonstrate", final=final, seed=seed, number=number))
    with DatasetWriter(root, schema, env=spec) as writer:
        writer.save_all(kept)
    env.close()
    return root
