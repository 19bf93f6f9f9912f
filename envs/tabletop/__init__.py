"""The tabletop suite: an arm, a table, and tasks that are named in words. See docs/tabletop.md."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from robotrl.registry import nearest
from robotrl.types import RobotRLError

if TYPE_CHECKING:
    from robotrl.envs.tabletop.vector_env import TabletopVectorEnv

PREFIX = "tabletop/"


@dataclass(slots=True)
class Options:
    """The options of a task: `env.options.reward=shaped` on the command line."""

    control: str = "delta"
    """What an action is: `delta` or `pose` of the tool, or `joint` angles; see `robotrl.envs.tabletop.controller`."""
    reward: str = "sparse"
    """`sparse`: 1 when the goal has been kept for half a second. `shaped`: the change of progress beside it."""
    split: str = "all"
    """Colours that instructions name: `all`, `train` (without those that a task holds out) or `held_out`."""
    swap: bool = False
    """Let the instruction be about another object of the same scene than the one that was drawn: whether a policy
    listens. `infos["original_success"]` then says whether the drawn one's goal was met instead."""
    terminate_on_success: bool = True
    """End the episode when the goal has been kept for half a second; otherwise it goes on to the time limit."""
    timestep: float | None = None
    """Seconds of a simulation step; None: the suite's, which its tests of physics have chosen."""
    memory: int | None = None
    """Bytes a simulation has for contacts and constraints; None: the suite's."""


def make(
    id: str,
    *,
    num_envs: int = 1,
    num_threads: int | None = None,
    copy: bool = True,
    randomise: Any = None,
    max_episode_steps: int | None = -1,
    **options: Any,
) -> TabletopVectorEnv:
    """The factory behind `robotrl.make_vec("tabletop/<task>")`.

    Args:
        id: `tabletop/` and a task's name.
        num_envs: simulations.
        num_threads: simulation threads; None: one per core this process may use. Results do not depend on it.
        copy: return fresh arrays; without, they are overwritten by the next step.
        randomise: see `robotrl.envs.randomise`; or `appearance`, `camera`, `dynamics`, or several as `camera+dynamics`.
        max_episode_steps: control steps after which an episode is truncated; None: never; -1: the task's own limit.
        options: see `Options`.

    Raises:
        RobotRLError: an unknown task, option or value; the nearest names are suggested.
    """
    from robotrl.envs.tabletop.tasks import TASKS
    from robotrl.envs.tabletop.vector_env import TabletopVectorEnv

    name = id.removeprefix(PREFIX)
    if name not in TASKS:
        raise RobotRLError(
            f"The tabletop suite has no task '{name}'.{nearest(name, list(TASKS))} Its tasks are: {', '.join(TASKS)}."
        )
    chosen = _checked(id, options, TASKS[name].held_out)
    if chosen.swap and not TASKS[name].others:
        able = ", ".join(PREFIX + other for other, task in TASKS.items() if task.others)
        raise RobotRLError(
            f"The scene of {id} has no other object that its instruction could name. Take swap=true out; it works with "
            f"{able}."
        )
    return TabletopVectorEnv(
        id,
        num_envs=num_envs,
        num_threads=num_threads,
        copy=copy,
        max_episode_steps=max_episode_steps,
        randomise=randomise,
        **{field.name: getattr(chosen, field.name) for field in fields(chosen)},
    )


def _checked(id: str, options: dict[str, Any], held_out: tuple[str, ...]) -> Options:
    """The options over their defaults, each of the right kind."""
    known = [field.name for field in fields(Options)]
    for name in options:
        if name not in known:
            raise RobotRLError(
                f"{id} has no option '{name}'.{nearest(name, [*known, 'max_episode_steps', 'randomise'])} "
                f"Its options are: {', '.join([*known, 'max_episode_steps'])}."
            )
    chosen = Options(**options)
    for name, choices in (("reward", ("sparse", "shaped")), ("split", ("all", "train", "held_out"))):
        value = getattr(chosen, name)
        if value not in choices:
            raise RobotRLError(
                f"The option '{name}' of {id} is {value!r}.{nearest(str(value), list(choices))} "
                f"It must be one of: {', '.join(choices)}."
            )
    if chosen.split == "held_out" and not held_out:
        raise RobotRLError(f"{id} names no colour, so it holds none out. Use split=all.")
    for name in ("terminate_on_success", "swap"):
        if not isinstance(getattr(chosen, name), bool):
            raise RobotRLError(f"The option '{name}' of {id} must be true or false.")
    if chosen.timestep is not None and not 1e-4 <= float(chosen.timestep) <= 0.01:
        raise RobotRLError(
            f"The option 'timestep' of {id} is {chosen.timestep}; it must lie in [0.0001, 0.01] seconds."
        )
    if chosen.memory is not None and not (isinstance(chosen.memory, int) and 0 < chosen.memory <= 1 << 30):
        raise RobotRLError(f"The option 'memory' of {id} is {chosen.memory}; it must be a number of bytes up to 2^30.")
    return chosen


__all__ = ["PREFIX", "Options", "make"]
