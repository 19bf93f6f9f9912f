"""A policy that carries a world model's latent state: what Dreamer trains and robots run.

Source: Hafner et al. 2025 (DreamerV3), "Actor learning". It holds the encoder, the recurrent model and the actor; the
decoder and the heads that training needs are not part of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robotrl.functional.distributions import (
    categorical_entropy,
    categorical_log_prob,
    gaussian_entropy,
    gaussian_log_prob,
)
from robotrl.nets.normed import NormedMLP
from robotrl.policies.actions import ActionMap
from robotrl.policies.compatibility import check_compatible
from robotrl.policies.config import PolicyConfig
from robotrl.types import EnvSpec, Extras, Obs, RobotRLError, State
from robotrl.world_models import Perception

MIN_STD, MAX_STD = 0.1, 1.0
UNIMIX = 0.01
"""Share of the uniform distribution in a discrete policy."""


class RSSMPolicy(nn.Module):
    """Observation and previous action to a latent state, latent state to an action.

    A continuous action is drawn from a Gaussian with a mean inside the bounds, then clipped; its value before clipping,
    in units where the bounds are [-1, 1], is the extra `raw_action`. The extras `latent/deter` `[N, D]` and
    `latent/stoch` (the class of each latent, uint8 `[N, latents]`) let a learner begin a sequence in its middle.
    """

    def __init__(self, config: PolicyConfig, spec: EnvSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        groups = None if config.groups is None else tuple(config.groups)
        self.perception = Perception(spec, config.world_model, groups=groups, normalise=config.normalise_obs)
        self.obs_groups = self.perception.groups
        self.actions = ActionMap(spec.action)
        size = self.perception.size
        out = (2 if self.actions.continuous else 1) * self.actions.dim
        self.actor = NormedMLP(size.features, [size.units] * 3, out, out_scale=0.01)

    def check_env(self, env: EnvSpec) -> None:
        """Make sure that the policy can act in `env`.

        Raises:
            RobotRLError: groups it reads are missing or of another shape, or the action differs; all are named.
        """
        check_compatible(self.obs_groups, self.spec, env)

    def initial_state(self, num_envs: int) -> State:
        """Latent state and previous action, all zero: `deter [N, D]`, `stoch [N, S]`, `action [N, A]`."""
        latent = self.perception.initial(num_envs)
        return {**latent, "action": latent["deter"].new_zeros(num_envs, self.actions.dim)}

    def reset_state(self, state: State, done: Tensor) -> State:
        """Zero the rows that start an episode, which is how the model knows a start."""
        return {key: value * ~done.unsqueeze(-1) for key, value in state.items()}

    @torch.no_grad()
    def act(self, obs: Obs, state: State, *, explore: bool) -> tuple[Tensor, Extras, State]:
        """See `robotrl.types.Policy.act`; the extras are described above."""
        going_on = torch.zeros(state["action"].shape[0], dtype=torch.bool, device=state["action"].device)
        latents = self.perception.observe_step(obs, state["action"], going_on, state)
        out = self.actor(latents.features)
        raw = self.sample(out) if explore else self.mode(out)
        if not bool(torch.isfinite(out.sum())):
            raise RobotRLError(
                "The policy produced a non-finite action. Its weights or its input are not finite: "
                "lower the learning rate, or check the observations with robotrl doctor and the env checker."
            )
        extras = {
            "raw_action": raw,
            "latent/deter": latents.deter,
            "latent/stoch": self.perception.rssm.classes(latents.stoch),
        }
        taken = {"deter": latents.deter, "stoch": latents.stoch, "action": self.scaled(raw)}
        return self.actions.to_env(raw), extras, taken

    def scaled(self, raw: Tensor) -> Tensor:
        """Raw actions as the model takes them: `[..., A]`, one-hot where actions are discrete."""
        return raw if self.actions.continuous else nn.functional.one_hot(raw, self.actions.dim).float()

    def raw(self, scaled: Tensor) -> Tensor:
        """What `scaled` came from."""
        return scaled if self.actions.continuous else scaled.argmax(-1)

    def sample(self, out: Tensor) -> Tensor:
        """Raw actions drawn from the actor's outputs: `[..., A]`, or indices `[...]`."""
        if self.actions.continuous:
            mean, log_std = self._gaussian(out)
            return torch.addcmul(mean, log_std.exp(), torch.randn_like(mean))
        probs = self._logits(out).exp()
        return (probs / torch.empty_like(probs).exponential_()).argmax(-1)

    def mode(self, out: Tensor) -> Tensor:
        """The likeliest raw actions."""
        return self._gaussian(out)[0] if self.actions.continuous else out.argmax(-1)

    def log_prob_and_entropy(self, out: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy, both `[...]`, of raw actions under the actor's outputs."""
        if self.actions.continuous:
            mean, log_std = self._gaussian(out)
            return gaussian_log_prob(raw, mean, log_std), gaussian_entropy(log_std)
        logits = self._logits(out)
        return categorical_log_prob(raw, logits), categorical_entropy(logits)

    def _gaussian(self, out: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread = out.float().chunk(2, -1)
        std = (MAX_STD - MIN_STD) * torch.sigmoid(spread + 2.0) + MIN_STD
        return torch.tanh(mean), std.log()

    def _logits(self, out: Tensor) -> Tensor:
        probs = torch.softmax(out.float(), -1)
        return torch.log((1.0 - UNIMIX) * probs + UNIMIX / self.actions.dim)
