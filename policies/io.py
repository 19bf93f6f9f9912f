"""A policy as a directory: `policy.json` (configuration, env specification, origin) and `model.safetensors`.

Loading runs no code from the directory: the kind is looked up among installed policies, weights are safetensors.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.policies.stochastic import StochasticPolicy
from robotrl.types import EnvSpec, RobotRLError

FORMAT_VERSION = 1
_MAX_JSON = 1 << 20


def save_policy(policy: StochasticPolicy, path: str | Path, meta: dict[str, Any] | None = None) -> Path:
    """Write `policy` to the directory `path`, replacing what is there file by file, atomically.

    Args:
        policy: the policy; its config, spec and weights are saved.
        path: directory, made if missing.
        meta: JSON-ready facts about its origin (run, env steps, evaluation).
    """
    from safetensors.torch import save

    directory = Path(path)
    directory.mkdir(parents=True, exist_ok=True)
    description = {
        "format_version": FORMAT_VERSION,
        "config": asdict(policy.config),
        "env": policy.spec.to_json(),
        "meta": meta or {},
    }
    tensors = {key: value.detach().cpu().clone() for key, value in policy.state_dict().items()}
    _replace(directory / "model.safetensors", save(tensors))
    _replace(directory / "policy.json", json.dumps(description, indent=2).encode())
    return directory


def load_policy(path: str | Path) -> StochasticPolicy:
    """Read a policy directory; also a run directory, of which it takes `policy/final`, else `policy/best`.

    Raises:
        RobotRLError: nothing there, a newer format, or files that do not fit together.
    """
    from safetensors.torch import load_file

    directory = find_policy(path)
    try:
        if (directory / "policy.json").stat().st_size > _MAX_JSON:
            raise ValueError("policy.json is larger than 1 MB")
        data = json.loads((directory / "policy.json").read_text())
        if not isinstance(data, dict) or "format_version" not in data:
            raise ValueError("policy.json has no format_version")
        if data["format_version"] > FORMAT_VERSION:
            raise RobotRLError(
                f"{directory} was written by a newer RobotRL (policy format {data['format_version']}, "
                f"this one reads up to {FORMAT_VERSION}). Upgrade RobotRL."
            )
        config = _policy_config(data["config"])
        policy = build_policy(config, EnvSpec.from_json(data["env"]))
        policy.load_state_dict(load_file(directory / "model.safetensors"))
    except RobotRLError:
        raise
    except Exception as error:  # anything else means that the files are damaged or foreign
        raise RobotRLError(
            f"{directory} is not a readable RobotRL policy: {error}. Load another one, for example policy/best or "
            "policy/final of the run."
        ) from error
    policy.eval()
    return policy


def find_policy(path: str | Path) -> Path:
    """The policy directory that `path` means: itself, or `policy/final` or `policy/best` of a run directory."""
    root = Path(path)
    for candidate in (root, root / "policy" / "final", root / "policy" / "best", root / "final", root / "best"):
        if (candidate / "policy.json").is_file():
            return candidate
    raise RobotRLError(
        f"There is no policy in {root}: no policy.json in it, in policy/final or in policy/best. "
        "Give a policy directory or the directory of a run that has saved one."
    )


def policy_meta(path: str | Path) -> dict[str, Any]:
    """What was saved about the policy's origin."""
    meta: dict[str, Any] = json.loads((find_policy(path) / "policy.json").read_text())["meta"]
    return meta


def _policy_config(data: dict[str, Any]) -> PolicyConfig:
    known = {f.name for f in fields(PolicyConfig)}
    unknown = sorted(set(data) - known)
    if unknown:
        raise RobotRLError(
            f"The saved policy has settings that this RobotRL does not know: {unknown}. Upgrade RobotRL."
        )
    config = PolicyConfig(**data)
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
