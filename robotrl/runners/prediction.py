"""How far a world model sees: what it imagines from given actions, beside what then happened.

A policy plays, and the model follows its episodes from their start, as it does when it acts; from some moments on it is
told only the actions that were taken. What it decodes is compared with what was observed, and with the last observation
it had seen, which is what a model that knows nothing of motion would say.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robotrl.functional.statistics import Interval, bootstrap_interval
from robotrl.policies.rssm import RSSMPolicy
from robotrl.runners.media import tensors
from robotrl.types import Obs, RobotRLError
from robotrl.world_models import WorldModel

SHOWN = 6
"""Windows that are kept to be looked at."""


@dataclass(slots=True)
class Predictions:
    """Errors of a model and of copying, by observation group and step ahead; and some windows to look at."""

    model: dict[str, NDArray[np.float64]]
    """`[episodes, horizon]`: mean squared error of pixels in [0, 1], or of numbers in units of their deviation."""
    copy: dict[str, NDArray[np.float64]]
    """The same for the last observation of the context, said again and again."""
    context: int
    windows: int
    seen: dict[str, NDArray[Any]]
    """`[context + horizon, SHOWN, ...]`, what was observed."""
    imagined: dict[str, NDArray[Any]]
    """The same, reconstructed in the context and imagined behind it."""
    latents: dict[str, NDArray[np.float32]]
    """`deter` and `stoch`, `[context + horizon, SHOWN, ...]`."""

    @property
    def horizon(self) -> int:
        """Steps ahead."""
        return int(next(iter(self.model.values())).shape[1])

    def ratio(self, group: str) -> NDArray[np.float64]:
        """The model's mean error as a share of that of copying, `[horizon]`."""
        share: NDArray[np.float64] = self.model[group].mean(0) / np.maximum(self.copy[group].mean(0), 1e-12)
        return share

    def interval(self, group: str, step: int) -> Interval:
        """95 % bootstrap interval, over episodes, of the model's mean error `step` (from 1) steps ahead."""
        return bootstrap_interval(self.model[group][:, step - 1])

    def to_json(self) -> dict[str, Any]:
        """Errors by episode and step, JSON-ready."""
        errors = {g: {"model": self.model[g].tolist(), "copy": self.copy[g].tolist()} for g in self.model}
        return {"context": self.context, "horizon": self.horizon, "windows": self.windows, "errors": errors}

    def save(self, path: Path) -> list[Path]:
        """Write the errors beside `path` as JSON, and the shown windows with their latent states as `.npz`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        numbers, arrays = path.with_suffix(".json"), path.with_suffix(".npz")
        numbers.write_text(json.dumps(self.to_json()), encoding="utf-8")
        kinds = {"seen": self.seen, "imagined": self.imagined, "latent": self.latents}
        np.savez_compressed(arrays, **{f"{k}/{n}": v for k, values in kinds.items() for n, v in values.items()})  # type: ignore[arg-type]  # stubs want no dict
        return [numbers, arrays]

    def __str__(self) -> str:
        lines = [
            f"Open-loop prediction after {self.context} observations or more, {self.windows} windows of {self._n} "
            "episodes"
        ]
        for group in self.model:
            for step in sorted({1, (self.horizon + 1) // 2, self.horizon}):
                low, high = self.interval(group, step)
                lines.append(
                    f"  {group}, {step:2d} steps ahead: error {self.model[group][:, step - 1].mean():.4g} "
                    f"[{low:.4g}, {high:.4g}], {self.ratio(group)[step - 1]:.2f} of that of copying the last one"
                )
        return "\n".join(lines)

    @property
    def _n(self) -> int:
        return len(next(iter(self.model.values())))


@torch.no_grad()
def predict(
    policy: RSSMPolicy,
    model: WorldModel,
    env: Any,
    *,
    episodes: int = 10,
    windows: int = 8,
    context: int = 5,
    horizon: int = 15,
    seed: int = 0,
    explore: bool = True,
) -> Predictions:
    """Play `episodes` episodes and measure the model from `windows` moments of each, evenly spread.

    Args:
        policy: acts.
        model: on the same perception.
        env: a RobotRL vector env with as many rows as episodes.
        episodes: rows, each of which plays one.
        windows: moments of an episode.
        context: the last observations the model takes in before it imagines: so many are shown, and at least so many
            are there.
        horizon: steps it imagines.
        seed: of episodes, actions and samples.
        explore: act as in training: a policy that stands still would make copying perfect.

    Raises:
        RobotRLError: no episode is long enough for a window.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        played = _play(policy, env, episodes, seed, explore=explore)
        return _compare(policy, model, played, windows, context, horizon)


Played = list[tuple[Obs, Tensor]]
"""Of each episode: observations `[T, ...]` and scaled actions `[T, A]`."""


