"""Rollouts as on-policy learners use them: the newest one whole, or the newest few joined in time."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from robotrl.types import Batch, BatchSpec, RobotRLError, StateDict


class RolloutBuffer:
    """Keeps the newest `num_rollouts` time-major rollouts and serves them joined along time, oldest first.

    Row ids are `t * N + n` of the joined rollout, so `write` can put fields (new log-probabilities, latents) beside
    the stored ones. `state/*` holds the policy state before the first step of the oldest rollout.
    """

    def __init__(self, num_rollouts: int = 1) -> None:
        self.num_rollouts = num_rollouts
        self._rollouts: list[Batch] = []
        self._joined: Batch | None = None

    def add(self, rollout: Batch) -> None:
        """Store a rollout `[T, N, ...]`, dropping the oldest beyond `num_rollouts`."""
        self._settle()
        self._rollouts = [*self._rollouts, rollout][-self.num_rollouts :]
        self._joined = None

    def batches(self, spec: BatchSpec, count: int) -> Iterator[dict[str, Batch]]:
        """`count` times the same rollout, for every part."""
        for name, part in spec.items():
            if part.kind != "rollout":
                raise RobotRLError(f"RolloutBuffer serves rollouts, but the part '{name}' asks for a {part.kind}.")
        for _ in range(count):
            yield {name: self._rollout() for name in spec}

    def write(self, rows: Batch) -> None:
        """Set the fields given in `rows` at the row ids `rows["row"]`; new fields start as zeros elsewhere."""
        joined = self._rollout()
        steps, width = joined["reward"].shape
        for key, value in rows.items():
            if key == "row":
                continue
            if key not in joined:
                joined[key] = value.new_zeros(steps, width, *value.shape[1:])
            joined[key].view(steps * width, *joined[key].shape[2:])[rows["row"]] = value

    def _rollout(self) -> Batch:
        if self._joined is None:
            if not self._rollouts:
                raise RobotRLError("The rollout buffer is empty: collect before updating.")
            first = self._rollouts[0]
            self._joined = {
                key: value if key.startswith("state/") else torch.cat([r[key] for r in self._rollouts])
                for key, value in first.items()
            }
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
        return {"rollouts": [dict(r) for r in self._rollouts]}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue with the rollouts of `state_dict`."""
        self._rollouts = [dict(r) for r in state["rollouts"]]
        self._joined = None
