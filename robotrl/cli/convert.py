"""`robotrl convert`: policies from LeRobot and for LeRobot."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from robotrl.configs.compose import read_config
from robotrl.envs.config import EnvConfig, build_env
from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.policies.io import load_policy, save_policy
from robotrl.policies.lerobot_config import LeRobotConfig
from robotrl.policies.lerobot_export import export_to_lerobot
from robotrl.types import RobotRLError

HELP = """robotrl convert policy_dir=<directory> to=lerobot|robotrl out=<new folder> [key=value ...]

  to=lerobot    a RobotRL policy (or run) as a checkpoint that LeRobot loads; see docs/policies/lerobot.md
  to=robotrl    a local LeRobot checkpoint as a RobotRL policy: evaluated, compared, recorded and trained like any other
    env=        the env it is to act in; features, cameras, sizes and action scale are compared with it
                env.pixels.cameras=[front,wrist] env.pixels.replace_state=false: where it reads pictures
    lerobot.rename={image/front: observation.images.camera1}    features of other names
    lerobot.settings.n_action_steps=8    LeRobot's settings    lerobot.vlm=<folder> its language model
No code that a checkpoint names is run.
"""
EXAMPLE = "robotrl convert policy_dir=runs/quick to=lerobot out=runs/quick-for-lerobot"


@dataclass(slots=True)
class ConvertConfig:
    """The keys of `robotrl convert`."""

    policy_dir: str = ""
    to: str = ""
    out: str = ""
    env: EnvConfig = field(default_factory=EnvConfig)
    lerobot: LeRobotConfig = field(default_factory=LeRobotConfig)


def run(argv: list[str]) -> int:
    """Convert, and say where to."""
    c = read_config(ConvertConfig(), argv, example="to=lerobot", shorthands={"env": "env.id"})
    if not c.policy_dir or not c.out or c.to not in ("lerobot", "robotrl"):
        raise RobotRLError(f"Give policy_dir=, out= and to=lerobot or to=robotrl, as in: {EXAMPLE}")
    if c.to == "lerobot":
        print(f"written to {export_to_lerobot(load_policy(c.policy_dir), c.out)}")
        print("LeRobot knows it after: import robotrl.policies.lerobot_plugin")
        return 0
    if not any(word.startswith(("env=", "env.id=")) for word in argv):
        raise RobotRLError("In which env shall it act? Give env=, as in env=tabletop/pick.")
    if Path(c.out).exists() and any(Path(c.out).iterdir()):
        raise RobotRLError(f"{c.out} holds something already. Give a new folder.")
    env = build_env(c.env, num_envs=1)
    try:
        checkpoint = replace(c.lerobot, path=c.policy_dir)
        policy = build_policy(PolicyConfig(kind="lerobot", lerobot=checkpoint), env.env_spec)  # type: ignore[attr-defined]
    finally:
        env.close()
    meta = {"env_config": asdict(c.env), "origin": str(Path(c.policy_dir).absolute())}
    print(f"written to {save_policy(policy, c.out, meta)}")
    return 0
