"""Before a policy moves anything: does it belong to this env and to these data? What differs is named."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robotrl.data.dataset import Dataset
from robotrl.data.fit import check_fits
from robotrl.data.schema import key_of
from robotrl.nets.network import is_image
from robotrl.policies.compatibility import check_compatible
from robotrl.types import EnvSpec, RobotRLError

ROWS = 8192
"""Steps of the data that statistics are compared on."""
DEVIATIONS, FEW = 10.0, 0.02
"""A number is strange where it is so many deviations off; data are, where more than this share of them is."""


def preflight(policy: Any, *, env: EnvSpec | None = None, data: str | Path | None = None) -> list[str]:
    """Compare a policy with an env and with a data set.

    What is compared: groups and features, cameras and picture sizes, dimension and scaling of actions, frame rate, and
    the statistics that numbers are normalised by, which also tell another order of features.

    Args:
        policy: of any kind.
        env: what it is to act in.
        data: a LeRobotDataset that it is to be trained on, or that it is said to have been trained on.

    Returns:
        A line for each thing that was compared and fits.

    Raises:
        RobotRLError: something differs; a sentence for each check that failed.
    """
    fine: list[str] = []
    wrong: list[str] = []

    def attempt(what: str, check: Callable[[], object]) -> None:
        try:
            check()
        except RobotRLError as error:
            wrong.append(str(error))
        else:
            fine.append(what)

    groups = policy.obs_groups
    if env is not None:
        attempt(
            f"reads {', '.join(groups)} and acts as {env.id} has it", lambda: check_compatible(groups, policy.spec, env)
        )
    if data is not None:
        dataset = Dataset(data)
        columns = dataset.read([f for f in dataset.fields if f == "action" or _vector(policy, f)])
        action = columns.get("action")
        attempt(f"{dataset.root} has everything that the policy reads", lambda: _check_groups(groups, dataset))
        attempt(
            f"{dataset.root} has these groups, this frame rate and this scale of actions",
            lambda: check_fits(dataset, policy.spec, groups, action),
        )
        if not wrong:
            attempt("numbers are normalised alike", lambda: _check_statistics(policy, columns))
            attempt("numbers of the action are in the same order", lambda: _check_names(policy, dataset))
    if wrong:
        raise RobotRLError("\n".join(wrong))
    return fine


def _check_groups(groups: Sequence[str], dataset: Dataset) -> None:
    missing = [key_of(f"obs/{group}") for group in groups if f"obs/{group}" not in dataset.schema.features]
    if missing:
        there = sorted(key_of(field) for field in dataset.schema.features if field.startswith("obs/"))
        raise RobotRLError(
            f"{dataset.root} has no {', '.join(map(repr, missing))}, which the policy reads; it has {', '.join(there)}."
        )


def _vector(policy: Any, field: str) -> bool:
    group = field.removeprefix("obs/")
    return group in policy.obs_groups and not is_image(policy.spec.obs[group])


def _check_statistics(policy: Any, columns: dict[str, Any]) -> None:
    """Where a policy normalises by statistics, the data have to be alike."""
    total = len(next(iter(columns.values())))
    rows = np.linspace(0, total - 1, min(total, ROWS)).astype(np.int64)
    batch = {f: torch.as_tensor(v[rows], dtype=_dtype(v)).unsqueeze(0) for f, v in columns.items()}
    normaliser = getattr(getattr(policy, "inputs", None), "normaliser", None)
    if normaliser is not None and float(normaliser.count):
        _check_normaliser(policy, normaliser, {k[4:]: v[0] for k, v in batch.items() if k.startswith("obs/")})
    if hasattr(policy, "fit") and bool(policy.fitted):
        copy.deepcopy(policy).fit(batch)  # raises where they are not alike; the policy itself stays as it is


def _check_normaliser(policy: Any, normaliser: Any, obs: dict[str, Tensor]) -> None:
    vector = policy.inputs.vector(obs).double()
    off = (vector - normaliser.mean).abs() / (normaliser.var.sqrt() + 1e-3)
    strange = ((off > DEVIATIONS).double().mean(0) > FEW).nonzero().flatten().tolist()
    if strange:
        k = strange[0]
        raise RobotRLError(
            f"The data are not normalised like the policy: number {k} of its inputs goes from "
            f"{float(vector[:, k].min()):.4g} to {float(vector[:, k].max()):.4g} in the data, where the policy was "
            f"trained it was {float(normaliser.mean[k]):.4g} with a deviation of {float(normaliser.var[k].sqrt()):.4g} "
            f"({len(strange)} numbers differ): another order of features, another unit or another scaling."
        )


def _check_names(policy: Any, dataset: Dataset) -> None:
    """Where a LeRobot policy notes the names of the action's numbers, they have to be those of the data."""
    names = getattr(getattr(policy, "made", None), "action_feature_names", None)
    theirs = dataset.schema.features["action"].names
    if names and isinstance(theirs, list) and list(names) != theirs:
        raise RobotRLError(
            f"The numbers of the policy's action are {list(names)}, those of {dataset.root} are {theirs}: another "
            "order or another robot."
        )


def _dtype(values: Any) -> torch.dtype:
    return torch.float32 if values.dtype.kind == "f" else torch.int64


__all__ = ["preflight"]
