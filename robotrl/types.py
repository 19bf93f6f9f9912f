"""The words every part of RobotRL shares: batches, specifications and the protocols of the three owners.

A `Batch` is a flat dictionary of tensors with path names: `obs/state`, `next_obs/image/front`, `action`. Rollouts and
sequences are time-major `[T, N, ...]`, transitions `[B, ...]`; images stay uint8 `[..., C, H, W]` until the encoder.
Fields: `obs/* action reward next_obs/* terminated truncated episode step is_first valid source`, extras of the policy
(`log_prob`, `raw_action`, `chunk`, `decision`) and `state/*`, the policy state before the first step.
`next_obs` is the observation before any auto-reset; `terminated` and `truncated` are never merged in storage.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

Batch = dict[str, Tensor]
Obs = dict[str, Tensor]
State = dict[str, Tensor]
Extras = dict[str, Tensor]
Metrics = dict[str, Tensor]
StateDict = dict[str, Any]  # nested dictionaries and lists of tensors, numpy arrays, numbers, strings, None


def group(batch: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The fields under `prefix/`, with the prefix cut off: `group(batch, "obs")["state"]`."""
    start = prefix + "/"
    return {key[len(start) :]: value for key, value in batch.items() if key.startswith(start)}


def ungroup(values: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The inverse of `group`: every key gets `prefix/` put before it."""
    return {f"{prefix}/{key}": value for key, value in values.items()}


class RobotRLError(Exception):
    """A mistake a user can mend: the message says what happened, why, and what to do. Shown without a traceback."""


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """Shape (without batch axes), dtype name (`float32`, `uint8`, `int64`) and unit of one observation group."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    unit: str = ""
    frames: int = 1
    """Of pictures: of how many steps, oldest first along the channels; at an episode's start its first one repeats."""


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """A continuous action of `shape` within `[low, high]` (env units, a bound an element), or one of `num_actions`."""

    kind: Literal["continuous", "discrete"]
    shape: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    num_actions: int = 0


@dataclass(frozen=True, slots=True)
class EnvSpec:
    """What a learner and a policy may know of an environment; plain data, saved with every policy."""

    id: str
    obs: dict[str, ArraySpec]
    action: ActionSpec
    control_hz: float = 0.0
    """Agent decisions a second of simulated time (after action repeat); 0 where the env has no clock."""
    time_limit: int | None = None
    """Agent decisions after which an episode is truncated; None: never."""
    action_repeat: int = 1
    success: str = ""
    """How success of an episode is defined, in words; empty: the env has no notion of success."""
    exact_state: bool = False
    """Whether `state_dict` of the env continues it bit for bit."""

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary that `from_json` reads back; infinite bounds, which JSON lacks, are texts."""
        data = asdict(self)
        for bound in ("low", "high"):
            data["action"][bound] = [x if math.isfinite(x) else str(x) for x in data["action"][bound]]
        return data

    @staticmethod
    def from_json(data: dict[str, Any]) -> EnvSpec:
        """Read what `to_json` wrote."""
        obs = {
            k: ArraySpec(tuple(v["shape"]), v["dtype"], v["unit"], v.get("frames", 1)) for k, v in data["obs"].items()
        }
        a = data["action"]
        low, high = (tuple(float(x) for x in a[bound]) for bound in ("low", "high"))
        action = ActionSpec(a["kind"], tuple(a["shape"]), low, high, a["num_actions"])
        rest = {k: v for k, v in data.items() if k not in ("obs", "action")}
        return EnvSpec(obs=obs, action=action, **rest)


@dataclass(slots=True)
class Progress:
    """The clocks of a run. `env_steps` counts agent decisions over all envs, `grad_steps` optimiser steps."""

    total_env_steps: int
    env_steps: int = 0
    grad_steps: int = 0
    iterations: int = 0
    updates: int = 0
    episodes: int = 0

    @property
    def fraction(self) -> float:
        """Share of the run that is done, in [0, 1]."""
        return min(1.0, self.env_steps / max(1, self.total_env_steps))

    def state_dict(self) -> StateDict:
        """All clocks, JSON-ready."""
        return asdict(self)

    def load_state_dict(self, state: StateDict) -> None:
        """Set every clock but the goal: a resumed run may be asked for more steps."""
        for name in ("env_steps", "grad_steps", "iterations", "updates", "episodes"):
            setattr(self, name, int(state[name]))


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the batch a learner asks its replay for."""

    source: str = "online"
    kind: Literal["rollout", "transition", "sequence"] = "rollout"
    batch_size: int = 0
    """Transitions or sequences; 0 for a whole rollout."""
    length: int = 1
    """Steps of a sequence."""
    stratify_by: str | None = None
    """A field of integers: every value present gets an equal share of the batch, which is ordered by it."""
    strata: int | None = None
    """With `stratify_by`: the values must be 0 .. strata - 1, every one of them present; other data are refused. So a
    learner with something for each step of a horizon says how long it is."""
    shares: tuple[float, ...] | None = None
    """With `stratify_by`: not equal shares, but each row of the value v with probability `shares[v]`, by lot: first the
    value, then one of its rows. Values without a share, and negative ones, are left out; shares of values that are not
    present go to the others."""
    weight_by: str | None = None
    """A field of weights: rows (first rows, of sequences) are drawn in proportion to it."""
    newest_first: bool = False
    """Of sequences: each new stretch of `length` steps is served once, as soon as it is complete, before any other."""
    within_episode: bool = False
    """Sequences end with their first episode: `valid` masks the rest, where the last step is repeated."""
    windows: Mapping[str, Sequence[int]] | None = None
    """Of sequences from recorded episodes: the steps around the drawn one at which a field (or all of `obs`) is asked
    for, as in `{"obs": (-1, 0), "action": range(16)}`; `valid/<field>` masks those outside of the episode."""
    newest_steps: int = 0
    """Of rollouts: the newest whole ones that together hold so many steps of every env, joined in time; 0: the newest
    one alone."""


BatchSpec = dict[str, Part]


@runtime_checkable
class Policy(Protocol):
    """What acts, in training and on the robot: network, normaliser and action mapping, no optimiser."""

    obs_groups: tuple[str, ...]

    def initial_state(self, num_envs: int) -> State:
        """Explicit state for `num_envs` rows, each tensor `[N, ...]`; empty for a memoryless policy."""
        ...

    def reset_state(self, state: State, done: Tensor) -> State:
        """The state with the rows where `done [N]` (bool) set back to the start of an episode."""
        ...

    def act(self, obs: Obs, state: State, *, explore: bool) -> tuple[Tensor, Extras, State]:
        """Action `[N, ...]` in env units, finite and within bounds; extras `[N, ...]` to be stored; next state."""
        ...


class Learner(Protocol):
    """How a batch becomes a gradient: owns critics, targets, discriminators and optimisers.

    One that trains more than one policy worth deploying offers the others as `other_policies: dict[str, Policy]`; they
    are evaluated and saved under their names beside `policy`. One with more to keep than policies offers it as `beside`
    (see the function of that name). One that counts on how often it is updated offers
    `check_schedule(rollout_steps, updates)`, which raises RobotRLError; it is called before anything is collected.
    """

    policy: Policy
    """What is evaluated, saved, deployed."""
    acting: Policy
    """What collects; `policy` unless the method says otherwise."""

    @property
    def batch_spec(self) -> BatchSpec:
        """What one update sees; read again before each `Replay.batches`."""
        ...

    def observe(self, fresh: Batch, progress: Progress) -> None:
        """Once per iteration, after the replay stored `fresh`: the method's own clocks, annealing, normaliser sums.

        `fresh` is what was just collected; empty where nothing is collected (learning from a data set).
        """
        ...

    def update(self, batch: dict[str, Batch]) -> tuple[Metrics, Batch | None]:
        """One update: detached metrics and, or None, fields to write back by the row ids in `row`.

        An update of several optimiser steps says how many in the metric `grad_steps`, a tensor on the CPU.
        """
        ...

    def state_dict(self) -> StateDict:
        """Everything the next update depends on, the policy's weights included."""
        ...

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where `state_dict` was taken."""
        ...


def other_policies(learner: Learner) -> dict[str, Policy]:
    """Policies that a learner offers beside `policy`, by name; most offer none."""
    offered: dict[str, Policy] = getattr(learner, "other_policies", {})
    return offered


def recorded(policy: Policy) -> dict[str, ArraySpec]:
    """Extras of `act` that a recording keeps beside the action, by name; most policies have none.

    They are labels to learn from, such as what an expert meant to do where noise was added to it (`expert_action`).
    """
    offered: dict[str, ArraySpec] = getattr(policy, "recorded", {})
    return offered


def beside(learner: Learner) -> dict[str, StateDict]:
    """Tensors that a learner offers to be saved in every folder of its policy, by file name; most offer none.

    They explain a policy, as the rest of its world model does, and are not needed to act.
    """
    offered: dict[str, StateDict] = getattr(learner, "beside", {})
    return offered


def check_schedule(learner: Learner, rollout_steps: int, updates: float) -> None:
    """Let a learner refuse a schedule it cannot keep: steps of every env in a collect, and updates after each.

    Raises:
        RobotRLError: it does.
    """
    check = getattr(learner, "check_schedule", None)
    if check is not None:
        check(rollout_steps, updates)


class Replay(Protocol):
    """What one update sees: stores rollouts and answers a learner's `BatchSpec`."""

    def add(self, rollout: Batch) -> None:
        """Store a time-major rollout `[T, N, ...]`."""
        ...

    def batches(self, spec: BatchSpec, count: int) -> Iterator[dict[str, Batch]]:
        """`count` batches, one `Batch` a part; sampled ones carry their row ids in `row`."""
        ...

    def write(self, rows: Batch) -> None:
        """Overwrite fields of the rows named in `rows["row"]`; rows overwritten meanwhile are ignored."""
        ...

    def state_dict(self) -> StateDict:
        """Everything needed to continue exactly, sampling generator included."""
        ...

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where `state_dict` was taken."""
        ...


__all__ = [
    "ActionSpec", "ArraySpec", "Batch", "BatchSpec", "EnvSpec", "Extras", "Learner", "Metrics", "Obs", "Part",
    "Policy", "Progress", "Replay", "RobotRLError", "State", "StateDict", "beside", "check_schedule", "group",
    "other_policies", "recorded", "ungroup",
]  # fmt: skip
