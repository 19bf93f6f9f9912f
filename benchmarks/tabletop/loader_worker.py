"""Frames a second of one loader on one data set, in a process of its own; also makes LeRobot's data set and compares.

python -m benchmarks.tabletop.loader_worker measure <arm> <pattern> <data set> <cache folder> <seconds> <seed>
python -m benchmarks.tabletop.loader_worker rewrite <data set> <new data set, written by LeRobot>
python -m benchmarks.tabletop.loader_worker compare <data set> <rows>
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch

BATCH = 32
WINDOW = (-1, 0)
"""Steps of a window, as a policy with two observations reads them."""
CHUNK = 8
CAMERAS = ("front", "wrist")


def lerobot(root: Path, *, windows: bool) -> Any:
    """LeRobot's own loader with its default decoder; pictures as uint8, which spares it a conversion."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    deltas = None
    if windows:
        fps = json.loads((root / "meta/info.json").read_text())["fps"]
        keys = ["observation.state", *(f"observation.images.{c}" for c in CAMERAS)]
        deltas = {key: [d / fps for d in WINDOW] for key in keys} | {"action": [d / fps for d in range(CHUNK)]}
    return LeRobotDataset("robotrl/loader", root=root, delta_timestamps=deltas, return_uint8=True)


def lerobot_batches(root: Path, workers: int, seed: int, *, windows: bool) -> Iterator[int]:
    """Frames of each batch, in random order, again and again, by PyTorch's data loader."""
    data = lerobot(root, windows=windows)
    generator = torch.Generator().manual_seed(seed)
    loader: Any = torch.utils.data.DataLoader(
        data,
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=generator,
    )
    while True:
        for batch in loader:
            yield sum(batch[f"observation.images.{c}"].flatten(0, -4).shape[0] for c in CAMERAS)


def robotrl_batches(root: Path, cache: Path | None, seed: int, *, windows: bool) -> Iterator[int]:
    """Frames of each batch that `EpisodeDataset` serves, drawn at random."""
    from robotrl.replay import EpisodeDataset
    from robotrl.types import Part

    groups = ["state", *(f"image/{c}" for c in CAMERAS)]
    replay = EpisodeDataset(root, groups=groups, seed=seed, cache=cache, num_threads=2)
    asked: dict[str, Any] = {"obs": WINDOW, "action": range(CHUNK)} if windows else {"obs": (0,)}
    part = Part("demos", "sequence", BATCH, windows=asked)
    for batch in replay.batches({"x": part}, 1 << 40):
        yield sum(batch["x"][f"obs/image/{c}"].flatten(0, -4).shape[0] for c in CAMERAS)


def measure(arm: str, pattern: str, root: Path, cache: Path, seconds: float, seed: int) -> dict[str, float]:
    """Frames and seconds of whole batches, after some that fill caches and open files."""
    windows = pattern == "windows"
    makers: dict[str, Callable[[], Iterator[int]]] = {
        "robotrl": lambda: robotrl_batches(root, None, seed, windows=windows),
        "robotrl_cache": lambda: robotrl_batches(root, cache, seed, windows=windows),
        "lerobot": lambda: lerobot_batches(root, 0, seed, windows=windows),
        "lerobot_2_workers": lambda: lerobot_batches(root, 2, seed, windows=windows),
    }
    batches = makers[arm]()
    warm = time.perf_counter() + 0.4 * seconds
    next(batches)
    while time.perf_counter() < warm:
        next(batches)
    start, frames = time.perf_counter(), 0
    while time.perf_counter() < start + seconds:
        frames += next(batches)
    return {"frames": frames, "seconds": time.perf_counter() - start}


def rewrite(source: Path, target: Path) -> dict[str, float]:
    """The same steps as a data set that LeRobot's own recorder writes, with its default video encoder (AV1)."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from robotrl.data.dataset import Dataset
    from robotrl.data.frames import Frames

    data = Dataset(source)
    names = {"obs/state": "observation.state", "action": "action"}
    cameras = {f"obs/image/{c}": f"observation.images.{c}" for c in CAMERAS}
    features = {key: data.features[key].to_json() for key in [*names.values(), *cameras.values()]}
    for key, feature in features.items():
        features[key] = {"dtype": feature["dtype"], "shape": tuple(feature["shape"]), "names": feature["names"]}
    columns, frames = data.read(names), Frames(data, list(cameras))
    theirs = LeRobotDataset.create(
        "robotrl/loader", fps=int(data.fps), features=features, root=target, streaming_encoding=True
    )
    for episode in data.episodes:
        rows = np.arange(episode.start, episode.start + episode.length)
        pictures = frames.read(dict.fromkeys(cameras, rows))
        for i, row in enumerate(rows):
            step: dict[str, Any] = {key: columns[name][row] for name, key in names.items()}
            step |= {key: pictures[name][i].transpose(1, 2, 0) for name, key in cameras.items()}
            theirs.add_frame({**step, "task": episode.tasks[0]})
        theirs.save_episode()
    theirs.finalize()
    return {"episodes": len(data.episodes)}


def compare(root: Path, count: int) -> dict[str, float]:
    """How many of the numbers in random frames differ between the two loaders."""
    from robotrl.data.dataset import Dataset
    from robotrl.data.frames import Frames

    theirs, data = lerobot(root, windows=False), Dataset(root)
    rows = np.random.default_rng(0).choice(data.total_frames, min(count, data.total_frames), replace=False)
    ours = Frames(data, [f"obs/image/{c}" for c in CAMERAS]).read({f"obs/image/{c}": rows for c in CAMERAS})
    states = data.read(["obs/state"])["obs/state"]
    different = 0
    for i, row in enumerate(rows.tolist()):
        item = theirs[row]
        different += int((item["observation.state"].numpy() != states[row]).sum())
        for camera in CAMERAS:
            different += int((item[f"observation.images.{camera}"].numpy() != ours[f"obs/image/{camera}"][i]).sum())
    return {"frames": 2 * len(rows), "different": different}


def main(argv: list[str]) -> int:
    what, *words = argv
    if what == "measure":
        arm, pattern, root, cache, seconds, seed = words
        found = measure(arm, pattern, Path(root), Path(cache), float(seconds), int(seed))
    elif what == "rewrite":
        found = rewrite(Path(words[0]), Path(words[1]))
    else:
        found = compare(Path(words[0]), int(words[1]))
    print(json.dumps(found), flush=True)
    os._exit(0)  # without waiting for a loader's workers


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
