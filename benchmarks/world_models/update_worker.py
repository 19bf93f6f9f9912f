"""Measures one arm of `update_speed` in a process of its own and prints one line of JSON.

Sizes of walker-walk: 24 observed numbers, 6 of an action; 16 sequences of 64 steps, imagination over 15. What is
learned from is random: the time does not depend on it. The first `WARM_UP` updates are not timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

OBS, ACT, BATCH, LENGTH, HORIZON = 24, 6, 16, 64, 15
SIZE = "size1m"
WARM_UP = 2
Update = Callable[[], None]
PARTS = {
    "_observe_sequences": "sequences taken in", "_model_losses": "losses of the model", "_imagine": "imagination",
    "_behaviour_losses": "losses of actor and critic", "_replay_value_loss": "critic on real sequences",
}  # fmt: skip
"""Methods of the learner that are timed alone, and what they do; what is left is mostly the backward pass."""


def timed(learner: Any) -> dict[str, list[float]]:
    """Put a clock around the parts of a learner's update; seconds of each call, by part."""
    seconds: dict[str, list[float]] = {name: [] for name in PARTS.values()}

    def clocked(method: Callable[..., Any], into: list[float]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            start = time.perf_counter()
            result = method(*given)
            into.append(time.perf_counter() - start)
            return result

        return call

    for method, part in PARTS.items():
        setattr(learner, method, clocked(getattr(learner, method), seconds[part]))
    return seconds


def robotrl(parts: dict[str, list[float]], precision: str = "fp32") -> Update:
    """A batch from the replay, the learner's update, and latent states written back."""
    from robotrl.learners.dreamer import Dreamer, DreamerConfig
    from robotrl.policies import build_policy
    from robotrl.policies.config import PolicyConfig
    from robotrl.replay import ReplayBuffer
    from robotrl.runners.memory import keep_freed_memory
    from robotrl.types import ActionSpec, ArraySpec, EnvSpec

    keep_freed_memory()  # as every run does
    action = ActionSpec("continuous", (ACT,), (-1.0,) * ACT, (1.0,) * ACT)
    spec = EnvSpec("sizes", {"state": ArraySpec((OBS,))}, action)
    policy: Any = build_policy(PolicyConfig(kind="rssm", world_model=SIZE), spec)
    config = DreamerConfig(batch_size=BATCH, batch_length=LENGTH, horizon=HORIZON, matmul_precision=precision)
    learner = Dreamer(policy, spec, config, num_envs=BATCH)
    parts.update(timed(learner))
    steps, size = 4 * LENGTH, policy.perception.size
    replay, never = ReplayBuffer(steps * BATCH, BATCH), torch.zeros(steps, BATCH, dtype=torch.bool)
    replay.add({
        "obs/state": torch.randn(steps, BATCH, OBS), "next_obs/state": torch.randn(steps, BATCH, OBS),
        "action": torch.rand(steps, BATCH, ACT) * 2 - 1, "reward": torch.rand(steps, BATCH), "terminated": never,
        "truncated": never, "is_first": never, "latent/deter": torch.zeros(steps, BATCH, size.deter),
        "latent/stoch": torch.zeros(steps, BATCH, size.latents, dtype=torch.uint8),
    })  # fmt: skip

    def update() -> None:
        for batch in replay.batches(learner.batch_spec, 1):
            _, latents = learner.update(batch)
            replay.write(latents)

    return update


def sheeprl(parts: dict[str, list[float]]) -> Update:
    """The peer's `dreamer_v3_5`, the same algorithm at the same sizes, on a batch that is there already."""
    import gymnasium
    import hydra
    import numpy as np
    from lightning.fabric import Fabric
    from omegaconf import OmegaConf
    from sheeprl.algos.dreamer_v3.utils import Moments
    from sheeprl.algos.dreamer_v3_5.agent import build_agent
    from sheeprl.algos.dreamer_v3_5.dreamer_v3_5 import train, update_target_critic
    from sheeprl.utils.utils import dotdict

    words = [
        "exp=dreamer_v3_5", "algo=dreamer_v3_5_1M", "env=dummy", "algo.cnn_keys.encoder=[]",
        "algo.mlp_keys.encoder=[state]", f"algo.per_rank_batch_size={BATCH}", f"algo.per_rank_sequence_length={LENGTH}",
        f"algo.horizon={HORIZON}",
    ]  # fmt: skip
    with hydra.initialize_config_module("sheeprl.configs", version_base="1.3"):
        cfg = dotdict(OmegaConf.to_container(hydra.compose("config", words), resolve=True))
    fabric = Fabric(accelerator="cpu", devices=1)
    spaces = gymnasium.spaces.Dict({"state": gymnasium.spaces.Box(-np.inf, np.inf, (OBS,), np.float32)})
    world_model, actor, critic, slow, _ = build_agent(fabric, (ACT,), True, cfg, spaces)
    parameters = [*world_model.parameters(), *actor.parameters(), *critic.parameters()]
    optimiser = fabric.setup_optimizers(hydra.utils.instantiate(cfg.algo.optimizer, params=parameters, _convert_="all"))
    p, model = cfg.algo.actor.moments, cfg.algo.world_model
    moments = Moments(p.decay, p.max, p.percentile.low, p.percentile.high)
    shape = (LENGTH + cfg.algo.replay_context, BATCH)
    data = {
        "state": torch.randn(*shape, OBS), "actions": torch.rand(*shape, ACT) * 2 - 1, "rewards": torch.rand(*shape, 1),
        "deter": torch.zeros(*shape, model.recurrent_model.recurrent_state_size),
        "stoch": torch.zeros(*shape, model.stochastic_size, dtype=torch.uint8),
    }  # fmt: skip
    data |= {name: torch.zeros(*shape, 1) for name in ("terminated", "truncated", "is_first")}

    def update() -> None:
        update_target_critic(critic, slow, cfg.algo.critic.tau)
        train(fabric, cfg, world_model, actor, critic, slow, optimiser, moments, data, None, (ACT,))

    return update


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]  # as all of torch's modes
    """Notes the operands of every matrix product that is made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aten = torch.ops.aten
        if func.overloadpacket in {aten.mm, aten.bmm}:
            self.found.append(args[:2])
        elif func.overloadpacket in {aten.addmm, aten.addmm_, aten.baddbmm, aten.baddbmm_}:
            self.found.append(args[1:3])
        return func(*args, **(kwargs or {}))


def matrix(parts: dict[str, list[float]], precision: str = "fp32") -> Update:
    """The matrix products of one of our updates alone, in its order, each at its shape and strides."""
    update, products = robotrl({}, precision), _Products()
    update()
    with products:
        update()
    like: dict[tuple[Any, ...], Tensor] = {}

    def operand(x: Tensor) -> Tensor:
        """The same tensor for all of a shape, so that they wait in the cache where it is small enough."""
        key = (*x.shape, *x.stride(), x.dtype)
        if key not in like:
            like[key] = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype).normal_()
        return like[key]

    todo = [(operand(a), operand(b)) for a, b in products.found]
    results = {(a.shape, b.shape, a.dtype): torch.matmul(a, b) for a, b in todo}

    def products_alone() -> None:
        for a, b in todo:
            torch.matmul(a, b, out=results[a.shape, b.shape, a.dtype])

    return products_alone


ARMS: dict[str, Callable[[dict[str, list[float]]], Update]] = {
    "robotrl": robotrl, "robotrl_bf16": partial(robotrl, precision="bf16"), "sheeprl": sheeprl,
    "matrix": matrix, "matrix_bf16": partial(matrix, precision="bf16"),
}  # fmt: skip
"""Arm to what makes its update, and fills in the clocks of its parts, if it has any."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--arm", choices=sorted(ARMS), required=True)
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    opts = parser.parse_args(argv)
    torch.set_num_threads(opts.threads)
    torch.manual_seed(0)
    start = time.perf_counter()
    parts: dict[str, list[float]] = {}
    update = ARMS[opts.arm](parts)
    for _ in range(WARM_UP):
        update()
    ready, times = time.perf_counter() - start, []
    for _ in range(opts.updates):
        start = time.perf_counter()
        update()
        times.append(time.perf_counter() - start)
    each = {name: statistics.median(seconds[WARM_UP:]) for name, seconds in parts.items()}
    print(json.dumps({"seconds": statistics.median(times), "wall_s": sum(times), "before_s": ready, "parts": each}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
