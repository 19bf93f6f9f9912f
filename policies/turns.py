"""Two policies that take turns, an episode at a time: a frozen one that owes some steps, and the one that learns."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robotrl.policies.mixture import act_by_member
from robotrl.types import Extras, Obs, Policy, State

EXPLORING = -1
"""The extra `member` where the learning policy acts."""


class Turns:
    """Rows whose episode is `member`'s are played by it, the others by `other`. Both are memoryless.

    After `call(member, index, steps)`, rows that start an episode are given to the member until its whole episodes make
    up at least `steps` steps, all rows together. So its samples are of its own distribution from the first step on. The
    extra `member` of a step is `index`, or `EXPLORING`.

    The policy state holds what is under way: who plays a row, in which call, and the member's steps there in finished
    episodes and in the running one.

    Args:
        other: acts where no member does.
        time_limit: steps of an episode at most; None: unknown, so the member plays one row after the other.
        device: of the policy state.
    """

    def __init__(self, other: Policy, time_limit: int | None, device: torch.device) -> None:
        self.other, self._time_limit, self._device = other, time_limit, device
        self.member: Policy = other
        self.index, self._steps = EXPLORING, 0
        self.obs_groups = other.obs_groups

    def call(self, member: Policy, index: int, steps: int) -> None:
        """From the next episodes on `member` plays its `steps` steps, under the number `index`, higher than before."""
        self.member, self.index, self._steps = member, index, steps

    def initial_state(self, num_envs: int) -> State:
        """`member`, `call`, `before`, `steps`: `[N]` int64 each; every row starts an episode."""
        none = torch.full((num_envs,), EXPLORING, device=self._device)
        state = {"member": none, "call": none.clone(), "before": none * 0, "steps": none * 0}
        return self._give(state, none == EXPLORING)

    def reset_state(self, state: State, done: Tensor) -> State:
        """Finished rows count their steps and are given to the member as long as it owes some."""
        ended = {"before": state["before"] + state["steps"] * done, "steps": state["steps"] * ~done}
        return self._give({**state, **ended, "member": torch.where(done, EXPLORING, state["member"])}, done)

    def act(self, obs: Obs, state: State, *, explore: bool) -> tuple[Tensor, Extras, State]:
        """Each row by the one whose turn it is."""
        playing = (state["member"] == self.index) & (state["member"] != EXPLORING)
        if bool(playing.any()):
            action, extras = act_by_member((self.other, self.member), obs, playing.long(), explore=explore)
        else:
            action, extras, _ = self.other.act(obs, {}, explore=explore)
        member = torch.where(playing, state["member"], EXPLORING)
        return action, extras | {"member": member}, {**state, "member": member, "steps": state["steps"] + playing}

    def _give(self, state: State, free: Tensor) -> State:
        """As many free rows as it takes go to the member; a running episode counts as one of full length."""
        here = state["call"] == self.index
        length = self._time_limit or self._steps
        running = int(((state["member"] == self.index) & ~free).sum())
        owed = self._steps - int(state["before"][here].sum()) - running * length
        if self.index == EXPLORING or owed <= 0:
            return state
        given = free & (free.long().cumsum(0) <= math.ceil(owed / length))
        return {
            "member": torch.where(given, self.index, state["member"]),
            "call": torch.where(given, self.index, state["call"]),
            "before": torch.where(given & ~here, 0, state["before"]),
            "steps": torch.where(given, 0, state["steps"]),
        }
