"""What every environment of RobotRL offers beyond `gymnasium.vector.VectorEnv`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from robotrl.types import ActionSpec, ArraySpec, EnvSpec, StateDict

ObsDict = dict[str, NDArray[Any]]
StepResult = tuple[ObsDict, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]


class VectorEnv(gymnasium.vector.VectorEnv):
    """`num_envs` environments side by side, in SAME_STEP autoreset mode, with observations in named groups.

    On a step where rows finish, `obs` holds their next episodes' first observations, `infos["final_obs"]` (a dict
    group -> `[N, ...]`) the ones before the reset, valid where `infos["_final_obs"]` (bool `[N]`) says so; both keys
    are absent while no row finishes. `infos["success"]` and `infos["_success"]` likewise, where the env has a notion
    of success. Without `copy`, returned arrays are overwritten by the next call: the caller copies what it keeps.
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # type: ignore[misc]
    env_spec: EnvSpec
    """Groups, shapes, units, control frequency, time limit, success; saved with every policy."""

    default_seed: int = 0
    """What the first `reset()` uses when it is given no seed; set by `make_vec`."""

    outcomes: tuple[str, ...] = ()
    """Further keys of `infos`, bool `[N]`, that say at an episode's end how it went, as `success` does."""

    _autoreset: bool = True

    @property
    def episode_labels(self) -> dict[str, list[str]]:
        """What the running episodes are called, by kind (`task`, `instruction` ...), a text a row; most have none."""
        return {}

    def disable_autoreset(self) -> None:
        """Let finished rows wait, as in Gymnasium's DISABLED mode; wrappers that look at last states ask for it.

        From then on `step` sets no `final_obs`, and what it returns for a row that has finished before means nothing.
        `reset(options={"reset_mask": bool [N]})` starts the next episode in the rows named and returns all rows'
        observations. That option works in either mode.
        """
        self._autoreset = False
        self.metadata = {**self.metadata, "autoreset_mode": AutoresetMode.DISABLED}  # type: ignore[misc]

    @abstractmethod
    def state_dict(self) -> StateDict:
        """Everything the next step depends on, where `env_spec.exact_state`; episode counters otherwise."""

    @abstractmethod
    def load_state_dict(self, state: StateDict) -> None:
        """Continue where `state_dict` was taken, bit for bit where `env_spec.exact_state`."""

    @abstractmethod
    def render_rows(
        self, rows: Sequence[int], *, height: int, width: int, camera: str | int | None = None
    ) -> NDArray[np.uint8]:
        """Pictures `[len(rows), height, width, 3]` of the envs `rows`, from `camera` (None: the task's own view)."""


def array_spec(space: gymnasium.Space[Any], unit: str = "") -> ArraySpec:
    """The spec of one observation group as a learner sees it: floating-point numbers of any width are float32 there."""
    dtype = np.dtype(space.dtype)
    return ArraySpec(tuple(space.shape or ()), "float32" if dtype.kind == "f" else dtype.name, unit)


def action_spec(space: gymnasium.Space[Any]) -> ActionSpec:
    """The spec of a `Box` or `Discrete` action space (of one env)."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return ActionSpec("discrete", num_actions=int(space.n))
    if isinstance(space, gymnasium.spaces.Box):
        low, high = (tuple(float(x) for x in bound.ravel()) for bound in (space.low, space.high))
        return ActionSpec("continuous", tuple(space.shape), low, high)
    raise TypeError(f"actions must be a Box or Discrete space, not {space}")
