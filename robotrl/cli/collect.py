"""`robotrl collect`: record a policy's episodes as a data set."""

from __future__ import annotations

from typing import Any

from robotrl.cli.bar import episodes_bar
from robotrl.cli.trained import read_for_policy
from robotrl.configs.compose import read_config
from robotrl.runners.collecting import CollectConfig, collect_episodes
from robotrl.types import RobotRLError

HELP = """robotrl collect out=<folder> env=<id> policy_dir=<directory> | policy=expert | policy=random  [key=value ...]

Records a LeRobotDataset v3.0. The same command continues what was stopped; a larger episodes= lets it grow.

  episodes=10    how many the data set shall hold in the end
  policy_dir=    a policy or run directory; env= is then the env of its training unless you name one
  policy=        expert (scripted, for the envs that have one), random, or another registered kind without training
  success_only=false   keep only episodes that succeeded; attempts= is how often to try at most
  task=          the task in words; default: the env's instructions, else its name
  lossless=false  keep every pixel of pictures, for several times the bytes: what dac and ailboost need of them
  explore=false  act with the noise of training (an expert then varies its speed and path)
  expert.noise=0.15  of a tabletop expert: how far noise leads it off its way; expert.speed= expert.speed_variation=
  seed=0  num_envs=8  device=cpu  num_threads=  env.<key>=
Pictures are recorded where the env has them: env.pixels.cameras=[front,wrist] env.pixels.replace_state=false
"""
EXAMPLE = "robotrl collect env=InvertedPendulum-v5 policy_dir=runs/quick episodes=4 out=runs/demos"


def run(argv: list[str]) -> int:
    """Record, with a bar, and say what there is."""
    words: dict[str, Any] = {"example": "episodes=100 out=runs/demos", "shorthands": {"env": "env.id"}}
    asked = read_config(CollectConfig(), argv, **words)
    if not asked.out:
        raise RobotRLError(f"Where to? Give out=, as in: {EXAMPLE}")
    if bool(asked.policy_dir) == bool(asked.policy):
        raise RobotRLError(f"Whose episodes? Give either policy_dir= or policy=, as in: {EXAMPLE}")
    if asked.policy_dir:
        asked = read_for_policy(asked, asked.policy_dir, argv, **words)
    elif not any(word.startswith(("env=", "env.id=")) for word in argv):
        raise RobotRLError(f"In which env? Give env=, as in: {EXAMPLE}")
    with episodes_bar(asked.out) as progress:
        text = collect_episodes(asked, progress)
    print(text)
    return 130 if "Stopped;" in text else 0
