"""Milliseconds a chunk of LeRobot's ACT with a ResNet-18, at batch 1 on one thread, in a process of its own.

python -m benchmarks.manipulation.act_worker <repeats> [--smoke]

Prints a line of JSON: `ms`, one number a repeat, and `parameters`. The policy has random weights and LeRobot's default
sizes; it sees what a `tiny` VLA sees (proprioception and two 64x64 cameras) and is called through RobotRL's adapter,
normalisation included.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

import torch

from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.policies.lerobot_config import LeRobotConfig
from robotrl.types import ActionSpec, ArraySpec, EnvSpec, Obs

WARM_UP = 5
SMALL = {"dim_model": 32, "n_heads": 2, "dim_feedforward": 32}


def measure(repeats: int, *, cameras: Sequence[str] = ("front", "wrist"), smoke: bool = False) -> dict[str, object]:
    """Time so many chunks."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    obs = {"state": ArraySpec((32,)), **{f"image/{camera}": ArraySpec((3, 64, 64), "uint8") for camera in cameras}}
    spec = EnvSpec("tabletop/pick", obs, ActionSpec("continuous", (7,), (-1.0,) * 7, (1.0,) * 7))
    settings = {"chunk_size": 20, "n_action_steps": 10, **(SMALL if smoke else {})}
    policy = build_policy(
        PolicyConfig(kind="lerobot", lerobot=LeRobotConfig(type="act", settings=settings)), spec
    ).eval()
    seen: Obs = {"state": torch.randn(1, 32)}
    seen |= {f"image/{camera}": torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8) for camera in cameras}
    times = []
    for _ in range(WARM_UP + repeats):
        start = time.perf_counter()
        policy.act(seen, policy.initial_state(1), explore=False)
        times.append(1e3 * (time.perf_counter() - start))
    return {"ms": times[WARM_UP:], "parameters": sum(p.numel() for p in policy.parameters())}


def main(argv: Sequence[str]) -> int:
    print(json.dumps(measure(int(argv[0]), smoke="--smoke" in argv)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
