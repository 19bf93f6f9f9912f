"""`robotrl preflight`: does a policy belong to an env and to a data set?"""

from __future__ import annotations

from dataclasses import dataclass, field

from robotrl.cli.trained import read_for_policy
from robotrl.configs.compose import read_config
from robotrl.envs.config import EnvConfig, build_env
from robotrl.policies.io import load_policy
from robotrl.runners.preflight import preflight
from robotrl.types import RobotRLError

HELP = """robotrl preflight policy_dir=<directory> [env=<id>] [data=<data set>] [key=value ...]

  policy_dir=   a policy directory, or a run directory
  env=          compare with this env; default: the one of the policy's training; env.<key>= changes one of its settings
  data=         compare with this LeRobotDataset too

Groups, cameras, picture sizes, dimension and scaling of actions, frame rate, and the statistics that numbers are
normalised by have to be alike; every difference is one sentence, and the exit status is then 2.
"""
EXAMPLE = "robotrl preflight policy_dir=runs/quick"


@dataclass(slots=True)
class PreflightConfig:
    """The keys of `robotrl preflight`."""

    policy_dir: str = ""
    env: EnvConfig = field(default_factory=EnvConfig)
    data: str | None = None


def run(argv: list[str]) -> int:
    """Compare, and say what fits."""
    words = {"example": "policy_dir=runs/x/policy/best", "shorthands": {"env": "env.id"}}
    asked = read_config(PreflightConfig(), argv, **words)  # type: ignore[arg-type]
    if not asked.policy_dir:
        raise RobotRLError(f"Which policy? Give policy_dir=, as in: {EXAMPLE}")
    c = read_for_policy(asked, asked.policy_dir, argv, **words)  # type: ignore[arg-type]
    env = build_env(c.env, num_envs=1)
    try:
        lines = preflight(load_policy(c.policy_dir), env=env.env_spec, data=c.data)  # type: ignore[attr-defined]
    finally:
        env.close()
    print("\n".join(f"fits: {line}" for line in lines))
    return 0
