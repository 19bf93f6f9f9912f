"""A hundred episodes of two cameras: seconds and bytes; and what twenty `kill -9` at random moments lose.

python -m benchmarks.tabletop.record
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import command, provenance
from benchmarks.targets import every, value

KILLS = 20
MODULE = "benchmarks.tabletop.record_worker"
TARGET = every(
    [
        value("lost", "<=", 0, statistic="max", n=KILLS),
        value("opened_by_lerobot", ">=", 1, statistic="min", n=KILLS + 1),
        value("seconds", ">", 0, n=1),
        value("megabytes", ">", 0, n=1),
    ]
)
NOTE = (
    "robotrl collect env=tabletop/place policy=expert explore=true, two cameras of 64x64 pixels, eight envs. `seconds` "
    "is the wall time of the whole command and `megabytes` what is on disk then, for 100 episodes. Then twenty "
    "recordings of their own are ended by SIGKILL at a moment drawn uniformly from the time such a recording takes; "
    "`robotrl data repair` puts each in order. `lost` counts episodes for which the save call had returned and that "
    "are not there afterwards. `opened_by_lerobot` is 1 where LeRobot 0.6.1 reads the first and the last step, "
    "pictures included, of every episode, and counts as many as repair says; its last value is of the whole recording."
)


def words(out: Path, episodes: int, seed: int) -> list[str]:
    """What `robotrl collect` is told."""
    return [
        "env=tabletop/place", "policy=expert", "explore=true", "num_envs=8", f"episodes={episodes}", f"seed={seed}",
        "env.pixels.cameras=[front,wrist]", "env.pixels.replace_state=false", "env.pixels.height=64",
        "env.pixels.width=64", f"out={out}",
    ]  # fmt: skip


def promised(notes: Path) -> int:
    """Episodes for which `save` has returned."""
    lines = notes.read_text().split("\n")[:-1] if notes.exists() else []
    return int(lines[-1].split()[0]) if lines else -1


def opened(root: Path, episodes: int) -> int:
    """1 where LeRobot reads all of it."""
    if episodes == 0:
        return 1  # nothing was ever finished, so there is nothing to open
    return int(command.worker(MODULE, "open", str(root))["episodes"] == episodes)


def killed(work: Path, number: int, after: float, episodes: int) -> tuple[int, int]:
    """A recording that is killed `after` seconds: episodes lost, and whether LeRobot opens what is left."""
    from robotrl.data.dataset import Dataset

    out, notes = work / f"killed-{number}", work / f"notes-{number}"
    command.empty(out)
    notes.unlink(missing_ok=True)
    arguments = [sys.executable, "-m", MODULE, "collect", str(notes), *words(out, episodes, 1000 + number)]
    with (work / f"killed-{number}.log").open("w") as log:
        process = subprocess.Popen(
            arguments, cwd=provenance.ROOT, env=command.environment(1), stdout=log, stderr=subprocess.STDOUT
        )
        while promised(notes) < 0 and process.poll() is None:  # until imports are done
            time.sleep(0.01)
        time.sleep(after)
        process.kill()
        process.wait()
    before, there = promised(notes), 0
    if out.exists():
        command.execute([*command.ROBOTRL, "data", "repair", str(out)])
        there = Dataset(out).total_episodes if (out / "meta/info.json").exists() else 0
    return max(0, before - there), opened(out, there)


def main(argv: Sequence[str] | None = None) -> int:
    opts: argparse.Namespace = command.options("tabletop/record", __doc__ or "", argv)
    file, work = command.result("tabletop/record", opts, TARGET, NOTE), command.work("tabletop/record", opts)
    episodes, kills = (4, 2) if opts.smoke else (100, KILLS)
    whole = work / "whole"
    if not file.has("seconds", 0):
        command.empty(whole)
        start = time.perf_counter()
        command.execute([*command.ROBOTRL, "collect", *words(whole, episodes, 0)])
        seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file()) / 1e6
        file.record("seconds", 0, seconds, unit="s", wall_s=seconds)
        file.record("megabytes", 0, size, unit="MB")
        file.record("opened_by_lerobot", kills, opened(whole, episodes), unit="yes")
        command.say(f"{episodes} episodes in {seconds:.1f} s, {size:.1f} MB")
    limit = file.arms["seconds"].values[0]
    for number in range(kills):
        if file.has("lost", number):
            continue
        after = random.Random(number).uniform(0.0, limit)
        lost, opens = killed(work, number, after, episodes)
        file.record("lost", number, lost, unit="episodes", wall_s=after)
        if not file.has("opened_by_lerobot", number):
            file.record("opened_by_lerobot", number, opens, unit="yes")
        command.say(
            f"killed after {after:.1f} s: {lost} lost, LeRobot {'opens' if opens else 'DOES NOT OPEN'} the rest"
        )
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
