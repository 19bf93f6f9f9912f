"""Whether a data set can be used for an env: groups, shapes, frame rate and the scale of actions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robotrl.data.dataset import Dataset
from robotrl.data.schema import Feature
from robotrl.types import ArraySpec, EnvSpec, RobotRLError

TOLERANCE = 1e-3
"""Of the action range: what rounding may put beyond a bound."""


def check_fits(dataset: Dataset, env: EnvSpec, groups: Iterable[str], actions: NDArray[Any] | None = None) -> None:
    """Raise unless the data set's steps are steps of `env`.

    Args:
        dataset: opened.
        env: what they are to be used for.
        groups: the observation groups that are read.
        actions: `[T, ...]`, compared with the env's bounds where the data set does not name its own.

    Raises:
        RobotRLError: names every difference.
    """
    differ = []
    for group in groups:
        feature, array = dataset.schema.features.get(f"obs/{group}"), env.obs.get(group)
        if array is None:
            differ.append(f"it has the group '{group}', the env has {sorted(env.obs)}")
        elif feature is not None and not _alike(feature, array):
            differ.append(f"its group '{group}' is {_shown(feature)}, the env's is {array.dtype}{list(array.shape)}")
    if env.control_hz and abs(dataset.fps - env.control_hz) > 1e-6 * env.control_hz:
        differ.append(f"it was recorded at {dataset.fps:g} steps a second, the env makes {env.control_hz:g}")
    differ += _action_differences(dataset, env, actions)
    if differ:
        raise RobotRLError(
            f"The data set {dataset.root} does not fit {env.id}: {'; '.join(differ)}. Use data recorded in this env "
            "with these options and wrappers (env.action_repeat, env.groups, env.pixels), or read other groups."
        )


def other_options(dataset: Dataset, env_id: str, options: Mapping[str, Any]) -> list[str]:
    """In which task options the data were recorded in another env than `env_id` with `options`, in words.

    Options shape no array, so nothing else shows it; it may be meant. Nothing is said of data of other envs.
    """
    found = []
    for session in dataset.own.get("sessions", []):
        recorded = session.get("env_config") or {}
        if recorded.get("id") != env_id:
            continue
        theirs = recorded.get("options") or {}
        for key in sorted({*theirs, *options}):
            there, here = ("as it comes" if o.get(key) is None else str(o[key]) for o in (theirs, options))
            if there != here:
                found.append(f"env.options.{key} is {there} there and {here} here")
    return list(dict.fromkeys(found))


def check_finite(dataset: Dataset, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise for the first value that is not a finite number."""
    starts = dataset.starts
    for name, values in arrays.items():
        if values.dtype.kind != "f" or np.isfinite(values).all():
            continue
        row, *element = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
        episode = int(np.searchsorted(starts, row, side="right")) - 1
        bad = int((~np.isfinite(values.reshape(len(values), -1))).any(1).sum())
        raise RobotRLError(
            f"The data set {dataset.root} holds {values[(row, *element)]} in '{name}', episode {episode}, step "
            f"{row - int(starts[episode])}{f', element {element[0]}' if element else ''} ({bad} steps are affected). "
            "Nothing can be learned from that: leave the episode out with episodes=, or record it again."
        )


def _alike(feature: Feature, array: ArraySpec) -> bool:
    if feature.visual:
        h, w, c = feature.shape
        return array.dtype == "uint8" and tuple(array.shape) == (array.frames * c, h, w)
    shape = tuple(array.shape) or (1,)
    return feature.shape == shape and np.dtype(feature.dtype).kind == np.dtype(array.dtype).kind


def _shown(feature: Feature) -> str:
    return f"{feature.dtype}{list(feature.shape)}"


def _action_differences(dataset: Dataset, env: EnvSpec, actions: NDArray[Any] | None) -> list[str]:
    feature, ours = dataset.schema.features.get("action"), env.action
    if feature is None:
        return ["it has no actions"]
    shape = (1,) if ours.kind == "discrete" else ours.shape
    whole = np.dtype(feature.dtype).kind in "iu"
    if feature.shape != shape or whole != (ours.kind == "discrete"):
        return [f"its action is {_shown(feature)}, the env's is {ours.kind} {list(ours.shape)}"]
    saved = dataset.env_spec
    if saved is not None and saved.id == env.id and not np.isfinite([*ours.low, *ours.high]).any():
        return []  # the same env without its bounds: nothing scales an action, so those of the data mean the same
    if saved is not None and saved.action != ours:
        if ours.kind == "discrete":
            return [f"its action is one of {saved.action.num_actions}, the env's one of {ours.num_actions}"]
        return [
            f"its actions lie within {_bounds(saved.action.low, saved.action.high)}, the env's within "
            f"{_bounds(ours.low, ours.high)}: another scaling"
        ]
    if actions is None or not len(actions):
        return []
    if ours.kind == "discrete":
        fine = actions.min() >= 0 and actions.max() < ours.num_actions
        return [] if fine else [f"its actions reach {int(actions.max())}, the env has {ours.num_actions}"]
    low, high = np.reshape(ours.low, ours.shape), np.reshape(ours.high, ours.shape)
    slack = TOLERANCE * np.where(np.isfinite(high - low), high - low, 1.0)
    beyond = (actions < low - slack) | (actions > high + slack)
    if not beyond.any():
        return []
    return [
        f"its actions reach [{actions.min():g}, {actions.max():g}], the env's bounds are "
        f"{_bounds(ours.low, ours.high)}: another scaling"
    ]


def _bounds(low: Iterable[float], high: Iterable[float]) -> str:
    pairs = list(dict.fromkeys(f"[{a:g}, {b:g}]" for a, b in zip(low, high, strict=True)))
    return " x ".join(pairs[:4]) + (" x ..." if len(pairs) > 4 else "")


__all__ = ["check_finite", "check_fits", "other_options"]
