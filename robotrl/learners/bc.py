"""Behaviour cloning (Pomerleau 1991): fit the policy to what the demonstrations did.

Policies that give one action are fitted by likelihood or squared error; policies that give chunks (`vla`, `wam`) bring
their own error: of a flow, of bins, of predicted pictures. Nothing is collected: it learns from `replay.demos` alone,
and the run's env is there to be evaluated on. An iteration's "env steps" are a clock that counts
`schedule.rollout_steps`; the shared preset makes one update for each.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from robotrl.nets.flat import Adam, clip_gradient, flatten_parameters, zero_gradient
from robotrl.nets.vision import erase, jitter, random_shift
from robotrl.replay.buffer import ReplayBuffer
from robotrl.types import Batch, BatchSpec, EnvSpec, Metrics, Part, Progress, RobotRLError, StateDict, group

MOMENT_STEPS = 200_000
"""Demonstrated steps after which the observation normaliser stands still."""
FIT_STEPS = 8192
"""Steps of the data that a chunk policy takes its units from."""
LOG_STD_MIN = -5.0
"""Of a state-independent deviation: demonstrations without noise would drive it, and the gradients, to no end."""


@dataclass(slots=True)
class BCConfig:
    """Hyper-parameters of behaviour cloning."""

    loss: str = "nll"
    """`nll`, minus the log-likelihood of the demonstrated action, or `mse`, the squared error of the policy's
    deterministic action in units where the env's bounds are [-1, 1]. Chunk policies have losses of their own."""
    learning_rate: float = 1e-3
    lr_schedule: str = "linear"
    """`linear` or `cosine` to zero over the run, or `constant`."""
    warmup_updates: int = 0
    """Updates over which the learning rate rises from zero."""
    batch_size: int = 256
    """Sequences (or chunks) in one step."""
    length: int = 1
    """Steps of a sequence; more than one for recurrent policies, which start each from an empty memory."""
    weight_decay: float = 0.0
    """Share of the weights that is taken off at each step, times the learning rate (Loshchilov and Hutter 2019)."""
    max_grad_norm: float = 10.0
    ema_decay: float = 0.0
    """Above 0, what is evaluated and saved is a running mean of the weights that keeps this share of itself at each
    update (fewer at the start)."""
    image_shift: int = 0
    """Pixels by which pictures are moved at random, edges repeated."""
    image_jitter: float = 0.0
    """Up to which share brightness, contrast and the balance of colours are changed at random."""
    image_erase: int = 0
    """Rectangles of a picture that are covered at random."""
    matmul_precision: str = "fp32"
    """`bf16`: forward and backward passes in bfloat16 where PyTorch's autocast deems it safe."""
    loss_coefs: dict[str, float] = field(default_factory=dict)
    """Weights of a chunk policy's losses; those not named count 1."""
    label: str = "action"
    """The field of the data that is imitated: what was done, or `expert_action`, what an expert meant to do where noise
    was added to it."""
    weight_by: str | None = None
    """Of chunk policies: a field of the data, one number a step, by which the losses of each sample are weighed."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must be greater than 0.")
        for name in ("batch_size", "length"):
            if getattr(self, name) < 1:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must be at least 1.")
        choices = {
            "loss": ("nll", "mse"),
            "lr_schedule": ("linear", "cosine", "constant"),
            "matmul_precision": ("fp32", "bf16"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise RobotRLError(f"learner.{name} is '{getattr(self, name)}'; it must be {' or '.join(known)}.")
        for name in ("weight_decay", "warmup_updates", "image_shift", "image_jitter", "image_erase"):
            if getattr(self, name) < 0:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must not be negative.")
        if not 0 <= self.ema_decay < 1:
            raise RobotRLError(f"learner.ema_decay is {self.ema_decay}; it must lie in [0, 1).")


class BC:
    """See the module's docstring. Any policy kind but mixtures; recurrent ones with `length` above one."""

    config_class = BCConfig
    replay_class = ReplayBuffer
    policy_kind = "auto"

    def __init__(self, policy: Any, spec: EnvSpec, config: BCConfig, *, num_envs: int) -> None:
        self.chunks = hasattr(policy, "windows")
        if not self.chunks and config.loss == "mse" and not policy.actions.continuous:
            raise RobotRLError(f"{spec.id} has discrete actions, which have no squared error. Use learner.loss=nll.")
        self.policy = self.acting = policy
        self.student = copy.deepcopy(policy) if config.ema_decay else policy
        """What is trained; `policy` unless that is its running mean."""
        self.config = config
        self._flat = flatten_parameters(_trained(self.student))
        self._mean = flatten_parameters(_trained(policy)) if config.ema_decay else None
        self._adam = Adam(self._flat, config.learning_rate)
        self._updates, self._rate, self._fitted = 0, config.learning_rate, not self.chunks
        # the keys of every loss, asserted against what the updates produce
        names = policy.losses if self.chunks else (config.loss,)
        self._coef = {name: config.loss_coefs.get(name, 1.0) for name in names}
        unknown = sorted(set(config.loss_coefs) - set(names))
        if unknown:
            raise RobotRLError(f"learner.loss_coefs names {unknown}, but this policy's losses are {list(names)}.")

    @property
    def batch_spec(self) -> BatchSpec:
        """Windows of demonstrations, each within one episode; at first also those that a chunk policy is fitted to."""
        c = self.config
        if not self.chunks:
            return {"demos": Part("demos", "sequence", c.batch_size, c.length, within_episode=True)}
        asked = {"demos": (c.batch_size, self.policy.windows)}
        if not self._fitted:
            asked["fit"] = (FIT_STEPS, self.policy.fit_windows)
        parts = {}
        for name, (size, windows) in asked.items():
            labelled = {c.label if key == "action" else key: steps for key, steps in windows.items()}
            parts[name] = Part("demos", "sequence", size, windows=labelled)
        return parts

    def observe(self, fresh: Batch, progress: Progress) -> None:
        """Anneal the learning rate."""
        c, left = self.config, 1.0 - progress.fraction
        share = {"linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left), "constant": 1.0}[c.lr_schedule]
        self._rate = self._adam.lr = c.learning_rate * share

    def update(self, batch: dict[str, Batch]) -> tuple[Metrics, None]:
        """One step on one batch of windows `[T, B, ...]`; steps behind an episode's end do not count."""
        c, batch = self.config, {name: self._labelled(rows) for name, rows in batch.items()}
        self._fit(batch.get("fit"))
        with torch.autocast(self._flat.device.type, torch.bfloat16, enabled=c.matmul_precision == "bf16"):
            losses = self._chunk_losses(batch["demos"]) if self.chunks else self._step_loss(batch["demos"])
        loss = torch.stack([self._coef[name] * value for name, value in losses.items()]).sum()
        zero_gradient(self._flat)
        loss.backward()
        norm = clip_gradient(self._flat, c.max_grad_norm)
        self._updates += 1
        self._adam.lr = self._rate * min(1.0, self._updates / max(1, c.warmup_updates))
        if c.weight_decay:
            self._flat.data.mul_(1.0 - self._adam.lr * c.weight_decay)
        self._adam.step()
        if getattr(self.student, "log_std", None) is not None:
            self.student.log_std.data.clamp_(min=LOG_STD_MIN)
        self._average()
        result = {f"loss/{name}": value.detach() for name, value in losses.items()} | {"grad_norm/actor": norm}
        assert {key.removeprefix("loss/") for key in result if key.startswith("loss/")} == set(self._coef)
        result["grad_norm/nonfinite"] = (~norm.isfinite()).float()
        return result, None

    def _labelled(self, rows: Batch) -> Batch:
        """With what is to be imitated as `action`."""
        label = self.config.label
        if label not in rows:
            raise RobotRLError(
                f"learner.label is '{label}', which the data do not have. Imitate what was done with "
                "learner.label=action, or record with robotrl collect policy=expert, which keeps expert_action."
            )
        mask = {"valid/action": rows[f"valid/{label}"]} if f"valid/{label}" in rows else {}
        return rows if label == "action" else {**rows, "action": rows[label], **mask}

    def _step_loss(self, rows: Batch) -> dict[str, Tensor]:
        """Of a policy that gives one action at a time, on sequences `[T, B, ...]`."""
        policy, obs, valid = self.student, group(rows, "obs"), rows["valid"]
        normaliser = policy.inputs.normaliser
        if normaliser is not None and normaliser.count < MOMENT_STEPS:
            moments = policy.inputs.moments(obs)
            for each in {id(p): p for p in (policy, self.policy)}.values():
                each.inputs.normaliser.merge(*moments)
        out = policy.sequence(policy.inputs(obs), policy.initial_state(valid.shape[1]), rows["is_first"])
        if self.config.loss == "nll":
            log_prob, _ = policy.log_prob_and_entropy(out, policy.raw_from_env(rows["action"]))
            error = -log_prob
        else:
            error = (policy.deterministic(out) - policy.actions.from_env(rows["action"])).square().mean(-1)
        return {self.config.loss: (error * valid).sum() / valid.sum()}

    def _chunk_losses(self, rows: Batch) -> dict[str, Tensor]:
        """Of a chunk policy, on windows; actions behind an episode's end do not count."""
        obs = {name: self._augmented(value[0]) for name, value in group(rows, "obs").items()}
        errors = self.student.errors(obs, rows)
        weight = self._weight(rows)
        counts = {name: e.valid if weight is None else e.valid * weight for name, e in errors.items()}
        least = 1.0 if weight is None else 1e-8
        return {
            name: (e.value * counts[name]).sum() / counts[name].sum().clamp(min=least) for name, e in errors.items()
        }

    def _weight(self, rows: Batch) -> Tensor | None:
        """Of each sample `[B]`; None: all count alike."""
        name = self.config.weight_by
        if name is None:
            return None
        if name not in rows:
            raise RobotRLError(
                f"learner.weight_by is '{name}', but the data have {', '.join(k for k in rows if '/' not in k)}. Name "
                "a field with one number a step."
            )
        return rows[name].float().flatten()

    def _augmented(self, values: Tensor) -> Tensor:
        """Pictures `[B, C, H, W]` shifted, partly covered and recoloured at random; other groups as they are."""
        c = self.config
        if values.dtype != torch.uint8 or values.dim() != 4:
            return values
        return jitter(erase(random_shift(values, c.image_shift), c.image_erase), c.image_jitter)

    def _fit(self, rows: Batch | None) -> None:
        """Once, before the first gradient: the policy takes units and words from the data, the student follows."""
        if self._fitted or rows is None:
            return
        self.policy.fit(rows)
        if self._mean is not None:
            self.student.load_state_dict(self.policy.state_dict())
        self._fitted = True

    @torch.no_grad()
    def _average(self) -> None:
        """Move the policy a little towards the student."""
        if self._mean is not None:
            keep = min(self.config.ema_decay, (1.0 + self._updates) / (10.0 + self._updates))
            self._mean.data.lerp_(self._flat.data, 1.0 - keep)

    def state_dict(self) -> StateDict:
        """Weights, normaliser and optimiser."""
        state = {"policy": dict(self.policy.state_dict()), "adam": self._adam.state_dict(), "updates": self._updates}
        student = dict(self.student.state_dict()) if self._mean is not None else {}
        return {**state, "fitted": self._fitted, "student": student}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.policy.load_state_dict(state["policy"])
        self._adam.load_state_dict(state["adam"])
        self._updates, self._fitted = int(state["updates"]), bool(state["fitted"])
        if self._mean is not None:
            self.student.load_state_dict(state["student"])


def _trained(policy: Any) -> list[torch.nn.Parameter]:
    """What the gradient moves."""
    if hasattr(policy, "actor_parameters"):
        return list(policy.actor_parameters())
    return [parameter for parameter in policy.parameters() if parameter.requires_grad]
