"""Records like `robotrl collect` and notes in a file how many episodes `save` has returned for; opens with LeRobot.

python -m benchmarks.tabletop.record_worker collect <file of notes> <words of robotrl collect ...>
python -m benchmarks.tabletop.record_worker open <data set>
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"


def collect(notes: Path, words: list[str]) -> int:
    """The program itself, with a note after each `save_all` that has returned."""
    from robotrl.cli import main as robotrl
    from robotrl.data import writer

    class Noting(writer.DatasetWriter):
        def save_all(self, episodes: Sequence[writer.Episode]) -> list[int]:
            saved = super().save_all(episodes)
            with notes.open("a") as file:
                file.write(f"{self.num_episodes} {time.time()}\n")
            return saved

    from robotrl.runners import collecting

    setattr(collecting, "DatasetWriter", Noting)  # noqa: B010 - the program itself, with one ear in it
    with notes.open("a") as file:
        file.write(f"0 {time.time()}\n")
    return robotrl(["collect", *words])


def open_with_lerobot(root: Path) -> dict[str, float]:
    """Episodes and steps that LeRobot's loader counts, once it has read the first and the last step of each episode."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    data = LeRobotDataset("robotrl/record", root=root, return_uint8=True)
    for episode in data.meta.episodes:
        for row in (episode["dataset_from_index"], episode["dataset_to_index"] - 1):
            item = data[row]
            if int(item["episode_index"]) != episode["episode_index"] or item["observation.images.front"].ndim != 3:
                raise RuntimeError(f"step {row} is not of episode {episode['episode_index']}")
    return {"episodes": data.num_episodes, "steps": data.num_frames}


def main(argv: list[str]) -> int:
    what, place, *words = argv
    if what == "collect":
        return collect(Path(place), words)
    print(json.dumps(open_with_lerobot(Path(place))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
