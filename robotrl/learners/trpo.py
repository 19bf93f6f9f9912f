"""Trust-region policy optimisation (Schulman et al. 2015, arXiv:1502.05477), and the natural policy gradient.

The latter (Kakade 2001) is the same step without the line search.

Differences from the papers, each with its source:
- Advantages by generalised advantage estimation (Schulman et al. 2016), with a critic that is fitted by minibatches of
  Adam, as in PPO here, not by conjugate gradients.
- Truncation bootstraps with the value of the observation before the reset (Pardo et al. 2018).
- The Fisher matrix is damped (Martens 2010), and made of all samples of the rollout.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robotrl.functional.distributions import categorical_kl, gaussian_kl
from robotrl.functional.natural import conjugate_gradients, line_search, trust_region_step
from robotrl.functional.returns import gae
from robotrl.nets.flat import Adam, clip_gradient, flatten_parameters, zero_gradient
from robotrl.nets.network import ObsInputs
from robotrl.policies.stochastic import StochasticPolicy
from robotrl.replay.rollout import RolloutBuffer
from robotrl.types import Batch, BatchSpec, EnvSpec, Metrics, Part, Progress, RobotRLError, StateDict, group, ungroup


@dataclass(slots=True)
class TRPOConfig:
    """Hyper-parameters of TRPO and NPG."""

    max_kl: float = 0.01
    """Mean divergence of the new policy from the old one, to second order; TRPO also asks for it exactly."""
    damping: float = 0.1
    """Added to the diagonal of the Fisher matrix."""
    cg_steps: int = 10
    backtracks: int = 10
    """Step sizes that the line search tries, each half of the one before."""
    accept_ratio: float = 0.1
    """Least share of the promised improvement that the line search accepts."""
    use_line_search: bool = True
    """Without it, the step is taken as it is: the natural policy gradient."""
    gamma: float = 0.99
    gae_lambda: float = 0.97
    normalise_advantage: bool = True
    value_learning_rate: float = 1e-3
    value_epochs: int = 10
    """Passes of the critic over a rollout."""
    value_minibatches: int = 16
    max_grad_norm: float = 10.0
    """Largest gradient norm of the critic."""
    critic_groups: list[str] | None = None
    """Observation groups of the critic; None: those of the policy."""

    def __post_init__(self) -> None:
        positive = ("max_kl", "value_learning_rate", "max_grad_norm")
        whole = ("cg_steps", "backtracks", "value_epochs", "value_minibatches")
        for name in (*positive, *whole):
            if not getattr(self, name) > 0:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must be greater than 0.")
        for name in ("gamma", "gae_lambda", "accept_ratio"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must lie in [0, 1].")
        if not self.damping >= 0:
            raise RobotRLError(f"learner.damping is {self.damping}; it must not be negative.")


@dataclass(slots=True)
class NPGConfig(TRPOConfig):
    """TRPO's, without the line search."""

    use_line_search: bool = False


