"""Rollouts as on-policy learners use them: the newest one whole, or the newest few joined in time."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from robotrl.replay.config import ReplayConfig
from robotrl.types import Batch, BatchSpec, EnvSpec, RobotRLError, StateDict


class RolloutBuffer:
    """Keeps the newest `num_rollouts` time-major rollouts and serves them joined along time, oldest first.

    `row [T, N]` numbers the steps over the buffer's life, so `write` can put fields (new log-probabilities, latents)
    beside the stored ones. `state/*` holds the policy state before the first step of the oldest rollout.
    """

    def __init__(self, num_rollouts: int = 1) -> None:
        self.num_rollouts = num_rollouts
        self._rollouts: list[Batch] = []
        self._joined: Batch | None = None
        self._first_row = 0

    @classmethod
    def from_config(
        cls, config: ReplayConfig, spec: EnvSpec, *, num_envs: int, seed: int, device: str, env_steps: int
    ) -> RolloutBuffer:
        """The newest rollout alone: nothing here is configured."""
        return cls()

    def add(self, rollout: Batch) -> None:
        """Store a rollout `[T, N, ...]`, dropping the oldest beyond `num_rollouts`."""
        self._settle()
        kept = [*self._rollouts, rollout]
        self._first_row += sum(r["reward"].numel() for r in kept[: -self.num_rollouts])
        self._rollouts = kept[-self.num_rollouts :]
        self._joined = None

    def batches(self, spec: BatchSpec, count: int) -> Iterator[dict[str, Batch]]:
        """`count` times the same rollout, for every part."""
        check_single_source(spec)
        for name, part in spec.items():
            if part.kind != "rollout":
                raise RobotRLError(f"RolloutBuffer serves rollouts, but the part '{name}' asks for a {part.kind}.")
        for _ in range(count):
            rollout = dict(self._rollout())
            steps, width = rollout["reward"].shape
            rows = torch.arange(self._first_row, self._first_row + steps * width, device=rollout["reward"].device)
            rollout["row"] = rows.view(steps, width)
            yield dict.fromkeys(spec, rollout)

    def write(self, rows: Batch) -> None:
        """Set the fields given in `rows` at the row ids `rows["row"]`; new fields start as zeros elsewhere."""
        joined = self._rollout()
        steps, width = joined["reward"].shape
        here = rows["row"] >= self._first_row
        place = rows["row"][here] - self._first_row
        for key, value in rows.items():
            if key == "row":
                continue
            if key not in joined:
                joined[key] = value.new_zeros(steps, width, *value.shape[rows["row"].dim() :])
            joined[key].view(steps * width, *joined[key].shape[2:])[place] = value[here]

    def _rollout(self) -> Batch:
        if self._joined is None:
            if not self._rollouts:
                raise RobotRLError("The rollout buffer is empty: collect before updating.")
            if len(self._rollouts) == 1:
                self._joined = dict(self._rollouts[0])
            else:
                self._joined = _join(self._rollouts)
        return self._joined

    def _settle(self) -> None:
        """Cut the joined rollout back into its parts, so that written fields stay with their rows."""
        if self._joined is None:
            return
        lengths = [len(r["reward"]) for r in self._rollouts]
        joined = {k: v for k, v in self._joined.items() if not k.startswith("state/")}
        pieces = {k: torch.split(v, lengths) for k, v in joined.items()}
        self._rollouts = [
            {**rollout, **{k: piece[i] for k, piece in pieces.items()}} for i, rollout in enumerate(self._rollouts)
        ]

    def state_dict(self) -> StateDict:
        """The stored rollouts."""
        self._settle()
        return {"rollouts": [dict(r) for r in self._rollouts], "first_row": self._first_row}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue with the rollouts of `state_dict`."""
        self._rollouts = [dict(r) for r in state["rollouts"]]
        self._first_row = int(state["first_row"])
        self._joined = None


def _join(rollouts: list[Batch]) -> Batch:
    """One after the other in time; a field that was written beside the older ones only is zero in the newest."""
    joined: Batch = {}
    for key, value in rollouts[0].items():
        if key.startswith("state/"):
            joined[key] = value
            continue
        shape = value.shape[2:]
        joined[key] = torch.cat([r[key] if key in r else value.new_zeros(*r["reward"].shape, *shape) for r in rollouts])
    return joined


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