def _play(policy: RSSMPolicy, env: Any, episodes: int, seed: int, *, explore: bool) -> Played:
    device = next(policy.parameters()).device
    obs, _ = env.reset(seed=seed)
    state, running = policy.initial_state(episodes), np.ones(episodes, np.bool_)
    rows: list[list[tuple[Obs, Tensor]]] = [[] for _ in range(episodes)]
    while running.any():
        seen = {g: v for g, v in tensors(obs, device).items() if g in policy.obs_groups}
        action, _, state = policy.act(seen, state, explore=explore)
        scaled = policy.perception.actions(action)
        for i in np.flatnonzero(running):
            rows[i].append(({g: v[i] for g, v in seen.items()}, scaled[i]))
        obs, _, terminated, truncated, _ = env.step(action.cpu().numpy())
        done = terminated | truncated
        running &= ~done
        state = policy.reset_state(state, torch.as_tensor(done, device=device))
    return [
        ({g: torch.stack([o[g] for o, _ in steps]) for g in policy.obs_groups}, torch.stack([a for _, a in steps]))
        for steps in rows
    ]


def _compare(
    policy: RSSMPolicy, model: WorldModel, played: Played, windows: int, context: int, horizon: int
) -> Predictions:
    length = context + horizon
    long_enough = [(obs, action) for obs, action in played if len(action) >= length]
    if not long_enough:
        raise RobotRLError(
            f"No episode is long enough to look {horizon} steps ahead after {context} observations: the longest has "
            f"{max(len(action) for _, action in played)} steps. Give the env a longer time limit."
        )
    images, spread = model.decoder.images, _deviations(long_enough, policy.obs_groups)
    errors: dict[str, dict[str, list[NDArray[np.float64]]]] = {
        kind: {g: [] for g in policy.obs_groups} for kind in ("model", "copy")
    }
    kept: list[tuple[Obs, Obs, Tensor, Tensor]] = []
    count = 0
    for obs, action in long_enough:
        starts = np.unique(np.linspace(0, len(action) - length, windows).round().astype(int))
        count += len(starts)
        at = torch.as_tensor(starts)[None] + torch.arange(length)[:, None]
        seen = {g: v[at] for g, v in obs.items()}
        deter, stoch, decoded = _look_ahead(policy, model, obs, action, at, context)
        for g in policy.obs_groups:
            scale = 255.0 if g in images else spread[g]
            truth, said = seen[g].float() / scale, decoded[g].float() / scale
            last = truth[context - 1].expand_as(truth[context:])
            for kind, guess in (("model", said[context:]), ("copy", last)):
                errors[kind][g].append((guess - truth[context:]).square().flatten(2).mean((1, 2)).double().numpy())
        middle = len(starts) // 2
        kept.append(
            ({g: v[:, middle] for g, v in seen.items()}, {g: v[:, middle] for g, v in decoded.items()},
             deter[:, middle], stoch[:, middle])
        )  # fmt: skip
    kept = kept[:SHOWN]
    return Predictions(
        model={g: np.stack(v) for g, v in errors["model"].items()},
        copy={g: np.stack(v) for g, v in errors["copy"].items()},
        context=context,
        windows=count,
        seen={g: torch.stack([k[0][g] for k in kept], 1).numpy() for g in policy.obs_groups},
        imagined={g: torch.stack([k[1][g] for k in kept], 1).numpy() for g in policy.obs_groups},
        latents={
            "deter": torch.stack([k[2] for k in kept], 1).numpy(),
            "stoch": torch.stack([k[3] for k in kept], 1).numpy(),
        },
    )


def _look_ahead(
    policy: RSSMPolicy, model: WorldModel, obs: Obs, action: Tensor, at: Tensor, context: int
) -> tuple[Tensor, Tensor, Obs]:
    """States and what they decode to, `[context + horizon, W, ...]`: from observations first, then from actions.

    Args:
        policy: whose perception takes the observations in.
        model: imagines.
        obs: of one episode, `[T, ...]`; the model follows it from its start, as the policy does.
        action: `[T, A]`, scaled.
        at: the windows' steps, `[context + horizon, W]`.
        context: steps of a window that are seen.
    """
    before = torch.cat([torch.zeros_like(action[:1]), action[:-1]])[:, None]
    first = torch.zeros(len(action), 1, dtype=torch.bool, device=action.device)
    first[0] = True
    known = model.observe({g: v[:, None] for g, v in obs.items()}, before, first, policy.perception.initial(1))
    now = at[context - 1]
    ahead = iter(action[at[context - 1 : -1]])
    dream = model.imagine(known.deter[now, 0], known.stoch[now, 0], lambda _: next(ahead), len(at) - context)
    features = torch.cat([known.features[at[:context], 0], dream.features[1:]])
    kept, wide = features.cpu(), known.deter.shape[-1]
    return kept[..., :wide], kept[..., wide:], {g: v.cpu() for g, v in model.decode(features).items()}


def _deviations(played: Played, groups: tuple[str, ...]) -> dict[str, Tensor]:
    """Of each number over all steps: what stands still counts as 1."""
    found = {}
    for g in groups:
        std = torch.cat([obs[g].float() for obs, _ in played]).std(0)
        found[g] = torch.where(std > 1e-6, std, 1.0)
    return found


__all__ = ["Predictions", "predict"]
