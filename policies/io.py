"""A policy as a directory: `policy.json` (configuration, env specification, origin) and `model.safetensors`.

Loading runs no code from the directory: the kind is looked up among installed policies, weights are safetensors.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robotrl.policies import build_policy
from robotrl.policies.config import PlannerConfig, PolicyConfig
from robotrl.policies.lerobot_config import LeRobotConfig
from robotrl.policies.stochastic import StochasticPolicy
from robotrl.policies.vla_config import VLAConfig, WAMConfig
from robotrl.types import EnvSpec, RobotRLError

FORMAT_VERSION = 1
DESCRIPTION, WEIGHTS = "policy.json", "model.safetensors"
_MAX_JSON = 1 << 20
_PARTS: dict[str, Any] = {"planner": PlannerConfig, "lerobot": LeRobotConfig, "vla": VLAConfig, "wam": WAMConfig}


def save_policy(
    policy: StochasticPolicy,
    path: str | Path,
    meta: dict[str, Any] | None = None,
    beside: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> Path:
    """Write `policy` to the directory `path`, replacing what is there file by file, atomically.

    Args:
        policy: the policy; its config, spec and weights are saved.
        path: directory, made if missing.
        meta: JSON-ready facts about its origin (run, env steps, evaluation).
        beside: further files of tensors, by name: `read_beside` reads them, acting does not need them.
    """
    from safetensors.torch import save

    directory = Path(path)
    directory.mkdir(parents=True, exist_ok=True)
    description: dict[str, Any] = {"format_version": FORMAT_VERSION, **describe(policy), "meta": meta or {}}
    description["checksum"] = _checksum_of_json(description)
    for name, content in getattr(policy, "files", {}).items():  # what is needed to build it
        (directory / name).parent.mkdir(exist_ok=True)
        _replace(directory / name, content)
    # Each file vouches for itself, so a crash between two leaves files that load.
    states = {f"{name}.safetensors": state for name, state in (beside or {}).items()} | {WEIGHTS: policy.state_dict()}
    for file, state in states.items():
        tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
        _replace(directory / file, save(tensors, {"checksum": _checksum(tensors)}))
    _replace(directory / DESCRIPTION, json.dumps(description, indent=2).encode())
    return directory


def load_policy(path: str | Path) -> StochasticPolicy:
    """Read a policy directory; also a run directory, of which it takes `policy/final`, else `policy/best`.

    The policy is built once on PyTorch's meta device, which allocates nothing, and compared with what the weights' file
    holds; so the size of what is allocated is that of the file. The global random streams stay as they are.

    Raises:
        RobotRLError: nothing there, a newer format, or files that are damaged or do not fit together.
    """
    directory = find_policy(path)
    with _readable(directory):
        data = _read_description(directory)
        config, spec = _policy_config(data["config"]), EnvSpec.from_json(data["env"])
        if (directory / "vlm").is_dir():
            config.lerobot.vlm = str(directory / "vlm")
        with torch.device("meta"):
            expected = build_policy(config, spec).state_dict()
        weights = _read_weights(directory / WEIGHTS, expected)
        with torch.random.fork_rng(devices=[]):
            policy = build_policy(config, spec)
        policy.load_state_dict(weights)
    policy.eval()
    return policy


def read_beside(path: str | Path, name: str, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that were saved as `name` beside the policy in `path`, once they are known to be like `expected`.

    Raises:
        RobotRLError: there are none of that name, or they are damaged or of other names or shapes.
    """
    directory = find_policy(path)
    if not (directory / f"{name}.safetensors").is_file():
        raise RobotRLError(
            f"There is no {name}.safetensors beside the policy in {directory}: its learner has none, or it was saved "
            "by an older RobotRL. Train it again, or name another policy."
        )
    with _readable(directory):
        return _read_weights(directory / f"{name}.safetensors", expected)


def describe(policy: StochasticPolicy) -> dict[str, Any]:
    """What `from_description` builds the same policy of, but for its weights; JSON-ready."""
    return {"config": asdict(policy.config), "env": policy.spec.to_json()}


def from_description(data: Mapping[str, Any]) -> StochasticPolicy:
    """An untrained policy like the one that `describe` was called with; no code that it names is run.

    Raises:
        RobotRLError: it names what this RobotRL does not know.
    """
    return build_policy(_policy_config(data["config"]), EnvSpec.from_json(data["env"]))


