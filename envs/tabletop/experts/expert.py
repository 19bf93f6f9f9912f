"""A scripted expert as a `Policy`: reads `state` and `privileged`, follows its task's plan, and tries again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robotrl.envs.tabletop.controller import MAX_STEP, MAX_TURN
from robotrl.envs.tabletop.experts.plans import PLANS, Move
from robotrl.envs.tabletop.experts.sight import Bool, Float, Sight
from robotrl.envs.tabletop.kinematics import DOWN, about_z, length, rotation_vector
from robotrl.registry import nearest
from robotrl.types import ArraySpec, EnvSpec, Extras, Obs, RobotRLError, State

_PREFIX = "tabletop/"


@dataclass(slots=True)
class ExpertConfig:
    """How the expert behaves when it explores; without exploration it is exact and always equally fast."""

    speed: float = 0.6
    """Share of the controller's largest speed."""
    speed_variation: float = 0.3
    """Each episode is played faster or slower by up to this share."""
    noise: float = 0.15
    """Standard deviation of the noise on the tool's motion, as a share of the motion; it lasts a few steps."""
    noise_memory: float = 0.8
    """How much of a step's noise is left in the next one, in [0, 1)."""

    def __post_init__(self) -> None:
        if not 0 < self.speed * (1 + self.speed_variation) <= 1 or not 0 <= self.speed_variation < 1:
            raise RobotRLError(
                f"An expert with speed {self.speed} and variation {self.speed_variation} would stand still or be "
                "faster than the arm. Keep speed * (1 + speed_variation) within (0, 1]."
            )
        if self.noise < 0 or not 0 <= self.noise_memory < 1:
            raise RobotRLError("An expert's noise must not be negative, and noise_memory must lie in [0, 1).")


