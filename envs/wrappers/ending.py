"""Episodes that somebody outside may end: a person who shows the robot what to do, or who stops it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robotrl.envs.base import StepResult, VectorEnv
from robotrl.envs.wrappers.base import EnvWrapper


class EndOnRequest(EnvWrapper):
    """Truncates every running episode after the step for which `asked` says so.

    Args:
        env: in SAME_STEP mode.
        asked: called once after each step; None: nobody asks. The answer is whether the episode counts as a success in
            an env that cannot tell.
    """

    def __init__(self, env: VectorEnv, asked: Callable[[], bool | None]) -> None:
        super().__init__(env)
        self._asked = asked

    def step(self, actions: NDArray[Any]) -> StepResult:
        """See the env."""
        obs, reward, terminated, truncated, infos = self.env.step(actions)
        asked = self._asked()
        rows = ~(terminated | truncated)
        if asked is None or not rows.any():
            return obs, reward, terminated, truncated, infos
        everywhere = np.ones(self.num_envs, np.bool_)
        final = {name: value.copy() for name, value in infos.get("final_obs", obs).items()}
        for name, value in final.items():
            value[rows] = obs[name][rows]
        infos = {**infos, "final_obs": final, "_final_obs": everywhere}
        if not self.env_spec.success:
            infos |= {"success": np.full(self.num_envs, asked), "_success": everywhere}
        elif "success" not in infos:
            infos |= {"success": np.zeros(self.num_envs, np.bool_), "_success": everywhere}
        obs, _ = self.env.reset(options={"reset_mask": rows})
        return obs, reward, terminated, truncated | rows, infos


__all__ = ["EndOnRequest"]
