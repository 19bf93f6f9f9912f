"""Whether a policy can act in an environment, and in which respects not."""

from __future__ import annotations

from collections.abc import Sequence

from robotrl.types import ActionSpec, ArraySpec, EnvSpec, RobotRLError


def check_compatible(groups: Sequence[str], trained: EnvSpec, env: EnvSpec) -> None:
    """Raise unless a policy that reads `groups` of the env `trained` can act in `env`.

    Groups that the policy does not read may differ or be missing, and so may time limit, control frequency and whatever
    else is not observed or commanded: that is what a transfer changes on purpose.

    Args:
        groups: observation groups the policy reads.
        trained: the spec the policy was made for.
        env: the spec it is to act in.

    Raises:
        RobotRLError: names every group and action property that differs.
    """
    differ = []
    for name in groups:
        ours, theirs = trained.obs[name], env.obs.get(name)
        if theirs is None:
            differ.append(f"it reads the observation group '{name}', the env has {sorted(env.obs)}")
        elif (tuple(ours.shape), ours.dtype) != (tuple(theirs.shape), theirs.dtype):
            differ.append(f"it reads the group '{name}' as {_array(ours)}, the env gives {_array(theirs)}")
    differ += _action_differences(trained.action, env.action)
    if differ:
        raise RobotRLError(
            f"A policy for {trained.id} does not fit {env.id}: {'; '.join(differ)}. Use the env it was trained on, "
            "with the same options and wrappers (env.options, env.groups, env.history, env.frame_stack, env.pixels)."
        )


def _action_differences(ours: ActionSpec, theirs: ActionSpec) -> list[str]:
    if _action(ours) != _action(theirs):
        return [f"its action is {_action(ours)}, the env's {_action(theirs)}"]
    if (ours.low, ours.high) != (theirs.low, theirs.high):
        return [f"its action lies within {_bounds(ours)}, the env's within {_bounds(theirs)}"]
    return []


def _action(spec: ActionSpec) -> str:
    return f"one of {spec.num_actions}" if spec.kind == "discrete" else f"continuous {list(spec.shape)}"


def _array(spec: ArraySpec) -> str:
    return f"{spec.dtype}{list(spec.shape)}"


def _bounds(spec: ActionSpec) -> str:
    pairs = [f"[{low:g}, {high:g}]" for low, high in zip(spec.low, spec.high, strict=True)]
    return pairs[0] if len(set(pairs)) == 1 else " x ".join(pairs[:6]) + (" x ..." if len(pairs) > 6 else "")
