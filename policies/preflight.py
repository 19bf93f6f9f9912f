"""Whether a policy, an env and a data set belong together; what differs is named, one sentence each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from robotrl.data.schema import key_of
from robotrl.nets.network import is_image
from robotrl.types import EnvSpec, RobotRLError

Features = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name to type (`STATE`, `ENV`, `VISUAL`) and shape."""


def feature_groups(
    features: Features,
    rename: Mapping[str, str],
    chosen: Mapping[str, str],
    groups: Sequence[str] | None,
    spec: EnvSpec,
) -> dict[str, str]:
    """The observation group behind each of a LeRobot policy's features, in the policy's order, where there is one.

    Args:
        features: of the policy.
        rename: names of features in the data to the policy's, as the checkpoint has them.
        chosen: group to feature, as the user says.
        groups: those that may be read; None: all.
        spec: of the env.

    Raises:
        RobotRLError: the user names a group or feature that is not there, or two groups for one feature.
    """
    for group, feature in chosen.items():
        if group not in spec.obs or feature not in features:
            raise RobotRLError(
                f"policy.lerobot.rename says {group}: {feature}, but {spec.id} has the groups {sorted(spec.obs)} and "
                f"the policy reads {list(features)}."
            )
    found: dict[str, str] = {}
    for group in spec.obs:
        if groups is not None and group not in groups:
            continue
        name = key_of(f"obs/{group}")
        name = chosen.get(group, rename.get(name, name))
        if name in found and group not in chosen:
            continue
        if name in features:
            found[name] = group
    return {name: found[name] for name in features if name in found}


def check_features(
    what: str, features: Features, groups: Mapping[str, str], action: tuple[int, ...], spec: EnvSpec, *, task: str
) -> None:
    """Raise unless the env has every feature that a LeRobot policy reads, in its shape, and takes its actions.

    Args:
        what: the policy, for the message.
        features: that it reads.
        groups: the group behind each, see `feature_groups`.
        action: shape of its action.
        spec: of the env.
        task: the group that holds the task in words; empty: the policy reads none.

    Raises:
        RobotRLError: names every difference.
    """
    differ = []
    cameras = [group for group, array in spec.obs.items() if is_image(array)]
    for name, (kind, shape) in features.items():
        group = groups.get(name)
        if group is None and kind == "VISUAL":
            there = ", ".join(key_of(f"obs/{c}") for c in cameras) or "no pictures"
            differ.append(f"it reads the camera '{name}', the env has {there}")
        elif group is None:
            differ.append(f"it reads '{name}', the env has {sorted(spec.obs)}")
        elif tuple(spec.obs[group].shape) != shape:
            noun = "pictures" if kind == "VISUAL" else "numbers"
            differ.append(
                f"it reads '{name}' as {noun} of {list(shape)}, the env's '{group}' is {list(spec.obs[group].shape)}"
            )
        elif is_image(spec.obs[group]) != (kind == "VISUAL"):
            differ.append(f"it reads '{name}' as {kind.lower()}, which the env's '{group}' is not")
    if task and task not in spec.obs:
        differ.append(f"it reads a task in words, the env has no group '{task}'")
    if spec.action.kind != "continuous" or tuple(spec.action.shape) != action:
        theirs = spec.action.kind if spec.action.kind == "discrete" else list(spec.action.shape)
        differ.append(f"its action is {list(action)}, the env's {theirs}")
    if differ:
        raise RobotRLError(
            f"{what} does not fit {spec.id}: {'; '.join(differ)}. Cameras come with env.pixels.cameras=[...] "
            "env.pixels.height= env.pixels.width= env.pixels.replace_state=false; a feature of another name is said by "
            "policy.lerobot.rename={image/front: observation.images.<name>}."
        )


__all__ = ["check_features", "feature_groups"]
