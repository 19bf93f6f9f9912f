"""Measures one arm of `sac_vs_sb3_speed` or `rlpd_critic_speed` in a process of its own and prints one line of JSON.

Sizes of HalfCheetah-v5 (17 observed numbers, 6 of an action), nets of 2x256 units, batches of 256, CPU. What is learned
from is random: the time does not depend on it. The first `WARM_UP` updates are not timed.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

OBS, ACT, WIDTH, BATCH, CRITICS = 17, 6, 256, 256, 10
STORED, BLOCK, WARM_UP = 20_000, 16, 64
Update = Callable[[int], None]
"""Makes so many updates."""


def spec() -> Any:
    """What learners must know of an env of these sizes."""
    from robotrl.types import ActionSpec, ArraySpec, EnvSpec

    action = ActionSpec("continuous", (ACT,), (-1.0,) * ACT, (1.0,) * ACT)
    return EnvSpec("HalfCheetah-v5", {"state": ArraySpec((OBS,))}, action)


def transitions(count: int) -> dict[str, Tensor]:
    """Random ones, `[count, 1, ...]`, as a collector delivers them."""
    flags = torch.zeros(count, 1, dtype=torch.bool)
    return {
        "obs/state": torch.randn(count, 1, OBS), "next_obs/state": torch.randn(count, 1, OBS),
        "action": torch.rand(count, 1, ACT) * 2 - 1, "reward": torch.randn(count, 1), "terminated": flags,
        "truncated": flags, "is_first": flags,
    }  # fmt: skip


def learner(**config: Any) -> Any:
    """A SAC learner of these sizes."""
    from robotrl.learners.sac import SAC, SACConfig
    from robotrl.policies import build_policy
    from robotrl.policies.config import PolicyConfig
    from robotrl.runners.memory import keep_freed_memory

    keep_freed_memory()  # as every run does
    shape = PolicyConfig(kind="squashed", hidden=[WIDTH, WIDTH], activation="relu", normalise_obs=False)
    policy: Any = build_policy(shape, spec())
    return SAC(policy, spec(), SACConfig(random_env_steps=0, **config), num_envs=1)


def robotrl(precision: str) -> Update:
    """Batches from the replay, and the learner's update."""
    from robotrl.replay import ReplayBuffer

    sac, replay = learner(matmul_precision=precision), ReplayBuffer(STORED, 1)
    replay.add(transitions(STORED))

    def update(count: int) -> None:
        for batch in replay.batches(sac.batch_spec, count):
            sac.update(batch)

    return update


def sb3(module: str) -> Update:
    """Stable-Baselines3's SAC, or SBX's, on its own replay."""
    import importlib

    import gymnasium
    import numpy as np
    from stable_baselines3.common.logger import configure

    env = gymnasium.make("HalfCheetah-v5", disable_env_checker=True)
    more = {"device": "cpu"} if module == "stable_baselines3" else {}
    model = importlib.import_module(module).SAC(
        "MlpPolicy", env, seed=0, batch_size=BATCH, buffer_size=STORED, learning_starts=0,
        policy_kwargs={"net_arch": [WIDTH, WIDTH]}, **more,
    )  # fmt: skip
    model.set_logger(configure(None, []))
    rng = np.random.default_rng(0)
    for _ in range(STORED):
        obs, after = rng.normal(size=(2, 1, OBS))
        model.replay_buffer.add(obs, after, rng.uniform(-1, 1, (1, ACT)), rng.normal(size=1), np.zeros(1), [{}])
    if module == "stable_baselines3":
        return lambda count: model.train(gradient_steps=count, batch_size=BATCH)

    def train(count: int) -> None:
        model.train(batch_size=BATCH, gradient_steps=count)
        float(np.asarray(model.policy.qf_state.step))  # waits for what JAX still computes

    return train


class Stacked(nn.Module):
    """Critics as batched matrix products under autograd, as one would write them first."""

    def __init__(self, size: int) -> None:
        super().__init__()
        widths = [OBS + ACT, WIDTH, WIDTH, 1]
        pairs = list(pairwise(widths))
        self.weights = nn.ParameterList(torch.randn(size, a, b) / a**0.5 for a, b in pairs)
        self.biases = nn.ParameterList(torch.zeros(size, 1, b) for _, b in pairs)

    def forward(self, x: Tensor) -> Tensor:
        h = x.expand(self.weights[0].shape[0], *x.shape)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, h, weight)
            h = torch.relu(h) if i < 2 else h
        return h.squeeze(-1)


