"""`robotrl play`: watch a task of the tabletop suite being done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robotrl.configs.compose import read_config
from robotrl.envs import make_vec
from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.policies.io import load_policy
from robotrl.registry import nearest
from robotrl.runners.media import write_video
from robotrl.runners.play import Played, frames, has_display, play, watch
from robotrl.types import RobotRLError

HELP = """robotrl play task=<name> [key=value ...]

  task=         a task of the tabletop suite: `robotrl list tasks`
  policy_dir=   play a saved policy; default: the task's scripted expert
  out=          the film; default: <task>.mp4 here
  viewer=       true: a window instead of a film; default: a window where there is a display and no out= is given
  camera=       front or wrist; default: from beside the table
  seed=0  noise=false  height=360  width=480
"""
EXAMPLE = "robotrl play task=stack out=stack.mp4"


@dataclass(slots=True)
class PlayConfig:
    """The keys of `robotrl play`."""

    task: str = ""
    policy_dir: str | None = None
    out: str | None = None
    viewer: bool | None = None
    camera: str | None = None
    seed: int = 0
    noise: bool = False
    """Whether the policy explores: the expert moves with noise and at a speed of its own."""
    height: int = 360
    width: int = 480


def run(argv: list[str]) -> int:
    """Play one episode and say how it went."""
    from robotrl.envs.tabletop.tasks import TASKS

    c = read_config(PlayConfig(), argv, example="task=stack")
    name = c.task.removeprefix("tabletop/")
    if name not in TASKS:
        what = f"Unknown task '{name}'.{nearest(name, list(TASKS))}" if name else "Which task?"
        raise RobotRLError(f"{what} The tasks are: {', '.join(TASKS)}. As in: {EXAMPLE}")
    if min(c.height, c.width) < 16 or c.height % 2 or c.width % 2:
        raise RobotRLError(f"A film of {c.width}x{c.height} cannot be made: give even sizes of at least 16.")
    env: Any = make_vec(f"tabletop/{name}", num_envs=1, num_threads=1)
    try:
        policy: Any = load_policy(c.policy_dir) if c.policy_dir else build_policy(PolicyConfig("expert"), env.env_spec)
        policy.check_env(env.env_spec)
        played = Played()
        episode = play(policy, env, played, seed=c.seed, explore=c.noise)
        if c.viewer or (c.viewer is None and c.out is None and has_display()):
            watch(episode, env.model, env.copy_state, env.new_data(), 1.0 / env.env_spec.control_hz)
        else:
            pictures = frames(episode, height=c.height, width=c.width, camera=c.camera)
            print(f"written to {write_video(Path(c.out or f'{name}.mp4'), pictures, env.env_spec.control_hz)}")
        said = f'"{env.instructions[0]}"'
        print(f"{said}: {'done' if played.success else 'not done'} after {played.seconds:.1f} s")
    finally:
        env.close()
    return 0
