"""RobotRL policies as LeRobot checkpoints."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from robotrl.data.schema import key_of
from robotrl.nets.network import is_image
from robotrl.policies.io import describe
from robotrl.policies.lerobot_parts import library
from robotrl.types import RobotRLError


def export_to_lerobot(policy: Any, out: str | Path) -> Path:
    """Write `policy` to the folder `out` so that LeRobot's own loader reads it.

    A policy of LeRobot's (`policy=lerobot`) becomes an ordinary checkpoint of its type. Any other one becomes a policy
    of the type `robotrl`, which LeRobot knows once `robotrl.policies.lerobot_plugin` is imported.

    Raises:
        RobotRLError: LeRobot is missing, the actions are discrete, or the folder holds something.
    """
    target = Path(out)
    if target.exists() and any(target.iterdir()):
        raise RobotRLError(f"{target} holds something already. Give a new folder.")
    library()
    target.mkdir(parents=True, exist_ok=True)
    model = _native(policy, target) if policy.config.kind == "lerobot" else _wrapped(policy)
    make = importlib.import_module("lerobot.policies.factory").make_pre_post_processors
    statistics = policy.statistics() if policy.config.kind == "lerobot" else None
    for part in (model, *make(model.config, dataset_stats=statistics)):
        part.save_pretrained(target)
    return target


def _native(policy: Any, target: Path) -> Any:
    """LeRobot's own policy inside; the language model's small files are put beside it."""
    for name, content in policy.files.items():
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_bytes(content)
    if hasattr(policy.made, "vlm_model_name"):
        policy.made.vlm_model_name = str((target / "vlm").absolute())
    return policy.model


def _wrapped(policy: Any) -> Any:
    """Behind LeRobot's interface, with the features by its names."""
    if policy.spec.action.kind != "continuous":
        raise RobotRLError(f"{policy.spec.id} has discrete actions, which LeRobot's policies do not have.")
    types = importlib.import_module("lerobot.configs.types")
    plugin = importlib.import_module("robotrl.policies.lerobot_plugin")
    inputs = {}
    for group in policy.obs_groups:
        array = policy.spec.obs[group]
        if array.dtype == "int64":
            continue  # the task, in words there
        kind = "VISUAL" if is_image(array) else "ENV" if group == "privileged" else "STATE"
        inputs[key_of(f"obs/{group}")] = types.PolicyFeature(types.FeatureType[kind], tuple(array.shape))
    size = 1
    for extent in policy.spec.action.shape:
        size *= extent
    config = plugin.RobotRLConfig(
        input_features=inputs,
        output_features={"action": types.PolicyFeature(types.FeatureType.ACTION, (size,))},
        device="cpu",
        push_to_hub=False,
        description=json.dumps(describe(policy)),
        chunk_size=getattr(policy, "chunk_size", 1),
        n_action_steps=getattr(policy, "execute_steps", 1),
    )
    model = plugin.RobotRLPolicy(config)
    model.policy.load_state_dict(policy.state_dict())
    return model.eval()


__all__ = ["export_to_lerobot"]
