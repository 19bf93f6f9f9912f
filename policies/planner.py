"""A policy that plans through a learned model: what PETS trains and robots run.

Sources: Chua et al. 2018 (PETS, arXiv:1805.12114): every sequence of actions is imagined by each member of an ensemble,
and its value is the mean over them. Pinneri et al. 2020 (iCEM, arXiv:2008.06389): noise that is correlated in time,
elites that are kept, the mean among the last candidates, the best sequence executed. Williams et al. 2017 (MPPI).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robotrl.policies.actions import ActionMap
from robotrl.policies.compatibility import check_compatible
from robotrl.policies.config import PolicyConfig
from robotrl.policies.squashed import check_bounded
from robotrl.types import EnvSpec, Extras, Obs, RobotRLError, State
from robotrl.world_models.dynamics import Dynamics


class Planner(nn.Module):
    """Observation to the first action of the best sequence that was found; the state is where the search goes on from.

    It reads number groups, of which images and `instruction` are none. Planning draws random numbers, with and without
    `explore`, which makes no difference: how the search ends is exploration enough (Chua et al. 2018).
    """

    def __init__(self, config: PolicyConfig, spec: EnvSpec) -> None:
        super().__init__()
        check_bounded(spec)
        self.config, self.spec, self.planner = config, spec, config.planner
        numbers = [g for g, s in spec.obs.items() if s.dtype.startswith("float") and g != "privileged"]
        groups = tuple(numbers if config.groups is None else config.groups)
        images = [g for g in groups if g in spec.obs and spec.obs[g].dtype == "uint8"]
        if images or not groups:
            raise RobotRLError(
                f"policy=planner predicts numbers, but it was given {images or 'no group of them'}. "
                "Name groups of numbers with policy.groups, or use learner=dreamer for images."
            )
        self.actions = ActionMap(spec.action)
        self.model = Dynamics(spec.obs, groups, self.actions.dim, config.hidden, config.models)
        self.obs_groups = groups

    def check_env(self, env: EnvSpec) -> None:
        """Make sure that the policy can act in `env`.

        Raises:
            RobotRLError: groups it reads are missing or of another shape, or the action differs; all are named.
        """
        check_compatible(self.obs_groups, self.spec, env)

    def initial_state(self, num_envs: int) -> State:
        """The mean of the search `[N, H, A]` and the sequences to try again `[N, K, H, A]`, all zero."""
        horizon, dim = self.planner.horizon, self.actions.dim
        like = self.actions.low
        return {
            "mean": like.new_zeros(num_envs, horizon, dim),
            "kept": like.new_zeros(num_envs, self.planner.keep, horizon, dim),
        }

    def reset_state(self, state: State, done: Tensor) -> State:
        """Zero the rows that start an episode."""
        return {key: value * ~done.view(-1, *[1] * (value.dim() - 1)) for key, value in state.items()}

    @torch.no_grad()
    def act(self, obs: Obs, state: State, *, explore: bool) -> tuple[Tensor, Extras, State]:
        """See `robotrl.types.Policy.act`; no extras."""
        mean, kept, best, value = self._search(self.model.vector(obs), state["mean"], state["kept"])
        first = best[:, 0] if self.planner.method == "icem" else mean[:, 0]
        if not bool(torch.isfinite(first.sum() + value.sum())):
            raise RobotRLError(
                "The planner found no finite action: its model predicts numbers that are not finite. "
                "Lower the learning rate, or check the observations with robotrl doctor and the env checker."
            )
        return self.actions.to_env(first), {}, {"mean": _shift(mean), "kept": _shift(kept)}

    def _search(self, obs: Tensor, mean: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One decision's search, from where the last one ended.

        Returns:
            Its mean `[N, H, A]`, the elites kept `[N, K, H, A]`, the best one `[N, H, A]` and its value `[N]`.
        """
        p = self.planner
        std = torch.full_like(mean, p.init_std)
        for i in range(p.iterations):
            count = max(p.elites, round(p.candidates * p.shrink**-i))
            noise = coloured_noise((len(mean), count), p.horizon, mean.shape[-1], p.noise_colour, device=mean.device)
            candidates = mean.unsqueeze(1) + std.unsqueeze(1) * noise
            more = [kept, mean.unsqueeze(1)] if i == p.iterations - 1 else [kept]
            candidates = torch.cat([candidates, *more], 1).clamp(-1.0, 1.0)
            values = self.evaluate(obs, candidates)
            top, order = values.topk(p.elites, 1)
            rows = torch.arange(len(mean), device=mean.device).unsqueeze(1)
            elites = candidates[rows, order]
            kept = elites[:, : p.keep]
            if p.method == "icem":
                new_mean, new_std = elites.mean(1), elites.std(1, correction=0)
            else:
                spread = values.std(1, keepdim=True, correction=0).clamp(min=1e-6)
                weight = torch.softmax(values / (p.temperature * spread), 1).unsqueeze(-1).unsqueeze(-1)
                new_mean = (weight * candidates).sum(1)
                new_std = (weight * (candidates - new_mean.unsqueeze(1)).square()).sum(1).sqrt()
            mean, std = new_mean.lerp(mean, p.momentum), new_std.lerp(std, p.momentum)
        return mean, kept, elites[:, 0], top[:, 0]

    @torch.no_grad()
    def evaluate(self, obs: Tensor, actions: Tensor) -> Tensor:
        """The return expected of sequences of actions `[N, K, H, A]` (in [-1, 1]) from `obs [N, D]`: `[N, K]`.

        The mean over the members, each imagining every sequence once; what follows a termination does not count.
        """
        count, k, horizon, _ = actions.shape
        members = self.model.members
        now = obs.repeat_interleave(k, 0).expand(members, count * k, -1)
        alive = obs.new_ones(members, count * k)
        total = torch.zeros_like(alive)
        for t in range(horizon):
            step = self.model.step(now, actions[:, :, t].reshape(1, count * k, -1).expand(members, -1, -1))
            total += alive * step.reward
            alive = alive * step.going_on
            now = step.next_obs
        return total.mean(0).view(count, k)


def _shift(sequences: Tensor) -> Tensor:
    """Sequences `[..., H, A]` a step later: the last action is kept on."""
    return torch.cat([sequences[..., 1:, :], sequences[..., -1:, :]], -2)


def coloured_noise(lead: tuple[int, ...], steps: int, dim: int, exponent: float, *, device: torch.device) -> Tensor:
    """Gaussian noise `[*lead, steps, dim]` of unit variance whose power falls with frequency to the `exponent`.

    Source: Timmer and Koenig 1995, "On generating power law noise".
    """
    if exponent == 0 or steps == 1:
        return torch.randn(*lead, steps, dim, device=device)
    frequency = torch.fft.rfftfreq(steps, device=device).clamp(min=1.0 / steps)
    scale = frequency ** (-exponent / 2.0)
    weight = 2.0 * scale  # every frequency stands for two, but for none and the highest
    weight[0] = scale[0]
    if steps % 2 == 0:
        weight[-1] = scale[-1]
    spectrum = torch.randn(*lead, dim, len(scale), 2, device=device) * scale.unsqueeze(-1)
    spectrum[..., 0, 1] = 0.0
    if steps % 2 == 0:
        spectrum[..., -1, 1] = 0.0
    noise = torch.fft.irfft(torch.view_as_complex(spectrum), n=steps)
    return noise.transpose(-1, -2) * (steps / weight.square().sum().sqrt())


__all__ = ["Planner", "coloured_noise"]
