"""Frames a second of `EpisodeDataset` against LeRobot's own loader, on the same data sets, with the same pixels.

python -m benchmarks.tabletop.loader_vs_lerobot
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks import command
from benchmarks.targets import every, ratio

REPEATS = 5
DATA = {
    "ours": "recorded by robotrl collect (H.264)",
    "lerobots": "the same steps written by LeRobot (AV1, its default)",
}
PATTERNS = {"single": "one observation", "windows": "two observations and a chunk of eight actions"}
ARMS = ("robotrl", "robotrl_cache", "lerobot", "lerobot_2_workers")
MODULE = "benchmarks.tabletop.loader_worker"
TARGET = every(
    [
        ratio(f"{ours}/{data}/{pattern}", f"{theirs}/{data}/{pattern}", ">=", bound, n=REPEATS)
        for ours, bound in (("robotrl", 2.0), ("robotrl_cache", 10.0))
        for theirs in ("lerobot", "lerobot_2_workers")
        for data in DATA
        for pattern in PATTERNS
    ]
)
NOTE = (
    "Two cameras of 128x128 pixels, random batches of 32 samples as uint8. `ours` is a data set recorded by robotrl "
    "collect (H.264), `lerobots` the same steps written by LeRobot's recorder with its defaults (AV1). `single`: one "
    "observation; `windows`: two observations and eight actions. LeRobot 0.6.1 with torchcodec under PyTorch's data "
    "loader, in the process and with two workers; EpisodeDataset in one process with two decoding threads, without and "
    "with its cache of decoded pictures (filled before). Before anything is timed, pictures and states of both loaders "
    "are compared and must be equal in every number. Arms take turns within a repeat."
)


def data_sets(work: Path, opts: argparse.Namespace) -> dict[str, Path]:
    """The two data sets, made where they are missing, on which both loaders agree in every number."""
    places = {name: work / name for name in DATA}
    if not (work / "complete").exists():
        for place in places.values():
            command.empty(place)
        size = 64 if opts.smoke else 128
        words = [
            "collect", "env=tabletop/place", "policy=expert", "explore=true", "num_envs=8",
            f"episodes={3 if opts.smoke else 50}", "env.pixels.cameras=[front,wrist]", "env.pixels.replace_state=false",
            f"env.pixels.height={size}", f"env.pixels.width={size}", f"out={places['ours']}",
        ]  # fmt: skip
        command.say("recording")
        command.execute([*command.ROBOTRL, *words], threads=1)
        command.say("writing the same with LeRobot")
        command.worker(MODULE, "rewrite", str(places["ours"]), str(places["lerobots"]))
        (work / "complete").touch()
    for name, place in places.items():
        found = command.worker(MODULE, "compare", str(place), "20" if opts.smoke else "200")
        if found["different"]:
            raise RuntimeError(f"the loaders disagree in {found['different']} numbers on {place}")
        command.say(f"{name}: {found['frames']} frames are the same in every number")
    return places


def main(argv: Sequence[str] | None = None) -> int:
    opts = command.options("tabletop/loader_vs_lerobot", __doc__ or "", argv)
    file = command.result("tabletop/loader_vs_lerobot", opts, TARGET, NOTE)
    work = command.work("tabletop/loader_vs_lerobot", opts)
    places = data_sets(work, opts)
    seconds = "0.5" if opts.smoke else "4"
    for repeat in range(1 if opts.smoke else REPEATS):
        for data, place in places.items():
            for pattern in PATTERNS:
                for arm in ARMS:
                    name = f"{arm}/{data}/{pattern}"
                    if file.has(name, repeat):
                        continue
                    cache = str(work / "cache" / data)
                    found = command.worker(MODULE, "measure", arm, pattern, str(place), cache, seconds, str(repeat))
                    rate = found["frames"] / found["seconds"]
                    file.record(name, repeat, rate, unit="frames/s", wall_s=found["seconds"])
                    command.say(f"repeat {repeat} {name}: {rate:,.0f} frames/s")
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