class Loop(nn.Module):
    """Critics one after the other, as PyTorch's own layers."""

    def __init__(self, size: int, *, norm: bool = False) -> None:
        super().__init__()
        self.nets = nn.ModuleList(mlp(OBS + ACT, 1, norm=norm) for _ in range(size))

    def forward(self, x: Tensor, members: list[int] | None = None) -> Tensor:
        chosen = self.nets if members is None else [self.nets[i] for i in members]
        return torch.stack([net(x).squeeze(-1) for net in chosen])


def mlp(fan_in: int, fan_out: int, *, norm: bool = False) -> nn.Sequential:
    """Two hidden layers, with layer normalisation before their activation if asked for."""
    layers: list[nn.Module] = []
    for a, b in ((fan_in, WIDTH), (WIDTH, WIDTH)):
        layers += [nn.Linear(a, b), *([nn.LayerNorm(b)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, fan_out))


def eager(critics: nn.Module, *, compiled: bool = False) -> Update:
    """The same update in plain PyTorch: autograd, fused Adam; optionally `torch.compile` of both losses."""
    from robotrl.policies.squashed import SquashedPolicy

    policy: SquashedPolicy = learner().policy
    actor, targets = mlp(OBS, 2 * ACT), copy.deepcopy(critics)
    alpha, data = torch.tensor(0.2), {key: value.squeeze(1) for key, value in transitions(STORED).items()}
    adams = [torch.optim.Adam(net.parameters(), 3e-4, fused=True) for net in (critics, actor)]

    def sample(obs: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = policy.mean_and_log_std(actor(obs))
        noise = torch.randn_like(mean)
        raw = mean + log_std.exp() * noise
        slope = 2.0 * (0.6931 - raw - nn.functional.softplus(-2.0 * raw))
        return torch.tanh(raw), (-0.5 * noise.square() - log_std - 0.9189 - slope).sum(-1)

    def critic_loss(rows: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            action, log_prob = sample(rows["next_obs/state"])
            value = targets(torch.cat([rows["next_obs/state"], action], -1)).amin(0) - alpha * log_prob
            target = rows["reward"] + 0.99 * ~rows["terminated"] * value
        error: Tensor = critics(torch.cat([rows["obs/state"], rows["action"]], -1)) - target
        return error.square().mean()

    def actor_loss(rows: dict[str, Tensor]) -> Tensor:
        action, log_prob = sample(rows["obs/state"])
        value: Tensor = critics(torch.cat([rows["obs/state"], action], -1)).amin(0)
        return (alpha * log_prob - value).mean()

    losses = [critic_loss, actor_loss]
    if compiled:
        losses = [torch.compile(loss) for loss in losses]

    def update(count: int) -> None:
        for _ in range(count):
            index = torch.randint(STORED, (BATCH,))
            rows = {key: value[index] for key, value in data.items()}
            for loss, adam in zip(losses, adams, strict=True):
                adam.zero_grad()
                torch.autograd.backward(loss(rows))
                adam.step()
            with torch.no_grad():
                torch._foreach_lerp_(list(targets.parameters()), list(critics.parameters()), 0.005)

    return update


def matrix(dtype: torch.dtype, *, critics: int = 2, rlpd: bool = False) -> Update:
    """The matrix products of an update alone, with `torch.bmm` (`torch.mm` where one column is wide) at their shapes.

    Args:
        dtype: of the products.
        critics: how many.
        rlpd: only the critics' step, with a target of two of them.
    """
    products: list[tuple[Tensor, Tensor, Tensor]] = []

    def net(members: int, fan_in: int, fan_out: int, *, weights: bool = False, inputs: str = "") -> None:
        for i, (a, b) in enumerate(((fan_in, WIDTH), (WIDTH, WIDTH), (WIDTH, fan_out))):
            x, w, g = (torch.randn(members, *s, dtype=dtype) for s in ((BATCH, a), (a, b), (BATCH, b)))
            wanted = [(x, w)]
            wanted += [(x.transpose(1, 2), g)] if weights else []
            wanted += [(w, g.transpose(1, 2))] if inputs == "all" or (inputs == "hidden" and i > 0) else []
            for left, right in wanted:
                pairs = zip(left, right, strict=True) if right.shape[2] == 1 else [(left, right)]
                products.extend((p, q, torch.matmul(p, q)) for p, q in pairs)

    net(1, OBS, 2 * ACT)
    net(2 if rlpd else critics, OBS + ACT, 1)
    net(critics, OBS + ACT, 1, weights=True, inputs="hidden")
    if not rlpd:
        net(1, OBS, 2 * ACT, weights=True, inputs="hidden")
        net(critics, OBS + ACT, 1, inputs="all")

    def update(count: int) -> None:
        for _ in range(count):
            for left, right, out in products:
                torch.matmul(left, right, out=out)

    return update


def rlpd(precision: str) -> Update:
    """One step of ten critics with layer normalisation, their optimiser and targets, on one batch."""
    from robotrl.nets.flat import gradient_norm

    sac = learner(
        num_critics=CRITICS, target_subset=2, critic_layer_norm=True, actor_value="mean", matmul_precision=precision
    )
    rows = sac._slices({"online": {key: value.squeeze(1) for key, value in transitions(BATCH).items()}})[0]

    def update(count: int) -> None:
        for _ in range(count):
            sac._critic_gradient(rows, sac._sample(rows, ["next_obs"])[0]["next_obs"], defaultdict(list))
            gradient_norm(sac._critic_flat)
            sac._critic_adam.step()
            sac._target_flat.data.lerp_(sac._critic_flat.data, 0.005)

    return update


def rlpd_loop() -> Update:
    """The same step with ten critics one after the other, as PyTorch's own layers under autograd."""
    critics, policy, actor = Loop(CRITICS, norm=True), learner().policy, mlp(OBS, 2 * ACT)
    targets, adam = copy.deepcopy(critics), torch.optim.Adam(critics.parameters(), 3e-4, fused=True)
    rows = {key: value.squeeze(1) for key, value in transitions(BATCH).items()}

    def update(count: int) -> None:
        for _ in range(count):
            with torch.no_grad():
                action, log_prob = policy.sample(actor(rows["next_obs/state"]))
                x = torch.cat([rows["next_obs/state"], action], -1)
                value = targets(x, torch.randperm(CRITICS)[:2].tolist()).amin(0)
                target = rows["reward"] + 0.99 * ~rows["terminated"] * (value - log_prob)
            loss = (critics(torch.cat([rows["obs/state"], rows["action"]], -1)) - target).square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            with torch.no_grad():
                torch._foreach_lerp_(list(targets.parameters()), list(critics.parameters()), 0.005)

    return update


ARMS: dict[str, Callable[[], Update]] = {
    "sb3": lambda: sb3("stable_baselines3"), "sbx": lambda: sb3("sbx"),
    "robotrl_fp32": lambda: robotrl("fp32"), "robotrl_bf16": lambda: robotrl("bf16"),
    "eager_loop": lambda: eager(Loop(2)), "eager_stacked": lambda: eager(Stacked(2)),
    "eager_compiled": lambda: eager(Stacked(2), compiled=True),
    "matrix": lambda: matrix(torch.float32), "matrix_bf16": lambda: matrix(torch.bfloat16),
    "rlpd_loop": rlpd_loop, "rlpd_fp32": lambda: rlpd("fp32"), "rlpd_bf16": lambda: rlpd("bf16"),
    "rlpd_matrix": lambda: matrix(torch.float32, critics=CRITICS, rlpd=True),
    "rlpd_matrix_bf16": lambda: matrix(torch.bfloat16, critics=CRITICS, rlpd=True),
}  # fmt: skip


def main() -> None:
    """The command of the sub-process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--arm", choices=sorted(ARMS), required=True)
    parser.add_argument("--updates", type=int, required=True, help=f"in blocks of {BLOCK}")
    parser.add_argument("--threads", type=int, default=1, help="cores the process may use, and torch's threads")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # holds for every library, whatever it makes of its own settings
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    update = ARMS[options.arm]()
    for _ in range(WARM_UP // BLOCK):
        update(BLOCK)
    start = time.perf_counter()
    for _ in range(options.updates // BLOCK):
        update(BLOCK)
    seconds = time.perf_counter() - start
    print(json.dumps({"updates": options.updates // BLOCK * BLOCK, "wall_s": seconds}))


if __name__ == "__main__":
    main()