class TRPO:
    """See the module's docstring. The critic has the policy's architecture and is not part of what is deployed."""

    config_class = TRPOConfig
    replay_class = RolloutBuffer
    policy_kind = "auto"

    def __init__(self, policy: StochasticPolicy, spec: EnvSpec, config: TRPOConfig, *, num_envs: int) -> None:
        if getattr(policy, "log_std", None) is None:
            raise RobotRLError("learner=trpo trains policies with a deviation of their own: policy=mlp, cnn or gru.")
        self.policy = self.acting = policy
        self.config, self._num_envs = config, num_envs
        self.critic_inputs = policy.critic_inputs(config.critic_groups)
        self.critic = policy.network(1, inputs=self.critic_inputs)
        device = policy.log_std.device
        self.critic.to(device)
        self.critic_inputs.to(device)
        self._parameters = policy.actor_parameters()
        self._actor_flat = flatten_parameters(self._parameters)
        self._critic_flat = flatten_parameters(self.critic.parameters())
        self._critic_adam = Adam(self._critic_flat, config.value_learning_rate)
        self._critic_hidden = self._actor_flat.new_zeros(num_envs, self.critic.gru_size)
        self._next_critic_hidden = self._critic_hidden
        self._moments: list[tuple[ObsInputs, tuple[Tensor, ...]]] = []
        # the keys of every loss, asserted against what the updates produce
        self._coef = {"policy": 1.0, "value": 1.0}

    @property
    def batch_spec(self) -> BatchSpec:
        """One whole rollout."""
        return {"online": Part(kind="rollout")}

    def observe(self, fresh: Batch, progress: Progress) -> None:
        """Gather observation moments."""
        obs = group(fresh, "obs")
        for inputs in {id(i): i for i in (self.policy.inputs, self.critic_inputs)}.values():
            moments = inputs.moments(obs)
            if moments is not None:
                self._moments.append((inputs, moments))

    def update(self, batch: dict[str, Batch]) -> tuple[Metrics, None]:
        """One step of the policy on the whole rollout, then the critic's epochs."""
        data = self._prepare(batch["online"])
        metrics = self._improve_policy(data)
        metrics |= self._fit_critic(data)
        for inputs, moments in self._moments:  # from here on stored log-probabilities are no longer compared
            assert inputs.normaliser is not None
            inputs.normaliser.merge(*moments)
        self._moments, self._critic_hidden = [], self._next_critic_hidden
        assert {k.removeprefix("loss/") for k in metrics if k.startswith("loss/")} == set(self._coef)
        return metrics, None

    @torch.no_grad()
    def _prepare(self, rollout: Batch) -> Batch:
        """Inputs, advantages and returns; for a memoryless policy all steps side by side, in one row."""
        c, obs = self.config, group(rollout, "obs")
        data = {key: rollout[key] for key in ("raw_action", "log_prob", "is_first")}
        data |= ungroup(self.policy.inputs(obs), "inputs") | ungroup(self.critic_inputs(obs), "critic_inputs")
        x = group(data, "critic_inputs")
        out, after = self.critic.sequence(x, self._critic_hidden, rollout["is_first"])
        value = out.squeeze(-1)
        # V(next_obs) is V of the next row, but for the last row and where an episode was cut off
        following = torch.cat([value[1:], value[-1:]])
        ask = rollout["truncated"].clone()
        ask[-1] = True
        cut = self.critic_inputs({key: x[ask] for key, x in group(rollout, "next_obs").items()})
        following[ask] = self.critic(cut, after[ask])[0].squeeze(-1)
        ends = rollout["terminated"], rollout["truncated"]
        advantage = gae(rollout["reward"], value, following, *ends, c.gamma, c.gae_lambda)
        data["returns"], data["value"] = advantage + value, value
        if c.normalise_advantage:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        data["advantage"] = advantage
        self._next_critic_hidden = after[-1]
        if "state/hidden" in rollout:
            return data | {"hidden": rollout["state/hidden"][:1], "critic_hidden": self._critic_hidden.unsqueeze(0)}
        columns = data["is_first"].numel()
        data = {key: value.reshape(1, columns, *value.shape[2:]) for key, value in data.items()}
        nothing = self._critic_hidden.new_zeros(1, columns, 0)
        return data | {"hidden": nothing, "critic_hidden": nothing}

    def _improve_policy(self, data: Batch) -> Metrics:
        """Along F^-1 g as far as the divergence allows; with the line search, as far as the surrogate follows."""
        c, policy, flat = self.config, self.policy, self._actor_flat
        start = flat.data.clone()
        out = self._outputs(data)
        log_prob, entropy = policy.log_prob_and_entropy(out, data["raw_action"])
        before = -((log_prob - data["log_prob"]).exp() * data["advantage"]).mean()
        gradient = self._gradient(before, retain=True)
        old_out, old_log_std = out.detach(), policy.log_std.detach().clone()
        divergence = self._kl(old_out, old_log_std, out)
        slope = self._flat(torch.autograd.grad(divergence, self._parameters, create_graph=True))

        def fisher(v: Tensor) -> Tensor:
            """The Fisher matrix is the second derivative of the divergence at no distance."""
            return self._gradient((slope * v).sum(), retain=True) + c.damping * v

        @torch.no_grad()
        def surrogate(candidate: Tensor) -> tuple[Tensor, Tensor]:
            flat.data.copy_(candidate)
            out = self._outputs(data)
            log_prob, _ = policy.log_prob_and_entropy(out, data["raw_action"])
            loss = -((log_prob - data["log_prob"]).exp() * data["advantage"]).mean()
            return loss, self._kl(old_out, old_log_std, out)

        direction = conjugate_gradients(fisher, -gradient, steps=c.cg_steps)
        step, expected = trust_region_step(fisher, direction, gradient, c.max_kl)
        before = before.detach()
        if c.use_line_search:
            chosen, share = line_search(
                surrogate, start, step, expected, before=before, backtracks=c.backtracks, accept_ratio=c.accept_ratio,
                max_kl=c.max_kl,
            )  # fmt: skip
        else:
            finite = step.isfinite().all()
            chosen, share = torch.where(finite, start + step, start), finite.float()
        loss, kl = surrogate(chosen)
        return {
            "loss/policy": before, "policy/improvement": before - loss, "policy/kl": kl, "policy/step_share": share,
            "policy/entropy": entropy.detach(), "policy/std": old_log_std.exp().mean(),
            "grad_norm/actor": gradient.norm(),
        }  # fmt: skip

    def _outputs(self, data: Batch) -> Tensor:
        return self.policy.sequence(group(data, "inputs"), {"hidden": data["hidden"][0]}, data["is_first"])

    def _kl(self, old_out: Tensor, old_log_std: Tensor, out: Tensor) -> Tensor:
        """Mean divergence of the new distributions from the old ones."""
        if self.policy.actions.continuous:
            return gaussian_kl(old_out, old_log_std, out, self.policy.log_std).mean()
        return categorical_kl(old_out, out).mean()

    def _gradient(self, of: Tensor, *, retain: bool) -> Tensor:
        """By the policy's parameters, as one vector; zero where they do not matter."""
        found = torch.autograd.grad(of, self._parameters, retain_graph=retain, materialize_grads=True)
        return self._flat(found)

    def _flat(self, gradients: tuple[Tensor, ...]) -> Tensor:
        return torch.cat([g.reshape(-1) for g in gradients])

    def _fit_critic(self, data: Batch) -> Metrics:
        """Half the squared error to the lambda-returns, by minibatches of columns (axis 1)."""
        c, losses, norms = self.config, [], []
        columns = data["is_first"].shape[1]
        size = -(-columns // c.value_minibatches)
        for _ in range(c.value_epochs):
            for chosen in torch.randperm(columns).to(data["is_first"].device).split(size):
                rows = {key: value.index_select(1, chosen) for key, value in data.items()}
                x = group(rows, "critic_inputs")
                value, _ = self.critic.sequence(x, rows["critic_hidden"][0], rows["is_first"])
                loss = 0.5 * (value.squeeze(-1) - rows["returns"]).square().mean()
                zero_gradient(self._critic_flat)
                loss.backward()
                norms.append(clip_gradient(self._critic_flat, c.max_grad_norm))
                self._critic_adam.step()
                losses.append(loss.detach())
        unexplained = (data["returns"] - data["value"]).var(correction=0)
        return {
            "loss/value": torch.stack(losses).mean(), "grad_norm/critic": torch.stack(norms).mean(),
            "grad_norm/nonfinite": (~torch.stack(norms).isfinite()).float().sum(),
            "value/explained_variance": 1.0 - unexplained / (data["returns"].var(correction=0) + 1e-8),
            "grad_steps": torch.tensor(len(losses) + 1),
        }  # fmt: skip

    def state_dict(self) -> StateDict:
        """Weights, the critic's optimiser, normalisers."""
        return {
            "policy": dict(self.policy.state_dict()),
            "critic": dict(self.critic.state_dict()),
            "critic_inputs": dict(self.critic_inputs.state_dict()),
            "critic_adam": self._critic_adam.state_dict(),
            "critic_hidden": self._critic_hidden,
            "moments": [[i is not self.policy.inputs, list(m)] for i, m in self._moments],
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.policy.load_state_dict(state["policy"])
        self.critic.load_state_dict(state["critic"])
        self.critic_inputs.load_state_dict(state["critic_inputs"])
        self._critic_adam.load_state_dict(state["critic_adam"])
        device = self._actor_flat.device
        self._critic_hidden = self._next_critic_hidden = state["critic_hidden"].to(device)
        own = {False: self.policy.inputs, True: self.critic_inputs}
        self._moments = [(own[bool(critic)], tuple(m.to(device) for m in ms)) for critic, ms in state["moments"]]


class NPG(TRPO):
    """The natural policy gradient: TRPO's step, taken as it is."""

    config_class = NPGConfig


__all__ = ["NPG", "TRPO", "NPGConfig", "TRPOConfig"]