def find_policy(path: str | Path) -> Path:
    """The policy directory that `path` means: itself, or `policy/final` or `policy/best` of a run directory."""
    root = Path(path)
    for candidate in (root, root / "policy" / "final", root / "policy" / "best", root / "final", root / "best"):
        if (candidate / DESCRIPTION).is_file():
            return candidate
    if (root / "config.json").is_file() and (root / WEIGHTS).is_file():
        raise RobotRLError(
            f"{root} looks like a LeRobot checkpoint. Make it a RobotRL policy first: "
            f"robotrl convert policy_dir={root} to=robotrl env=<id> out=<new folder>"
        )
    raise RobotRLError(
        f"There is no policy in {root}: no policy.json in it, in policy/final or in policy/best. "
        "Give a policy directory or the directory of a run that has saved one."
    )


def policy_meta(path: str | Path) -> dict[str, Any]:
    """What was saved about the policy's origin.

    Raises:
        RobotRLError: nothing there, or `policy.json` is damaged or foreign.
    """
    directory = find_policy(path)
    with _readable(directory):
        meta: dict[str, Any] = _read_description(directory)["meta"]
    return meta


@contextmanager
def _readable(directory: Path) -> Iterator[None]:
    """Whatever goes wrong while reading means that the files are damaged or foreign."""
    try:
        yield
    except RobotRLError:
        raise
    except Exception as error:
        raise RobotRLError(
            f"{directory} is not a readable RobotRL policy: {error}. Load another one, for example policy/best or "
            "policy/final of the run."
        ) from error


def _read_description(directory: Path) -> dict[str, Any]:
    file = directory / DESCRIPTION
    if file.stat().st_size > _MAX_JSON:
        raise ValueError(f"{DESCRIPTION} is larger than 1 MB")
    data: dict[str, Any] = json.loads(file.read_bytes())
    if not isinstance(data, dict) or not isinstance(data.get("format_version"), int):
        raise ValueError(f"{DESCRIPTION} has no format_version")
    if data["format_version"] > FORMAT_VERSION:
        raise RobotRLError(
            f"{directory} was written by a newer RobotRL (policy format {data['format_version']}, "
            f"this one reads up to {FORMAT_VERSION}). Upgrade RobotRL."
        )
    if data.pop("checksum", None) != _checksum_of_json(data):
        raise ValueError(f"{DESCRIPTION} does not match its checksum, so it was damaged or changed by hand")
    return data


def _read_weights(file: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in `file`, once names, shapes and dtypes are known to be those of `expected`."""
    from safetensors import safe_open
    from safetensors.torch import load

    with safe_open(file, framework="pt") as content:
        names, checksum = set(content.keys()), (content.metadata() or {}).get("checksum")
        if names != expected.keys():
            raise ValueError(f"{file.name} has other tensors than the policy: {sorted(names ^ expected.keys())[:4]}")
        for name, like in expected.items():
            if content.get_slice(name).get_shape() != list(like.shape):
                raise ValueError(f"the tensor '{name}' has another shape than the policy's {list(like.shape)}")
    tensors: dict[str, Tensor] = load(file.read_bytes())
    if _checksum(tensors) != checksum:
        raise ValueError(f"{file.name} does not match its checksum, so it was damaged")
    return tensors


def _checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _checksum_of_json(data: dict[str, Any]) -> str:
    plain = json.loads(json.dumps(data))  # as it is read back: keys are strings, tuples are lists
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _policy_config(data: dict[str, Any]) -> PolicyConfig:
    known = {f.name for f in fields(PolicyConfig)}
    unknown = sorted(set(data) - known)
    if unknown:
        raise RobotRLError(
            f"The saved policy has settings that this RobotRL does not know: {unknown}. Upgrade RobotRL."
        )
    parts = {}
    for name, part in _PARTS.items():
        values = data.get(name, {})
        unknown = sorted(set(values) - {f.name for f in fields(part)})
        if unknown:
            raise RobotRLError(
                f"The saved policy has settings of its {name} that this RobotRL does not know: {unknown}. "
                "Upgrade RobotRL."
            )
        parts[name] = part(**values)
    config = PolicyConfig(**data | parts)
    if any(
        name is not None for name in (config.vla.backbone, config.lerobot.path, config.lerobot.vlm)
    ):  # what is read is never chosen by a file either
        raise ValueError("it names a folder to read weights from, which saved policies do not")
    if ":" in config.kind:  # an import string: what is imported is never chosen by a file
        raise RobotRLError(
            f"The saved policy is of the kind '{config.kind}', which is not registered. Install the package that "
            "registers it (entry point group robotrl.policies) and save the policy under its registered name."
        )
    return config


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
