"""Reading a LeRobot checkpoint as data: `config.json`, `policy_preprocessor.json` and safetensors, and nothing else.

LeRobot's own loader imports whatever Python class a processor's file names. Here a step is known by its registered
name, or the checkpoint is refused; so are pickled weights, adapters, and policy types that load code by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robotrl.policies.lerobot_config import TYPES
from robotrl.types import RobotRLError

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PRE, POST = "policy_preprocessor.json", "policy_postprocessor.json"
MAX_JSON, MAX_STATE = 1 << 20, 1 << 26
"""Bytes of a description, and of a step's statistics."""
IGNORED = {"to_batch_processor", "device_processor"}
"""Steps that have nothing to do here: rows come in batches, on the policy's device."""
NORMALISING = {"normalizer_processor", "unnormalizer_processor"}
WORDS = {"smolvla_new_line_processor", "tokenizer_processor", "pi05_prepare_state_tokenizer_processor_step"}
"""Steps that turn the task into tokens; LeRobot's own classes carry them out."""
RELATIVE = {"relative_actions_processor", "absolute_actions_processor"}
"""Allowed where they are switched off."""
MODES = ("IDENTITY", "MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10")
STATISTICS = ("mean", "std", "min", "max", "q01", "q10", "q90", "q99")


@dataclass(slots=True)
class Checkpoint:
    """What a checkpoint's files say."""

    root: Path
    config: dict[str, Any]
    """LeRobot's settings of the policy, with its `type`."""
    rename: dict[str, str] = field(default_factory=dict)
    """Names of features in the data to names of the policy's."""
    words: list[dict[str, Any]] = field(default_factory=list)
    """Steps of the task: their registered `name` and `config`, in their order."""
    modes: dict[str, str] = field(default_factory=dict)
    """How features of each type (`STATE`, `ACTION`, `VISUAL`) are normalised."""
    statistics: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Feature to statistic to values."""
    eps: float = 1e-8


def is_checkpoint(path: str | Path) -> bool:
    """Whether `path` looks like the folder of a LeRobot checkpoint."""
    root = Path(path)
    return (root / CONFIG).is_file() and not (root / "policy.json").is_file()


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read and check everything but the weights.

    Raises:
        RobotRLError: no checkpoint, a damaged one, or one that would have to run code.
    """
    root = Path(path)
    if not root.is_dir():
        raise RobotRLError(
            f"There is no folder {root}. policy.lerobot.path is the local folder of a LeRobot checkpoint; one from the "
            "Hugging Face hub has to be downloaded first: hf download <name> --local-dir <folder>."
        )
    config = _json(root / CONFIG)
    kind = config.get("type")
    if kind not in TYPES:
        raise RobotRLError(
            f"{root} is a LeRobot policy of type '{kind}', which RobotRL does not load: it knows {', '.join(TYPES)}."
        )
    if config.get("use_peft"):
        raise RobotRLError(f"{root} holds an adapter (PEFT), not a whole policy. Merge it into its base policy first.")
    if not (root / WEIGHTS).is_file():
        others = sorted(p.name for p in root.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"))
        there = f"only {others[0]}, a pickle, which can run code when it is read" if others else "nothing"
        raise RobotRLError(f"{root} has no {WEIGHTS}, {there}. Save the policy with save_pretrained().")
    found = Checkpoint(root, config)
    if not (root / PRE).is_file() or not (root / POST).is_file():
        raise RobotRLError(
            f"{root} has no {PRE} and {POST}, which hold its normalisation statistics. An old checkpoint gets them by "
            f"python -m lerobot.processor.migrate_policy_normalization --pretrained-path {root}"
        )
    for name in (PRE, POST):
        for step in _steps(_json(root / name), root / name):
            _take(found, step, root / name)
    return found


def _steps(data: Mapping[str, Any], file: Path) -> list[dict[str, Any]]:
    steps = data.get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise RobotRLError(f"{file} lists no steps, so it is not LeRobot's. Save the policy's processors again.")
    for step in steps:
        if "class" in step:
            raise RobotRLError(
                f"{file} names the Python class '{step['class']}'. LeRobot would import and run it; RobotRL never runs "
                "code that a checkpoint names. Use a checkpoint whose steps are registered ones of LeRobot."
            )
        known = IGNORED | NORMALISING | WORDS | RELATIVE | {"rename_observations_processor"}
        if step.get("registry_name") not in known:
            raise RobotRLError(
                f"{file} has the step '{step.get('registry_name')}', which RobotRL does not know. It carries out: "
                f"{', '.join(sorted(known))}."
            )
    return steps


def _take(found: Checkpoint, step: Mapping[str, Any], file: Path) -> None:
    """Note what one step says."""
    name, config = step["registry_name"], step.get("config") or {}
    if not isinstance(config, dict):
        raise RobotRLError(f"{file}: the settings of the step '{name}' are no mapping. Save the processors again.")
    if name == "rename_observations_processor":
        found.rename |= {str(k): str(v) for k, v in (config.get("rename_map") or {}).items()}
    elif name in WORDS:
        found.words.append({"name": name, "config": config})
    elif name in RELATIVE and config.get("enabled"):
        raise RobotRLError(
            f"{file.parent} predicts actions relative to the state (relative_actions_processor), which RobotRL does "
            "not carry out. Train it with use_relative_actions=false."
        )
    elif name in NORMALISING:
        modes = {str(k): str(v) for k, v in (config.get("norm_map") or {}).items()}
        strange = [mode for mode in modes.values() if mode not in MODES]
        if strange:
            raise RobotRLError(f"{file} normalises by '{strange[0]}'. RobotRL knows {', '.join(MODES)}.")
        found.modes |= modes
        found.eps = float(config.get("eps", found.eps))
        if step.get("state_file") is not None:
            for feature, values in _statistics(file, str(step["state_file"])).items():
                known = found.statistics.setdefault(feature, {})
                for statistic, value in values.items():
                    if statistic in known and not torch.equal(known[statistic], value):
                        raise RobotRLError(
                            f"{file.parent} normalises '{feature}' by one {statistic} and takes it back by another: "
                            f"its {PRE} and {POST} do not belong together. Save both processors of one policy."
                        )
                    known[statistic] = value


def _statistics(file: Path, name: str) -> dict[str, dict[str, Tensor]]:
    from safetensors.torch import load

    path = file.parent / name
    if Path(name).name != name or path.suffix != ".safetensors":
        raise RobotRLError(f"{file} keeps statistics in '{name}'; they must lie beside it as safetensors.")
    if not path.is_file() or path.stat().st_size > MAX_STATE:
        raise RobotRLError(f"{path} is missing or too large to be statistics. Save the policy's processors again.")
    try:
        tensors: dict[str, Tensor] = load(path.read_bytes())
    except Exception as error:
        raise RobotRLError(f"{path} is damaged: {error}. Save the policy's processors again.") from error
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        feature, _, statistic = key.rpartition(".")
        if statistic not in STATISTICS:
            continue  # counts, and whatever else is not normalised by
        if not bool(torch.isfinite(value.double()).all()):
            raise RobotRLError(
                f"{path}: the {statistic} of '{feature}' is not finite, so nothing can be normalised by it. Compute "
                "the statistics of the data set again."
            )
        found.setdefault(feature, {})[statistic] = value.float()
    return found


def read_weights(file: Path, model: torch.nn.Module) -> None:
    """Load safetensors into `model`, whose names and shapes they must have.

    Raises:
        RobotRLError: they do not, or the file is damaged.
    """
    from safetensors.torch import load_model

    try:
        missing, unexpected = load_model(model, file, strict=False)
    except Exception as error:
        raise RobotRLError(f"{file} does not fit its config.json: {str(error)[:300]}") from error
    if missing or unexpected:
        raise RobotRLError(
            f"{file} does not fit its config.json: missing {sorted(missing)[:3]}, too many {sorted(unexpected)[:3]}."
        )


def check_sizes(file: Path, expected: Mapping[str, Tensor]) -> None:
    """Compare the shapes in `file` with those of a model on the meta device, before memory is taken for either.

    Raises:
        RobotRLError: a tensor has another shape, or the file is none of safetensors.
    """
    from safetensors import safe_open

    try:
        with safe_open(file, framework="pt") as content:
            shapes = {name: content.get_slice(name).get_shape() for name in content.keys()}  # noqa: SIM118
    except Exception as error:
        raise RobotRLError(f"{file} is damaged: {error}") from error
    for name, shape in shapes.items():
        if name in expected and list(expected[name].shape) != shape:
            raise RobotRLError(
                f"{file} does not fit its config.json: '{name}' has the shape {shape}, the settings make it "
                f"{list(expected[name].shape)}."
            )
    larger = sum(t.numel() for t in expected.values()) - sum(torch.Size(s).numel() for s in shapes.values())
    if larger > max(1 << 20, sum(torch.Size(s).numel() for s in shapes.values())):
        raise RobotRLError(f"{file} does not fit its config.json, whose settings make a far larger policy.")


def _json(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MAX_JSON:
            raise RobotRLError(f"{file} is larger than 1 MB, which no settings are.")
        data = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise RobotRLError(f"{file} cannot be read: {error}. Is this the folder of a LeRobot checkpoint?") from error
    if not isinstance(data, dict):
        raise RobotRLError(f"{file} holds no settings. Is this the folder of a LeRobot checkpoint?")
    return data


__all__ = ["Checkpoint", "check_sizes", "is_checkpoint", "read_checkpoint", "read_weights"]
