"""Checks of task options: they come from configs and command lines, so a mistake gets a sentence, not a traceback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any

from robotrl.envs.native.task import Task
from robotrl.registry import nearest
from robotrl.types import RobotRLError


def task_from_options(env_id: str, kind: type[Task], options: Mapping[str, Any]) -> Task:
    """A `kind` with `options` over its defaults.

    Raises:
        RobotRLError: an option the task does not have (with the nearest names), or a value of another type.
    """
    known = {field.name: field for field in fields(kind)}
    for name, value in options.items():
        if name not in known:
            shared = ["max_episode_steps", "num_envs", "num_threads", "randomise"]
            raise RobotRLError(
                f"{env_id} has no option '{name}'.{nearest(name, [*known, *shared])} "
                f"Its options are: {', '.join([*known, 'max_episode_steps'])}."
            )
        _check(env_id, known[name], value)
    values: dict[str, Any] = {k: tuple(v) if isinstance(known[k].default, tuple) else v for k, v in options.items()}
    return kind(**values)


def _check(env_id: str, field: Field[Any], value: Any) -> None:
    default = field.default if field.default is not MISSING else None
    if field.name == "main_body":
        good, wanted = isinstance(value, (int, str)), "a body's name or number"
    elif isinstance(default, bool):
        good, wanted = isinstance(value, bool), "true or false"
    elif isinstance(default, tuple):
        good = isinstance(value, Sequence) and len(value) == len(default) and all(map(_is_number, value))
        wanted = f"{len(default)} numbers"
    elif isinstance(default, (int, float)):
        good, wanted = _is_number(value), "a number"
        if field.name == "frame_skip":
            good, wanted = isinstance(value, int) and value >= 1, "a whole number of at least 1"
    elif isinstance(default, str):
        good, wanted = isinstance(value, str), "text"
    else:
        good, wanted = value is None or isinstance(value, Mapping), "a mapping"
    if not good:
        raise RobotRLError(
            f"The option '{field.name}' of {env_id} is {value!r}, but it must be {wanted}. Its default is {default!r}."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
