"""The demonstrations that the suite `manipulation` learns from: the scripted experts of four tasks, seen and told.

python -m benchmarks.manipulation.demos [--smoke]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks import command, lib

TASKS = ("pick", "place", "open_drawer", "press")
"""Three name a colour among distractors; the drawer stands alone."""
EPISODES = 100
NOISE = 0.2
"""Of the expert, as a share of its motion: the data are to show how errors are made good."""


def recorded(*, smoke: bool = False, tasks: Sequence[str] = TASKS, episodes: int = EPISODES) -> Path:
    """The folder with a data set of each task, recorded where they are missing.

    Successes only, held-out colours left out, 64x64 pictures of both cameras; each episode has a speed of its own and
    noise on its motion, and what the expert meant stands beside what it did.
    """
    folder = lib.WORK / ("smoke" if smoke else ".") / "manipulation" / "demos"
    for task in tasks:
        command.execute(
            [
                *command.ROBOTRL,
                "collect",
                f"env=tabletop/{task}",
                "policy=expert",
                "explore=true",
                f"expert.noise={NOISE}",
                "success_only=true",
                "num_envs=10",
                f"episodes={2 if smoke else episodes}",
                "seed=0",
                "env.options.split=train",
                "env.pixels.cameras=[front,wrist]",
                "env.pixels.replace_state=false",
                "env.pixels.height=64",
                "env.pixels.width=64",
                f"out={folder / task}",
            ]
        )
    return folder


if __name__ == "__main__":
    import sys

    print(recorded(smoke="--smoke" in sys.argv))
