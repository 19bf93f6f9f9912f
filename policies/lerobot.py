"""LeRobot's policies (ACT, Diffusion, SmolVLA, pi0, pi0.5) as RobotRL policies, from a checkpoint or made anew.

Their networks are LeRobot's own. What is around them is not: a chunk and its cursor are kept for every row, instead of
one queue an instance, so that many envs run side by side and single rows start anew; observations of several steps are
kept likewise; normalisation is part of the module, with LeRobot's formulas. See `lerobot_checkpoint` for what is read.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robotrl.nets.network import is_image
from robotrl.policies import lerobot_losses
from robotrl.policies.chunks import NONE, ChunkPolicy, Error
from robotrl.policies.config import PolicyConfig
from robotrl.policies.lerobot_checkpoint import check_sizes, read_checkpoint, read_weights
from robotrl.policies.lerobot_norm import Norm
from robotrl.policies.lerobot_parts import (
    ACTION,
    TASK,
    Parts,
    bag_of_words,
    from_checkpoint,
    from_saved,
    imagenet,
    library,
    make_new,
    task_steps,
    vlm_files,
)
from robotrl.policies.preflight import check_features, feature_groups
from robotrl.types import Batch, EnvSpec, Extras, Obs, RobotRLError, State

TIMED = ("diffusion",)
"""Types whose observations have an axis of time, also where it has one step."""


class LeRobotPolicy(ChunkPolicy):
    """See the module's docstring; `config.lerobot` says which one."""

    def __init__(self, config: PolicyConfig, spec: EnvSpec) -> None:
        settings = config.lerobot
        library()
        if settings.path is not None:
            parts = from_checkpoint(read_checkpoint(settings.path), settings)
        elif settings.saved:
            parts = from_saved(settings)
        else:
            parts = make_new(config, spec)
        features, made = parts.features, parts.config
        told = {TASK: settings.instruction} if parts.told else {}
        read = {name: feature for name, feature in features.items() if name not in told}
        groups = feature_groups(read, parts.rename, settings.rename, config.groups, spec)
        reads_task = bool(parts.words)
        task = settings.instruction if reads_task or told else ""
        check_features(parts.what, read, groups, parts.action, spec, task=task)
        groups |= told
        own = replace(settings, path=None, vlm=None, settings={}, saved=parts.to_json())
        steps = int(made.n_action_steps)
        super().__init__(
            replace(config, lerobot=own), spec, chunk_size=int(getattr(made, "chunk_size", steps)), execute_steps=steps
        )
        self.policy_type, self.n_obs_steps = parts.config.type, int(made.n_obs_steps)
        self.groups = groups
        """LeRobot's feature to the observation group behind it, in LeRobot's order."""
        self.instruction = settings.instruction if reads_task else None
        self.told = TASK if told else None
        self.obs_groups = (*groups.values(), *([settings.instruction] if reads_task else []))
        self.made, self.vlm = made, parts.vlm
        self.norms = nn.ModuleDict({_key(f): Norm(*norm, eps=parts.eps) for f, norm in parts.norms().items()})
        self.model = _build(parts, settings.path)
        self.losses = lerobot_losses.names(self.model)
        self._tell = task_steps(parts, self.vlm) if reads_task else None
        for feature, values in (parts.statistics or imagenet(parts)).items():
            self.norm(feature).load(values)
        self.fitted.fill_(bool(parts.statistics))
        if bool(parts.statistics) and not self.fitted.is_meta:
            self._check_action_scale(parts.what)

    # ---- learning from data ----

    @property
    def windows(self) -> Mapping[str, Sequence[int]]:
        """Observations of `n_obs_steps` steps, and the actions that LeRobot's training asks for."""
        past = range(1 - self.n_obs_steps, 1)
        asked: dict[str, Sequence[int]] = {f"obs/{group}": past for group in self.groups.values()}
        told: dict[str, Sequence[int]] = {} if self.instruction is None else {f"obs/{self.instruction}": (0,)}
        return asked | told | {"action": tuple(self.made.action_delta_indices)}

    @property
    def fit_windows(self) -> Mapping[str, Sequence[int]]:
        """Numbers and actions of the present step."""
        kinds = {group: self.spec.obs[group] for feature, group in self.groups.items() if feature != self.told}
        numbers = {f"obs/{group}": (0,) for group, array in kinds.items() if not is_image(array)}
        return {**numbers, "action": (0,)}

    def fit(self, rows: Batch) -> None:
        """Take normalisation statistics from the data, or see that they are like those of the checkpoint.

        Raises:
            RobotRLError: the policy has statistics of its own, and these data are others.
        """
        keep = bool(self.fitted) and self.config.lerobot.statistics == "checkpoint"
        counted = {f: g for f, g in self.groups.items() if f != self.told and not self._visual(f)}
        found = {f: rows[f"obs/{g}"][0] for f, g in counted.items() if f"obs/{g}" in rows}
        found[ACTION] = rows["action"][0].flatten(1)
        strange = []
        for feature, values in found.items():
            norm = self.norm(feature)
            if keep:
                strange += [f"'{feature}' {text}" for text in norm.differences(values.flatten(1).float())]
            else:
                norm.fit(values.flatten(1).float())
        if strange:
            raise RobotRLError(
                f"The data are not normalised like the policy: {'; '.join(strange)}. They have another order of "
                "features, other units or another scaling than those it was trained on. Use data like those, or "
                "policy.lerobot.statistics=data to take on theirs."
            )
        self.fitted.fill_(True)

    def errors(self, obs: Obs, rows: Batch) -> dict[str, Error]:
        """LeRobot's own losses, one value a sample (`[1, B]`) or a step of the chunk (`[T, B]`).

        With several observation steps the pictures are not the learner's augmented ones: LeRobot's encoders crop them.
        """
        if self.n_obs_steps > 1:
            obs = {g: rows[f"obs/{g}"].transpose(0, 1) for g in self.groups.values()}
        if self.instruction is not None:
            obs = {**obs, self.instruction: rows[f"obs/{self.instruction}"][0]}
        batch = self.inputs(obs)
        action = rows["action"].flatten(2).transpose(0, 1)
        batch[ACTION] = self.norm(ACTION)(action)
        batch["action_is_pad"] = ~rows["valid/action"].transpose(0, 1)
        self.model.train()
        return lerobot_losses.errors(self.model, batch)

    # ---- acting ----

    def initial_state(self, num_envs: int) -> State:
        """Chunk and cursor; with several observation steps also `past/<group> [N, n_obs_steps, ...]`."""
        state = super().initial_state(num_envs)
        if self.n_obs_steps > 1:
            for group in self.groups.values():
                spec = self.spec.obs[group]
                kind = getattr(torch, spec.dtype)
                state[f"past/{group}"] = torch.zeros(
                    num_envs, self.n_obs_steps, *spec.shape, dtype=kind, device=self.actions.low.device
                )
        return state

    @torch.no_grad()
    def act(self, obs: Obs, state: State, *, explore: bool) -> tuple[Tensor, Extras, State]:
        """See `ChunkPolicy.act`. An episode's first observation stands in for those before it, as in LeRobot."""
        if self.n_obs_steps == 1:
            return super().act(obs, state, explore=explore)
        fresh = state["cursor"] == NONE
        past: State = {}
        for group in self.groups.values():
            now = obs[group].unsqueeze(1)
            line = torch.cat([state[f"past/{group}"][:, 1:], now], 1)
            line[fresh] = now[fresh].expand(-1, self.n_obs_steps, *now.shape[2:])
            past[f"past/{group}"] = line
        own = {key: value for key, value in state.items() if key not in past}
        seen = {**obs, **{key.removeprefix("past/"): line for key, line in past.items()}}
        action, extras, after = super().act(seen, own, explore=explore)
        return action, extras, after | past

    def infer(self, obs: Obs, previous: Tensor | None, *, explore: bool) -> tuple[Tensor, Extras]:
        """See `ChunkPolicy.infer`; LeRobot's policies draw their noise either way."""
        chunk = self.model.predict_action_chunk(self.inputs(obs))
        return self.norm(ACTION).inverse(chunk[:, : self.chunk_size].float()), {}

    def inputs(self, obs: Obs) -> dict[str, Any]:
        """What LeRobot's policy is given: normalised features by its names, and the tokens of the task."""
        batch: dict[str, Any] = {}
        for feature, group in self.groups.items():
            values = self._values(feature, obs[group])
            if self.policy_type in TIMED and self.n_obs_steps == 1:
                values = values.unsqueeze(1)
            batch[feature] = self.norm(feature)(values)
        if self._tell is not None and self.instruction is not None:
            batch |= self._tell(obs[self.instruction], batch)
        return batch

    def statistics(self) -> dict[str, dict[str, Tensor]]:
        """What each of LeRobot's features is normalised by."""
        return {f: self.norm(f).values() for f in [*self.groups, ACTION]}

    @property
    def files(self) -> dict[str, bytes]:
        """Small files beside the weights that the policy needs to be built again."""
        return vlm_files(self.vlm) if self.vlm is not None else {}

    def norm(self, feature: str) -> Norm:
        """How one of LeRobot's features is normalised."""
        norm = self.norms[_key(feature)]
        assert isinstance(norm, Norm)
        return norm

    def _values(self, feature: str, values: Tensor) -> Tensor:
        """An observation group as the numbers that LeRobot's feature has."""
        if self._visual(feature):
            return values.float() / 255
        return (
            bag_of_words(values, self.made.input_features[feature].shape[0]) if self.told == feature else values.float()
        )

    def _visual(self, feature: str) -> bool:
        return feature.startswith("observation.image")

    def _check_action_scale(self, what: str) -> None:
        """Refuse a policy whose actions are of another scale than the env's."""
        low, high = self.norm(ACTION).range()
        bounds = self.actions.low, self.actions.high
        span = bounds[1] - bounds[0]
        beyond = (low < bounds[0] - 0.1 * span) | (high > bounds[1] + 0.1 * span)
        if bool((beyond & span.isfinite()).any()):
            k = int(beyond.nonzero()[0])
            raise RobotRLError(
                f"{what} was trained on actions of which number {k} goes from {float(low[k]):.4g} to "
                f"{float(high[k]):.4g}, but {self.spec.id} takes it from {float(bounds[0][k]):.4g} to "
                f"{float(bounds[1][k]):.4g}: another scaling or order of actions. Use the env and the control mode of "
                "its data (env.options.control)."
            )


def _build(parts: Parts, path: str | None) -> Any:
    """LeRobot's policy, with the weights of a checkpoint; built on the meta device first, which takes no memory."""
    make = parts.policy_class
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            if path is None:
                return make(parts.config)
            with torch.device("meta"):
                expected = make(parts.config).state_dict()
            file = Path(path) / "model.safetensors"
            check_sizes(file, expected)
            model = make(parts.config)
    except RobotRLError:
        raise
    except (ImportError, ValueError, TypeError, AssertionError, OSError, RuntimeError, KeyError) as error:
        raise RobotRLError(f"LeRobot cannot make {parts.what}: {str(error)[:400]}") from error
    read_weights(file, model)
    return model


def _key(feature: str) -> str:
    """A module's name may hold no dots."""
    return feature.replace(".", "_")


__all__ = ["LeRobotPolicy"]
