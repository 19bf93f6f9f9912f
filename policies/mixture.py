"""A mixture of policies: every episode is played by one member, drawn by its weight."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn

from robotrl.policies.compatibility import check_compatible
from robotrl.policies.config import PolicyConfig
from robotrl.policies.stochastic import StochasticPolicy
from robotrl.registry import policies
from robotrl.types import EnvSpec, Extras, Obs, Policy, RobotRLError, State


class MixturePolicy(nn.Module):
    """Members of one kind and shape with weights. The member that plays a row is its policy state, `member [N]`.

    Actions are never averaged: the mixture's distribution over whole episodes is the weighted sum of its members'.
    Members are copies that nothing trains any more; `policy.members` of them take that many times a member's memory.
    """

    weights: Tensor

    def __init__(self, config: PolicyConfig, spec: EnvSpec) -> None:
        """Untrained members of equal weight."""
        super().__init__()
        if config.members < 1:
            raise RobotRLError(
                f"A mixture needs members, but policy.members is {config.members}. learner=ailboost trains one and "
                "saves it as policy/mixture."
            )
        if config.member_kind == "mixture":
            raise RobotRLError("policy.member_kind is 'mixture'; a mixture's members are policies of another kind.")
        self.config, self.spec = config, spec
        kind = policies.get(config.member_kind)
        single = replace(config, kind=config.member_kind, members=0)
        self.members = nn.ModuleList(kind(single, spec) for _ in range(config.members)).requires_grad_(False)
        self.obs_groups: tuple[str, ...] = self._member(0).obs_groups
        self.register_buffer("weights", torch.full((config.members,), 1.0 / config.members, dtype=torch.float64))
        if self._member(0).initial_state(1):
            raise RobotRLError(f"policy.member_kind={config.member_kind} has a memory; members must have none.")

    @classmethod
    def of(cls, policy: StochasticPolicy) -> MixturePolicy:
        """The mixture whose one member is a copy of `policy`."""
        config = replace(policy.config, kind="mixture", members=1, member_kind=policy.config.kind)
        with torch.random.fork_rng(devices=[]):  # the weights drawn here are replaced at once
            mixture = cls(config, policy.spec)
        mixture.members[0] = snapshot(policy)
        return mixture.to(next(policy.parameters()).device)

    def set_members(self, members: Sequence[nn.Module], weights: Tensor) -> None:
        """Other members, as they are, with their weights `[len(members)]`, which are scaled to sum to 1."""
        self.members = nn.ModuleList(members)
        self.weights = (weights / weights.sum()).to(self.weights)
        self.config = replace(self.config, members=len(members))

    def check_env(self, env: EnvSpec) -> None:
        """Make sure that the policy can act in `env`, else RobotRLError, as for a single policy."""
        check_compatible(self.obs_groups, self.spec, env)

    def initial_state(self, num_envs: int) -> State:
        """`member [N]` int64, drawn by weight."""
        return {"member": torch.multinomial(self.weights, num_envs, replacement=True)}

    def reset_state(self, state: State, done: Tensor) -> State:
        """A new draw for the rows whose episode has ended."""
        drawn = torch.multinomial(self.weights, len(done), replacement=True)
        return {"member": torch.where(done, drawn, state["member"])}

    @torch.no_grad()
    def act(self, obs: Obs, state: State, *, explore: bool) -> tuple[Tensor, Extras, State]:
        """Each row's own member acts; the extras are the member's, and `member`."""
        action, extras = act_by_member(self.members, obs, state["member"], explore=explore)
        return action, extras | {"member": state["member"]}, state

    def _member(self, index: int) -> StochasticPolicy:
        member = self.members[index]
        assert isinstance(member, StochasticPolicy)
        return member


def snapshot(policy: StochasticPolicy) -> StochasticPolicy:
    """A copy that shares no memory with `policy` and takes no gradient: what is trained later leaves it as it is."""
    copy = deepcopy(policy)
    copy.eval()
    return copy.requires_grad_(False)


def act_by_member(
    members: Sequence[Policy] | nn.ModuleList, obs: Obs, member: Tensor, *, explore: bool
) -> tuple[Tensor, Extras]:
    """Actions and extras `[N, ...]` where the policy `members[member[i]]` acts in row i; memoryless policies."""
    present = member.unique().tolist()
    results = []
    for index in present:
        rows = (member == index).nonzero().squeeze(-1)
        chosen = obs if len(present) == 1 else {key: value[rows] for key, value in obs.items()}
        action, extras, _ = members[index].act(chosen, {}, explore=explore)
        results.append((rows, {"action": action, **extras}))
    if len(results) == 1:
        columns = results[0][1]
    else:
        order = torch.cat([rows for rows, _ in results]).argsort()
        columns = {key: torch.cat([values[key] for _, values in results])[order] for key in results[0][1]}
    return columns.pop("action"), columns
