"""What every wrapper does if it does nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from robotrl.envs.base import ObsDict, StepResult, VectorEnv, array_spec
from robotrl.types import RobotRLError, StateDict


class EnvWrapper(VectorEnv):
    """A vector env around another one; by itself it changes nothing."""

    def __init__(self, env: VectorEnv) -> None:
        self.env = env
        self.num_envs = env.num_envs
        self.env_spec = env.env_spec
        self.metadata = env.metadata  # type: ignore[misc]
        self.outcomes = getattr(env, "outcomes", ())
        self.single_observation_space = env.single_observation_space
        self.observation_space = env.observation_space
        self.single_action_space = env.single_action_space
        self.action_space = env.action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsDict, dict[str, Any]]:
        """See the env."""
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: NDArray[Any]) -> StepResult:
        """See the env."""
        return self.env.step(actions)

    def state_dict(self) -> StateDict:
        """The wrapped env's state and the wrapper's own."""
        return {"env": self.env.state_dict(), "wrapper": self._own_state()}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue where `state_dict` was taken, as exactly as the wrapped env can."""
        self.env.load_state_dict(state["env"])
        self._load_own_state(state["wrapper"])

    def _own_state(self) -> StateDict:
        return {}

    def _load_own_state(self, state: StateDict) -> None:
        pass

    def render_rows(
        self, rows: Sequence[int], *, height: int, width: int, camera: str | int | None = None
    ) -> NDArray[np.uint8]:
        """See the env."""
        return self.env.render_rows(rows, height=height, width=width, camera=camera)

    def disable_autoreset(self) -> None:
        """See the env."""
        turn_autoreset_off(self.env)
        self.metadata = self.env.metadata  # type: ignore[misc]

    @property
    def episode_labels(self) -> dict[str, list[str]]:
        """See the env."""
        labels: dict[str, list[str]] = getattr(self.env, "episode_labels", {})
        return labels

    def close_extras(self, **kwargs: Any) -> None:
        """Close the wrapped env."""
        self.env.close(**kwargs)

    @property
    def unwrapped(self) -> Any:
        """The env inside all wrappers."""
        return self.env.unwrapped

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "env":
            raise AttributeError(name)
        return getattr(self.env, name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.env!r})"

    def _set_groups(self, groups: Mapping[str, Space[Any]], units: Mapping[str, str]) -> None:
        """Declare the observation groups this wrapper returns: spaces of one env, and their units."""
        # sort_keys would reorder what the config has ordered
        self.single_observation_space = spaces.Dict(dict(groups), sort_keys=False)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        obs = {name: array_spec(space, units.get(name, "")) for name, space in groups.items()}
        self.env_spec = replace(self.env_spec, obs=obs)

    def _groups(self) -> dict[str, Any]:
        return dict(self.env.single_observation_space.spaces)  # type: ignore[attr-defined]

    def _units(self) -> dict[str, str]:
        return {name: spec.unit for name, spec in self.env.env_spec.obs.items()}


def turn_autoreset_off(env: VectorEnv) -> None:
    """Call the env's `disable_autoreset`.

    Raises:
        RobotRLError: it has none.
    """
    disable = getattr(env, "disable_autoreset", None)
    if disable is None:
        raise RobotRLError(
            f"The env '{env.env_spec.id}' resets by itself, so action_repeat and pixels cannot wrap it. "
            "Give it a method disable_autoreset() (see robotrl.envs.wrappers), or leave both out."
        )
    disable()
