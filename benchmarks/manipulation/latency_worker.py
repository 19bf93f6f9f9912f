"""One process that times an inference for one observation, on one thread, and prints one JSON object.

python -m benchmarks.manipulation.latency_worker vla|wam|act [chunk_size] [repeats]
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.manipulation import cloning
from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.policies.vla_config import VLAConfig, WAMConfig
from robotrl.types import ActionSpec, ArraySpec, EnvSpec, Obs

WORDS = 8
"""Of the instruction."""
PICTURES = {f"image/{camera}": ArraySpec((3, 64, 64), "uint8") for camera in cloning.CAMERAS}
SPEC = EnvSpec(
    "tabletop/pick",
    {"state": ArraySpec((32,)), "instruction": ArraySpec((20,), "int64"), **PICTURES},
    ActionSpec("continuous", (7,), (-1.0,) * 7, (1.0,) * 7),
)


def observation() -> Obs:
    """One, made up: what it shows makes no difference to the time."""
    words = torch.zeros(1, 20, dtype=torch.int64)
    words[0, :WORDS] = torch.arange(2, 2 + WORDS)
    pictures = {name: torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8) for name in PICTURES}
    return {"state": torch.randn(1, 32), "instruction": words, **pictures}


def policy(kind: str, chunk_size: int) -> Any:
    """An untrained one: weights make no difference to the time either."""
    vla = VLAConfig(chunk_size=chunk_size, execute_steps=chunk_size // 2)
    wam = WAMConfig(camera="image/front", future_steps=[chunk_size // 2, chunk_size])
    return build_policy(PolicyConfig(kind=kind, vla=vla, wam=wam), SPEC).eval()


def act() -> tuple[Callable[[], Any], int]:
    """LeRobot's ACT with its ResNet-18, as many actions a chunk, and its number of parameters."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy

    cameras = {f"observation.images.{c}": PolicyFeature(FeatureType.VISUAL, (3, 64, 64)) for c in cloning.CAMERAS}
    config = ACTConfig(
        chunk_size=12, n_action_steps=12, pretrained_backbone_weights=None, device="cpu",
        input_features={"observation.state": PolicyFeature(FeatureType.STATE, (32,)), **cameras},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (7,))},
    )  # fmt: skip
    model = ACTPolicy(config).eval()
    batch = {"observation.state": torch.randn(1, 32), **{name: torch.rand(1, 3, 64, 64) for name in cameras}}
    return lambda: model.predict_action_chunk(dict(batch)), sum(p.numel() for p in model.parameters())


def timed(call: Callable[[], Any], repeats: int) -> list[float]:
    """Milliseconds of each call, after some that do not count."""
    for _ in range(5):
        call()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        found.append(1000.0 * (time.perf_counter() - start))
    return found


@torch.no_grad()
def main() -> int:
    kind, chunk_size, repeats = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    result: dict[str, Any] = {}
    if kind == "act":
        call, result["parameters"] = act()
        result["chunk"] = timed(call, repeats)
    else:
        made, obs = policy(kind, chunk_size), observation()
        result["parameters"] = sum(p.numel() for p in made.parameters())
        seen = made.prefix(obs)
        result["tokens"] = seen.keys[0].shape[2] + chunk_size
        result["chunk"] = timed(lambda: made.infer(obs, None, explore=False), repeats)
        if kind == "wam":
            result["tokens_future"] = len(made.future_steps) * made.places
            result["joint"] = timed(lambda: made.imagine(obs), repeats)
            same = []
            for seed in range(repeats):
                torch.manual_seed(seed)
                alone = made.infer(obs, None, explore=True)[0]
                torch.manual_seed(seed)
                same.append(float(torch.equal(alone, made.imagine(obs, explore=True)[0])))
            result["identical"] = same
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
