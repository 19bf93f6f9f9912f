"""A RobotRL policy behind LeRobot's interface."""

from __future__ import annotations

import json
import re
from typing import Any

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor

from robotrl.data.schema import key_of
from robotrl.nets.network import is_image
from robotrl.policies.io import from_description
from robotrl.policies.language import UNKNOWN, tabletop_words
from robotrl.policies.lerobot_plugin.configuration_robotrl import RobotRLConfig
from robotrl.types import Batch, Obs, State

_WORD = re.compile(r"[a-z0-9]+")


class RobotRLPolicy(PreTrainedPolicy):
    """Pictures as LeRobot gives them (floats in [0, 1]), features by its names, the task in words.

    `select_action` keeps the policy's state from call to call, for all rows alike; `reset` forgets it.
    """

    config_class = RobotRLConfig
    name = "robotrl"

    def __init__(self, config: RobotRLConfig, **kwargs: Any) -> None:
        super().__init__(config)
        self.policy = from_description(json.loads(config.description))
        vocabulary = getattr(self.policy, "vocabulary", None)
        words = tabletop_words() if vocabulary is None else vocabulary.words
        self._numbers = {word: number for number, word in enumerate(words, 2)}
        self.reset()

    def reset(self) -> None:
        """An episode starts."""
        self._state: State | None = None

    def get_optim_params(self) -> Any:
        """Everything that is trained."""
        return [parameter for parameter in self.policy.parameters() if parameter.requires_grad]

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """The next action `[N, A]`, in the env's units."""
        self.eval()
        obs = self.observation(batch)
        rows = len(next(iter(obs.values())))
        if self._state is None:
            self._state = self.policy.initial_state(rows)
        action, _, self._state = self.policy.act(obs, self._state, explore=False)
        return action.reshape(rows, -1)

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """The chunk `[N, h, A]` that would be executed from here; of other policies one action."""
        self.eval()
        obs = self.observation(batch)
        rows = len(next(iter(obs.values())))
        action, extras, _ = self.policy.act(obs, self.policy.initial_state(rows), explore=False)
        chunk = extras.get("chunk")
        return action.reshape(rows, 1, -1) if chunk is None else chunk.flatten(2)

    def forward(self, batch: dict[str, Any], reduction: str = "mean") -> tuple[Tensor, dict[str, Any]]:
        """The loss of a chunk policy; with `reduction="none"` one value a sample, for LeRobot's sample weighting.

        Raises:
            NotImplementedError: the policy gives single actions; those are trained by RobotRL.
        """
        errors = getattr(self.policy, "errors", None)
        if errors is None:
            raise NotImplementedError("This policy gives single actions. Train it with: robotrl train learner=bc")
        obs = self.observation(batch)
        action = batch["action"].unflatten(-1, self.policy.actions.shape)
        rows: Batch = {f"obs/{group}": value.unsqueeze(0) for group, value in obs.items()}
        rows |= {"action": action.transpose(0, 1), "valid/action": ~batch["action_is_pad"].transpose(0, 1)}
        found = errors(obs, rows).values()
        if reduction == "none":
            return torch.stack([(e.value * e.valid).sum(0) / e.valid.sum(0).clamp(min=1) for e in found]).sum(0), {}
        return torch.stack([(e.value * e.valid).sum() / e.valid.sum().clamp(min=1) for e in found]).sum(), {}

    def observation(self, batch: dict[str, Any]) -> Obs:
        """LeRobot's batch as RobotRL's groups."""
        obs: Obs = {}
        for group in self.policy.obs_groups:
            array = self.policy.spec.obs[group]
            value = batch.get(key_of(f"obs/{group}"))
            if value is None and array.dtype == "int64":
                rows = len(next(v for k, v in batch.items() if k.startswith("observation.")))
                obs[group] = self._tokens(batch["task"], rows, array.shape[0])
            elif value is None:
                raise KeyError(f"The policy reads '{key_of(f'obs/{group}')}', which the batch lacks: {sorted(batch)}")
            elif is_image(array) and value.dtype != torch.uint8:
                obs[group] = (value * 255).round().clamp(0, 255).to(torch.uint8)
            else:
                obs[group] = value
        return obs

    def _tokens(self, task: str | list[str], rows: int, length: int) -> Tensor:
        """Word tokens `[rows, length]` of the task."""
        sentences = [task] * rows if isinstance(task, str) else task
        tokens = torch.zeros(rows, length, dtype=torch.int64)
        for row, sentence in enumerate(sentences):
            words = _WORD.findall(sentence.lower())
            if len(words) > length:
                raise ValueError(f"The task '{sentence}' has {len(words)} words, but the policy reads {length}.")
            tokens[row, : len(words)] = torch.tensor([self._numbers.get(word, UNKNOWN) for word in words])
        return tokens.to(next(self.policy.parameters()).device)


__all__ = ["RobotRLPolicy"]
