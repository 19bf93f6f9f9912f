"""Fitting an ensemble of models to transitions: what methods that plan or learn through one share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robotrl.nets.flat import Adam, clip_gradient, flatten_parameters, zero_gradient
from robotrl.types import Batch, Metrics, StateDict, group
from robotrl.world_models.dynamics import Dynamics


class ModelFit:
    """A model and its optimiser.

    Args:
        model: what is fitted, on the device where it stays.
        unit_action: env actions to units where the bounds are [-1, 1].
        learning_rate: of Adam.
        max_grad_norm: of all members together.
    """

    def __init__(
        self, model: Dynamics, unit_action: Callable[[Tensor], Tensor], learning_rate: float, max_grad_norm: float
    ) -> None:
        self.model, self._unit_action, self._max_grad_norm = model, unit_action, max_grad_norm
        self._flat = flatten_parameters(model.parameters())
        self._adam = Adam(self._flat, learning_rate)
        self.coef = {"model": 1.0, "continue": 1.0, "bounds": 1.0}
        """Coefficients of the losses, by name."""

    def take_in(self, fresh: Batch) -> None:
        """Bring the model's normalisers up to date with a rollout; an empty one changes nothing."""
        if fresh:
            vector = self.model.vector
            self.model.take_in(vector(group(fresh, "obs")), vector(group(fresh, "next_obs")), fresh["reward"])

    def step(self, part: Batch) -> Metrics:
        """One step of every member on its share of the transitions `[E * B, ...]`."""
        members, model = self.model.members, self.model
        obs, next_obs = (model.vector(group(part, key)) for key in ("obs", "next_obs"))
        action = self._unit_action(part["action"]).clamp(-1.0, 1.0)
        rows = [
            value.unflatten(0, (members, -1)) for value in (obs, action, next_obs, part["reward"], part["terminated"])
        ]
        losses = model.losses(*rows)
        zero_gradient(self._flat)
        torch.stack([self.coef[name] * loss for name, loss in losses.items()]).sum().backward()
        norm = clip_gradient(self._flat, self._max_grad_norm)
        self._adam.step()
        result = {f"loss/{name}": loss.detach() for name, loss in losses.items()}
        return result | {"grad_norm/model": norm, "grad_norm/nonfinite": (~norm.isfinite()).float()}

    def state_dict(self) -> StateDict:
        """The model with its normalisers, and the optimiser."""
        return {"model": dict(self.model.state_dict()), "adam": self._adam.state_dict()}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.model.load_state_dict(state["model"])
        self._adam.load_state_dict(state["adam"])


__all__ = ["ModelFit"]
