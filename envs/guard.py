"""Catches what an environment must not return, at the seam where it enters the program.

A NaN that passes here ends in the weights hours later. So the first non-finite observation or reward stops the run,
says which env, row and step it came from, and leaves the state on disk for whoever has to find the cause.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robotrl.types import RobotRLError


class StepGuard:
    """Checks every step's observations and rewards of one vector env; a few microseconds a step.

    Args:
        env: a RobotRL vector env (`env_spec`, `num_envs`, `single_observation_space`, optionally `state_dict`).
        dump_dir: where the state is written when something is wrong; made when needed.
    """

    def __init__(self, env: Any, dump_dir: str | Path) -> None:
        self._env = env
        self._dump_dir = Path(dump_dir)
        spaces = env.single_observation_space.spaces
        self._shapes = {name: (env.num_envs, *space.shape) for name, space in spaces.items()}
        self._floats = tuple(name for name, space in spaces.items() if np.issubdtype(space.dtype, np.floating))
        self.steps = 0
        """Steps checked so far, a reset's observations not counted."""

    def check(
        self,
        obs: Mapping[str, np.ndarray],
        reward: np.ndarray | None = None,
        infos: Mapping[str, Any] | None = None,
        action: np.ndarray | None = None,
    ) -> None:
        """Raise if `obs` (groups of `[N, ...]`), `reward [N]` or `infos["final_obs"]` hold what they must not.

        Args:
            obs: what `step` or `reset` returned.
            reward: what `step` returned; None after a reset.
            infos: what `step` returned; its `final_obs` is checked where `_final_obs` says it is valid.
            action: what was executed; only written to the dump.

        Raises:
            RobotRLError: a group is missing, new or of another shape than the space says, or a value is not finite.
        """
        if reward is not None:
            self.steps += 1
        if len(obs) != len(self._shapes):
            self._raise_groups(obs)
        for name, shape in self._shapes.items():
            value = obs.get(name)
            if value is None:
                self._raise_groups(obs)
            elif value.shape != shape:
                self._raise_shape(name, value.shape, shape)
        # One sum of squares a group, the cheapest pass over an array that NumPy has: finite unless an element is not,
        # or unless it overflows, which the slow path sorts out.
        for name in self._floats:
            value = obs[name]
            if not math.isfinite(np.vdot(value, value)):
                self._look_closer(f"observation group '{name}'", obs[name], None, obs, reward, action)
        if reward is not None and not math.isfinite(np.vdot(reward, reward)):
            self._look_closer("reward", reward, None, obs, reward, action)
        if infos and "final_obs" in infos:
            self._check_final(infos, obs, reward, action)

    def _check_final(self, infos: Mapping[str, Any], obs: Any, reward: Any, action: Any) -> None:
        valid = infos["_final_obs"]
        for name in self._floats:
            value = infos["final_obs"].get(name)
            if value is None:
                self._raise_groups(infos["final_obs"])
            elif value.shape != self._shapes[name]:
                self._raise_shape(name, value.shape, self._shapes[name])
            elif not math.isfinite(np.sum(value[valid])):
                self._look_closer(f"final observation group '{name}'", value, valid, obs, reward, action)

    def _look_closer(
        self, what: str, value: np.ndarray, valid: np.ndarray | None, obs: Any, reward: Any, action: Any
    ) -> None:
        bad = ~np.isfinite(value.reshape(len(value), -1))
        if valid is not None:
            bad &= np.asarray(valid)[:, None]
        if not bad.any():
            return
        row, element = (int(i) for i in np.argwhere(bad)[0])
        found = value.reshape(len(value), -1)[row, element]
        others = int(bad.any(axis=1).sum()) - 1
        path = self._dump(obs, reward, action)
        raise RobotRLError(
            f"The env '{self._env.env_spec.id}' returned {found} in its {what}: row {row}, element {element}, "
            f"step {self.steps} of this collector" + (f" ({others} more rows are affected)" if others else "") + ". "
            f"Nothing was learned from it. The env's state, observations and last action are in {path}. "
            "A simulation that diverges usually needs smaller actions, a smaller timestep or milder randomisation."
        )

    def _raise_groups(self, obs: Mapping[str, Any]) -> None:
        missing, new = sorted(set(self._shapes) - set(obs)), sorted(set(obs) - set(self._shapes))
        raise RobotRLError(
            f"The env '{self._env.env_spec.id}' changed its observation groups at step {self.steps}: "
            f"missing {missing}, unexpected {new}. Every step must return the groups of its observation_space; "
            "mend the env, or drop the group with the key env.groups."
        )

    def _raise_shape(self, name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
        raise RobotRLError(
            f"The env '{self._env.env_spec.id}' changed the shape of its observation group '{name}' at step "
            f"{self.steps}: {shape} instead of {expected}. Every step must return the shape of its observation_space; "
            "pad it to a fixed size in the env, or declare the larger space."
        )

    def _dump(self, obs: Mapping[str, np.ndarray], reward: Any, action: Any) -> Path:
        """Write what is known to one `.npz` of plain arrays and text; the path, or why it could not be written."""
        arrays: dict[str, np.ndarray] = {f"obs/{name}": np.asarray(value) for name, value in obs.items()}
        arrays |= {
            name: np.asarray(value) for name, value in (("reward", reward), ("action", action)) if value is not None
        }
        try:
            _flatten(self._env.state_dict(), "env", arrays)
        except Exception as error:  # the dump is for diagnosis; a half one beats hiding the first error
            arrays["env/error"] = np.array(str(error))
        arrays["about"] = np.array(json.dumps({"env": self._env.env_spec.to_json(), "step": self.steps}))
        name = self._env.env_spec.id.replace("/", "_")
        path = self._dump_dir / f"bad_step-{name}-{time.strftime('%Y%m%d-%H%M%S')}-{self.steps}.npz"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        except OSError as error:
            return Path(f"(not written: {error})")
        return path


def _flatten(value: Any, prefix: str, into: dict[str, np.ndarray]) -> None:
    """Nested dictionaries and lists to flat path keys; what is no array of numbers or text becomes its text."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _flatten(item, f"{prefix}/{key}", into)
    elif isinstance(value, list | tuple) and any(
        isinstance(item, Mapping | list | tuple | np.ndarray) for item in value
    ):
        for i, item in enumerate(value):
            _flatten(item, f"{prefix}/{i}", into)
    else:
        array = np.asarray(value)
        into[prefix] = np.array(str(value)) if array.dtype.hasobject else array


__all__ = ["StepGuard"]