class Expert:
    """Does one task of the suite, in any number of envs at once; the actions are those of `control=delta`.

    Exploring, each episode has a speed of its own and the motion is noisy, as demonstrations should be; what fails
    (a block that slipped, a door that was missed) is noticed and done again. The random numbers are torch's. The extra
    `expert_action` is the action without noise: who learns it sees where noise leads and not the noise (Laskey et al.
    2017, DART, arXiv:1703.09327).

    Args:
        config: an `ExpertConfig`, or None for its defaults; settings of other kinds of policies are not read.
        spec: of the env: the task is named by its id, and its actions must be those of `control=delta`.

    Raises:
        RobotRLError: there is no expert for that env.
    """

    obs_groups: tuple[str, ...] = ("state", "privileged")
    recorded: ClassVar[dict[str, ArraySpec]] = {"expert_action": ArraySpec((7,))}

    def __init__(self, config: Any, spec: EnvSpec) -> None:
        self.config = config if isinstance(config, ExpertConfig) else ExpertConfig()
        self.spec = spec
        name = spec.id.removeprefix(_PREFIX)
        if name not in PLANS or not spec.id.startswith(_PREFIX):
            raise RobotRLError(
                f"There is no expert for the env '{spec.id}'.{nearest(spec.id, [_PREFIX + task for task in PLANS])} "
                f"Experts do: {', '.join(_PREFIX + task for task in PLANS)}."
            )
        self.plan = PLANS[name]()
        self.check_env(spec)

    def check_env(self, env: EnvSpec) -> None:
        """Make sure that the expert can act in `env`.

        Raises:
            RobotRLError: it lacks the groups that the expert reads, or its actions are of another kind.
        """
        missing = [group for group in self.obs_groups if group not in env.obs]
        if missing:
            raise RobotRLError(
                f"The expert reads {' and '.join(self.obs_groups)}, but the env has no {missing[0]}. "
                "Keep these groups: leave env.groups out, and set env.pixels.replace_state=false."
            )
        action = env.action
        if action.shape != (7,) or not np.allclose(action.high, [MAX_STEP] * 3 + [MAX_TURN] * 3 + [1.0]):
            raise RobotRLError("The expert moves the tool by small steps. Make the env with env.options.control=delta.")

    def initial_state(self, num_envs: int) -> State:
        """Which move each row is at, since when and from where, and the episode's speed and noise."""
        return {
            "move": torch.zeros(num_envs, dtype=torch.int64),
            "timer": torch.zeros(num_envs, dtype=torch.int64),
            "arrived": torch.zeros(num_envs, dtype=torch.int64),
            "chosen": torch.zeros(num_envs, dtype=torch.int64),
            "anchor": torch.zeros(num_envs, 4, dtype=torch.float64),
            "pace": torch.zeros(num_envs, dtype=torch.float64),
            "noise": torch.zeros(num_envs, 3, dtype=torch.float64),
        }

    def reset_state(self, state: State, done: Tensor) -> State:
        """Begin the plan again in rows that are done."""
        keep = ~done
        return {k: v * keep.view(-1, *[1] * (v.dim() - 1)).to(v.dtype) for k, v in state.items()}

    def act(self, obs: Obs, state: State, *, explore: bool) -> tuple[Tensor, Extras, State]:
        """See `robotrl.types.Policy.act`; the extra is described above."""
        memory = {name: value.detach().cpu().numpy().copy() for name, value in state.items()}
        own, truth = (obs[name].detach().cpu().numpy().astype(np.float64) for name in self.obs_groups)
        fresh = memory["pace"] == 0.0
        if fresh.any():
            self._begin(memory, fresh, Sight(own, truth, memory), explore=explore)
        actions: Float = np.zeros((len(own), 7))
        moves = memory["move"].copy()
        for number in np.unique(moves):
            rows = np.flatnonzero(moves == number)
            part = {name: value[rows] for name, value in memory.items()}
            actions[rows] = self._play(self.plan.moves[number], int(number), Sight(own[rows], truth[rows], part))
            for name, value in part.items():
                memory[name][rows] = value
        meant = actions.copy()
        if explore and self.config.noise:
            self._disturb(actions, memory)
        bounds = np.array([MAX_STEP] * 3 + [MAX_TURN] * 3 + [1.0])
        device = obs["state"].device
        action, expert_action = (
            torch.from_numpy(np.clip(a, [*-bounds[:6], 0.0], bounds).astype(np.float32)).to(device)
            for a in (actions, meant)
        )
        following = {name: torch.from_numpy(value).to(device) for name, value in memory.items()}
        return action, {"expert_action": expert_action}, following

    def _begin(self, memory: dict[str, NDArray[Any]], fresh: Bool, s: Sight, *, explore: bool) -> None:
        """Draw the episodes' speeds and take up the first move."""
        count = int(fresh.sum())
        spread = self.config.speed_variation if explore else 0.0
        draws = torch.rand(count, dtype=torch.float64).numpy() if spread else np.full(count, 0.5)
        memory["pace"][fresh] = self.config.speed * (1.0 + spread * (2.0 * draws - 1.0))
        memory["anchor"][fresh] = np.column_stack([s.commanded, s.tool_yaw])[fresh]

    def _play(self, move: Move, number: int, s: Sight) -> Float:
        """Actions `[n, 7]` of one move; `s.memory` goes on to what the next step begins with."""
        m: dict[str, NDArray[Any]] = s.memory  # type: ignore[assignment]
        if move.choose:
            m["chosen"][:] = self.plan.choose(s)
        place, yaw = move.to(s)
        rotation = about_z(yaw) @ DOWN
        m["timer"] += 1
        close = (length(place - s.tool) < move.near) & (length(rotation_vector(rotation, s.tool_rot)) < 0.07)
        if move.until is not None:
            close = move.until(s)
        m["arrived"] = np.where(close | (m["arrived"] > 0), m["arrived"] + 1, 0)
        done = m["arrived"] > move.wait
        failed = ~done & (m["timer"] > move.patience)
        if move.keep is not None:
            failed |= ~move.keep(s)
        last = number + 1 == len(self.plan.moves)
        following = self.plan.again if last else number + 1
        step = np.where(failed, move.retry, np.where(done, following, number))
        changed = failed | done
        m["move"][:] = step
        m["timer"][changed] = m["arrived"][changed] = 0
        m["anchor"][changed] = np.column_stack([s.commanded, s.tool_yaw])[changed]
        action = np.zeros((len(place), 7))
        action[:, :3] = _towards(place - s.commanded, MAX_STEP * m["pace"] * move.speed)
        action[:, 3:6] = _towards(rotation_vector(rotation, s.commanded_rot), MAX_TURN * m["pace"])
        action[:, 6] = move.grip
        return action

    def _disturb(self, actions: Float, memory: dict[str, NDArray[Any]]) -> None:
        """Add noise that lasts, in proportion to the motion: where the tool stands still, it stands still."""
        c = self.config
        new = torch.randn(actions.shape[0], 3, dtype=torch.float64).numpy()
        memory["noise"] = c.noise_memory * memory["noise"] + np.sqrt(1 - c.noise_memory**2) * new
        actions[:, :3] += c.noise * length(actions[:, :3])[:, None] * memory["noise"]


def _towards(way: Float, most: Float) -> Float:
    """`way [n, 3]`, shortened to `most [n]` where it is longer."""
    return way * np.minimum(1.0, most / np.maximum(length(way), 1e-9))[:, None]


__all__ = ["Expert", "ExpertConfig"]
