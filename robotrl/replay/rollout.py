"""Rollouts as on-policy learners use them: the newest one whole, or the newest few joined in time."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from robotrl.replay.config import ReplayConfig
from robotrl.types import Batch, BatchSpec, EnvSpec, RobotRLError, StateDict


class RolloutBuffer:
    """Keeps the newest time-major rollouts and serves them joined along time, oldest first.

    `row [T, N]` numbers the steps over the buffer's life, so `write` can put fields (new log-probabilities, latents)
    beside the stored ones. `state/*` holds the policy state before the first step of the oldest rollout.

    Args:
        num_rollouts: how many are kept.
        newest_steps: keep instead as many as it takes to have this many steps of every env; whole ones, so it is
            exactly as many where the length of a rollout divides it. 0: `num_rollouts` counts.
    """

    def __init__(self, num_rollouts: int = 1, *, newest_steps: int = 0) -> None:
        self.num_rollouts, self.newest_steps = num_rollouts, newest_steps
        self._joined: Batch = {}
        self._lengths: list[int] = []
        self._states: list[Batch] = []
        self._first_row = 0

    @classmethod
    def from_config(
        cls,
        config: ReplayConfig,
        spec: EnvSpec,
        parts: BatchSpec,
        *,
        num_envs: int,
        seed: int,
        device: str,
        env_steps: int,
    ) -> RolloutBuffer:
        """As many rollouts as the learner's `parts` ask for.

        Raises:
            RobotRLError: they ask for different numbers of steps.
        """
        asked = {part.newest_steps for part in parts.values()}
        if len(asked) > 1:
            raise RobotRLError(
                f"The learner asks one rollout buffer for the newest {sorted(asked)} steps. All its parts get the same "
                "rollouts: give them one newest_steps."
            )
        return cls(newest_steps=max(asked, default=0))

    def add(self, rollout: Batch) -> None:
        """Store a rollout `[T, N, ...]`, dropping the oldest that are no longer asked for."""
        fields = {key: value for key, value in rollout.items() if not key.startswith("state/")}
        self._lengths.append(len(rollout["reward"]))
        self._states.append({key: value for key, value in rollout.items() if key.startswith("state/")})
        gone, held = 0, sum(self._lengths)
        while len(self._lengths) > 1 and self._enough(held - self._lengths[0]):
            held -= self._lengths[0]
            gone += self._lengths.pop(0)
            self._states.pop(0)
        self._first_row += gone * rollout["reward"].shape[1]
        self._joined = _append({key: value[gone:] for key, value in self._joined.items()}, fields)

    def _enough(self, steps: int) -> bool:
        """Whether the rollouts but the oldest, `steps` of every env, are all that is asked for."""
        return steps >= self.newest_steps if self.newest_steps else len(self._lengths) > self.num_rollouts

    def batches(self, spec: BatchSpec, count: int) -> Iterator[dict[str, Batch]]:
        """`count` times the same rollout, for every part."""
        check_single_source(spec)
        for name, part in spec.items():
            if part.kind != "rollout":
                raise RobotRLError(f"RolloutBuffer serves rollouts, but the part '{name}' asks for a {part.kind}.")
        for _ in range(count):
            joined = self._filled()
            steps, width = joined["reward"].shape
            rows = torch.arange(self._first_row, self._first_row + steps * width, device=joined["reward"].device)
            rollout = {**joined, **self._states[0], "row": rows.view(steps, width)}
            yield {name: dict(rollout) for name in spec}

    def write(self, rows: Batch) -> None:
        """Set the fields given in `rows` at the row ids `rows["row"]`; new fields start as zeros elsewhere."""
        joined = self._filled()
        steps, width = joined["reward"].shape
        here = rows["row"] >= self._first_row
        place = rows["row"][here] - self._first_row
        for key, value in rows.items():
            if key == "row":
                continue
            if key not in joined:
                joined[key] = value.new_zeros(steps, width, *value.shape[rows["row"].dim() :])
            joined[key].view(steps * width, *joined[key].shape[2:])[place] = value[here]

    def _filled(self) -> Batch:
        if not self._joined:
            raise RobotRLError("The rollout buffer is empty: collect before updating.")
        return self._joined

    def state_dict(self) -> StateDict:
        """The stored rollouts."""
        return {
            "rollouts": dict(self._joined),
            "lengths": list(self._lengths),
            "states": [dict(state) for state in self._states],
            "first_row": self._first_row,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue with the rollouts of `state_dict`."""
        self._joined = dict(state["rollouts"])
        self._lengths = [int(length) for length in state["lengths"]]
        self._states = [dict(s) for s in state["states"]]
        self._first_row = int(state["first_row"])


def _append(joined: Batch, fresh: Batch) -> Batch:
    """One after the other in time; a field that was written beside the older ones only is zero in the new ones."""
    if not joined or len(joined["reward"]) == 0:
        return fresh
    shape = fresh["reward"].shape
    return {
        key: torch.cat([old, fresh[key] if key in fresh else old.new_zeros(*shape, *old.shape[2:])])
        for key, old in joined.items()
    }


def check_single_source(spec: BatchSpec) -> None:
    """A store by itself is one source: parts that name two would silently get the same data.

    Raises:
        RobotRLError: they do.
    """
    sources = sorted({part.source for part in spec.values()})
    if len(sources) > 1:
        raise RobotRLError(
            f"The learner asks for the sources {sources}, but the replay is a single one. "
            "Give it a MixedReplay with one store for each."
        )
