"""Settings of verbs that play a saved policy: what is not said about the env is as in its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from robotrl.configs.compose import read_config
from robotrl.runners.saved import trained_env


def read_for_policy[T](
    asked: T, policy_dir: str, argv: Sequence[str], *, example: str, shorthands: Mapping[str, str]
) -> T:
    """`asked` with the env of the policy's training, and the user's words on top.

    Args:
        asked: the verb's configuration, read from `argv`; it has a field `env`.
        policy_dir: the policy's directory, or its run's.
        argv: the words.
        example: see `read_config`.
        shorthands: see `read_config`.

    Raises:
        RobotRLError: there is no policy, or its env is a class that only the user may name.
    """
    config: Any = asked
    named = any(word.startswith(("env=", "env.id=")) for word in argv)
    if named and ":" in config.env.id:
        return asked
    trained = trained_env(policy_dir)
    if named and config.env.id != trained.id:  # another task: the wrappers fit, the options of the old one do not
        trained = replace(trained, id=config.env.id, options={}, randomise=None)
    return read_config(replace(config, env=trained), argv, example=example, shorthands=shorthands)
