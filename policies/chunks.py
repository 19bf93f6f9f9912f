"""Policies that decide on several actions at once: the pending chunk and its cursor are their explicit state.

Only rows whose chunk is used up infer. With a delay d (real-time chunking, Black et al. 2025, arXiv:2506.07339) an
inference takes as long as d actions: meanwhile the old chunk is executed on, and the new one, of which the first d
actions would lie in the past by then, takes over at its d-th. The delay is counted in consumed actions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robotrl.policies.actions import ActionMap
from robotrl.policies.compatibility import check_compatible
from robotrl.policies.config import PolicyConfig
from robotrl.types import Batch, EnvSpec, Extras, Obs, RobotRLError, State

NONE = -1
"""In `cursor`: no chunk yet; in `wait`: no inference is running."""


@dataclass(frozen=True, slots=True)
class Error:
    """What a chunk policy is to be blamed for on demonstrations, and where it counts."""

    value: Tensor
    """`[T, B]`, with a gradient."""
    valid: Tensor
    """`[T, B]`."""


class ChunkPolicy(nn.Module):
    """What chunk policies share: acting.

    Subclasses say how a chunk is inferred (`infer`), what they learn from (`windows`), how they are fitted to data
    before the first gradient step (`fit_windows`, `fit`), and what is to be made small (`errors`).

    The extras of `act` are `chunk [N, h, *action]`, what is being executed, in env units, `decision [N]`, whether the
    row inferred, and what the subclass adds, which is zero where a row did not infer.
    """

    obs_groups: tuple[str, ...]
    losses: tuple[str, ...]
    """The names that `errors` uses."""
    fitted: Tensor

    def __init__(
        self, config: PolicyConfig, spec: EnvSpec, *, chunk_size: int, execute_steps: int, delay: int = 0
    ) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        if spec.action.kind != "continuous":
            raise RobotRLError(
                f"policy={config.kind} decides on chunks of continuous actions, but {spec.id} has discrete ones. Use "
                "policy=mlp or policy=cnn."
            )
        self.actions = ActionMap(spec.action)
        self.chunk_size, self.execute_steps, self.delay = chunk_size, execute_steps, delay
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def check_env(self, env: EnvSpec) -> None:
        """Make sure that the policy can act in `env`.

        Raises:
            RobotRLError: groups it reads are missing or of another shape, or the action differs; all are named.
        """
        check_compatible(self.obs_groups, self.spec, env)

    @property
    def windows(self) -> Mapping[str, Sequence[int]]:
        """The steps around the present one that training needs, as in `Part.windows`."""
        return {**{f"obs/{group}": (0,) for group in self.obs_groups}, "action": range(self.chunk_size)}

    @property
    def fit_windows(self) -> Mapping[str, Sequence[int]]:
        """The same of `fit`."""
        raise NotImplementedError

    def fit(self, rows: Batch) -> None:
        """Take from `rows`, many steps of the data, what does not come from gradients: units, known words.

        Raises:
            RobotRLError: the policy was fitted before, and these data are scaled differently.
        """
        raise NotImplementedError

    def errors(self, obs: Obs, rows: Batch) -> dict[str, Error]:
        """What is to be made small, by name.

        Args:
            obs: the present observation `[B, ...]`, augmented as the learner likes.
            rows: all windows, `[W, B, ...]`.
        """
        raise NotImplementedError

    def infer(self, obs: Obs, previous: Tensor | None, *, explore: bool) -> tuple[Tensor, Extras]:
        """A chunk `[n, h, A]` in env units, flat, not yet clipped to the bounds, and extras `[n, ...]`.

        Args:
            obs: of the rows that infer, `[n, ...]`.
            previous: what is left of the old chunk `[n, h, A]` in env units, beginning now, its last action repeated
                at the end; the first `delay` of them will be executed whatever comes. None: there is none.
            explore: draw a chunk, rather than taking the most likely one.
        """
        raise NotImplementedError

    def no_extras(self, count: int) -> Extras:
        """The extras of `infer`, all zero."""
        return {}

    def initial_state(self, num_envs: int) -> State:
        """`chunk [N, h, *action]` and its `cursor [N]`; with a delay also the chunk to come and how long it takes."""
        chunk = self.actions.low.new_zeros(num_envs, self.chunk_size, *self.actions.shape)
        none = torch.full((num_envs,), NONE, device=chunk.device)
        state = {"chunk": chunk, "cursor": none}
        return state | {"next": chunk.clone(), "wait": none.clone()} if self.delay else state

    def reset_state(self, state: State, done: Tensor) -> State:
        """Forget the chunks of finished rows."""
        return {k: torch.where(done, NONE, v) if k in ("cursor", "wait") else v for k, v in state.items()}

    @torch.no_grad()
    def act(self, obs: Obs, state: State, *, explore: bool) -> tuple[Tensor, Extras, State]:
        """See `robotrl.types.Policy.act`; the extras are described above."""
        chunk, cursor = state["chunk"].clone(), state["cursor"].clone()
        count = len(cursor)
        extras, decision = self.no_extras(count), torch.zeros(count, dtype=torch.bool, device=cursor.device)
        after: State = {"chunk": chunk, "cursor": cursor}
        due = (cursor == NONE) | (cursor >= self.execute_steps if not self.delay else False)
        if bool(due.any()):
            chunk[due] = self._inferred(obs, due, None, extras, explore=explore)
            cursor[due], decision[due] = 0, True
        if self.delay:
            coming, wait = state["next"].clone(), state["wait"].clone()
            arrived = wait == self.delay
            chunk[arrived] = coming[arrived]
            cursor[arrived], wait[arrived] = self.delay, NONE
            begin = (wait == NONE) & (cursor == self.execute_steps)
            if bool(begin.any()):
                left = torch.arange(self.chunk_size, device=cursor.device) + cursor[begin].unsqueeze(1)
                left = left.clamp(max=self.chunk_size - 1)
                old = chunk[begin][torch.arange(len(left), device=cursor.device).unsqueeze(1), left]
                coming[begin] = self._inferred(obs, begin, old, extras, explore=explore)
                wait[begin], decision[begin] = 0, True
            wait = torch.where(wait == NONE, NONE, wait + 1)
            after |= {"next": coming, "wait": wait}
        action = chunk[torch.arange(count, device=cursor.device), cursor]
        after["cursor"] = cursor + 1
        return action, {"chunk": chunk, "decision": decision, **extras}, after

    def _inferred(self, obs: Obs, rows: Tensor, old: Tensor | None, extras: Extras, *, explore: bool) -> Tensor:
        """Chunks of the rows that are due, inside the bounds; their extras are put in place."""
        part = {group: obs[group][rows] for group in self.obs_groups}
        flat = None if old is None else old.reshape(len(old), self.chunk_size, -1)
        chunk, more = self.infer(part, flat, explore=explore)
        if not bool(torch.isfinite(chunk.sum())):
            raise RobotRLError(
                "The policy produced a non-finite action. Its weights or its input are not finite: "
                "lower the learning rate, or check the observations with robotrl doctor and the env checker."
            )
        for key, value in more.items():
            extras[key][rows] = value
        low, high = self.actions.low, self.actions.high
        return chunk.float().clamp(low, high).reshape(len(chunk), self.chunk_size, *self.actions.shape)


__all__ = ["ChunkPolicy", "Error"]
