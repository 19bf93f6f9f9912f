"""Gradient steps a second of PROPS' behaviour update on 184 rows of Hopper's sizes, by hand or by autograd."""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from robotrl.functional.distributions import gaussian_kl, gaussian_log_prob
from robotrl.learners.props import PROPS, PROPSConfig
from robotrl.nets.flat import Adam, clip_gradient, flatten_parameters, zero_gradient
from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.types import ActionSpec, ArraySpec, EnvSpec

ROWS, OBS, ACTIONS, CLIP, COEF = 184, 11, 3, 0.3, 0.3
SPEC = EnvSpec(
    "sizes", {"state": ArraySpec((OBS,))}, ActionSpec("continuous", (ACTIONS,), (-1.0,) * ACTIONS, (1.0,) * ACTIONS)
)

Pair = tuple[Callable[[], None], Callable[[], None]]
"""A gradient step, and what puts the weights into the policy."""


def by_hand(policy: Any, obs: dict[str, torch.Tensor], raw: torch.Tensor) -> Pair:
    """As `learner=props` makes a step."""
    config = PROPSConfig(behaviour_learning_rate=1e-4, behaviour_kl_coef=COEF, behaviour_clip=CLIP)
    learner = PROPS(policy, SPEC, config, num_envs=1)
    moving = learner._moving
    moving.load(policy)
    rows = moving.rows(policy, obs, raw)

    def step() -> None:
        log_ratio = moving.log_ratio(rows)
        ratio = np.exp(log_ratio)
        if float((ratio - 1.0 - log_ratio).mean()) > 1e9:
            return
        moving.pull((ratio >= 1.0 - CLIP) * ratio / len(ratio), COEF)
        learner._step()

    return step, lambda: moving.store(policy)


def by_autograd(policy: Any, obs: dict[str, torch.Tensor], raw: torch.Tensor) -> Pair:
    """The same loss, gradient and optimiser with PyTorch's autograd."""
    x = policy.inputs(obs)["vector"]
    target = copy.deepcopy(policy)
    with torch.no_grad():
        mean, log_std = target.net.head(x), target.log_std.clone()
        old = gaussian_log_prob(raw, mean, log_std)
    flat = flatten_parameters(policy.actor_parameters())
    adam = Adam(flat, 1e-4, eps=1e-5)

    def step() -> None:
        out = policy.net.head(x)
        log_ratio = gaussian_log_prob(raw, out, policy.log_std) - old
        ratio = log_ratio.exp()
        if float((ratio - 1.0 - log_ratio).detach().mean()) > 1e9:
            return
        penalty = gaussian_kl(out, policy.log_std, mean, log_std).mean() / ACTIONS
        loss = torch.max(ratio, ratio.clamp(1.0 - CLIP, 1.0 + CLIP)).mean() + COEF * penalty
        zero_gradient(flat)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        clip_gradient(flat, 0.5)
        adam.step()

    return step, lambda: None


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["fused", "autograd"])
    parser.add_argument("steps", type=int)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    policy = build_policy(PolicyConfig(kind="mlp"), SPEC)
    obs = {"state": torch.randn(ROWS, OBS)}
    _, extras, _ = policy.act(obs, {}, explore=True)
    make = by_hand if options.kind == "fused" else by_autograd
    step, _ = make(policy, obs, extras["raw_action"])
    for _ in range(50):
        step()
    start = time.perf_counter()
    for _ in range(options.steps):
        step()
    seconds = time.perf_counter() - start
    print(json.dumps({"steps_per_s": options.steps / seconds, "wall_s": seconds}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
