"""`robotrl teleop`: move a robot by hand and record it."""

from __future__ import annotations

from robotrl.configs.compose import read_config
from robotrl.runners.teleop import TeleopConfig, teleoperate
from robotrl.types import RobotRLError

HELP = """robotrl teleop env=<id> out=<folder> [key=value ...]

Records your own episodes as a LeRobotDataset v3.0, like `robotrl collect`. Any env whose actions are numbers within
bounds. Enter ends an episode and keeps it, Backspace drops it, Esc stops; each begins with your first key.

  device=keyboard   window (shows the robot), terminal (no display needed) or gamepad; keyboard is a window if it can
  keys=[ws,ad,eq,ik,jl,uo,xz]   by number of the action: the key that raises it and the one that lowers it
  axes=["'-1'","'-0'"]          the same for a gamepad's sticks; bumpers move the last number
  script=<file>     play a text instead: a line `20 w e` holds w and e for 20 steps, `1 enter` ends an episode
  episodes=10  task=  speed=0.5  camera=  seed=0  env.<key>=
"""
EXAMPLE = "robotrl teleop env=tabletop/reach out=runs/by-hand device=terminal episodes=3"


def run(argv: list[str]) -> int:
    """Record, and say what there is."""
    config = read_config(TeleopConfig(), argv, example="episodes=3 out=runs/by-hand", shorthands={"env": "env.id"})
    if not config.out:
        raise RobotRLError(f"Where to? Give out=, as in: {EXAMPLE}")
    if not any(word.startswith(("env=", "env.id=")) for word in argv):
        raise RobotRLError(f"In which env? Give env=, as in: {EXAMPLE}")
    print(teleoperate(config))
    return 0
