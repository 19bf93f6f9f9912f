"""`robotrl data`: look at data sets, join them, convert them, put them in order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robotrl.cli.bar import episodes_bar
from robotrl.configs.compose import read_config
from robotrl.data.dataset import Dataset
from robotrl.data.merge import merge
from robotrl.data.minari import export_minari, import_minari
from robotrl.data.repair import repair, salvage
from robotrl.data.sheet import picture_sheet
from robotrl.data.summary import describe
from robotrl.registry import nearest
from robotrl.types import RobotRLError

HELP = """robotrl data info <folder>                what a LeRobotDataset v3 holds
robotrl data show <folder> [episode=0] [out=sheet.png]   an episode on one page: pictures, actions, rewards
robotrl data merge <folder> <folder> ... out=<folder>    the episodes of all, in a new data set
robotrl data convert <folder or Minari id> to=lerobot | to=minari out=<folder> [fps=] [task=] [id=]
robotrl data repair <folder>              finish what a killed recording left; nothing is thrown away
robotrl data repair <folder> out=<folder> write the episodes that can still be read into a new data set
"""
EXAMPLE = "robotrl data info runs/demos"
VERBS = ("info", "show", "merge", "convert", "repair")


@dataclass(slots=True)
class DataConfig:
    """The keys of `robotrl data`."""

    episode: int = 0
    out: str | None = None
    to: str | None = None
    fps: float | None = None
    task: str | None = None
    id: str | None = None


def run(argv: list[str]) -> int:
    """One of the five."""
    names = [word for word in argv if "=" not in word and not word.startswith("-")]
    verb, folders = (names[0] if names else ""), names[1:]
    if verb not in VERBS:
        known = f"There are: {', '.join(VERBS)}, as in: {EXAMPLE}"
        raise RobotRLError(f"robotrl data what?{nearest(verb, [*VERBS])} {known}")
    c = read_config(DataConfig(), [word for word in argv if word not in names], example="out=runs/all")
    if not folders or (verb != "merge" and len(folders) > 1):
        what = "folders" if verb == "merge" else "one folder"
        raise RobotRLError(f"robotrl data {verb} takes {what}, as in: {EXAMPLE}")
    if verb in ("merge", "convert") and c.out is None:
        raise RobotRLError(f"Where to? robotrl data {verb} writes a new data set: give out=<new folder>.")
    print(_done(verb, folders, c))
    return 0


def _done(verb: str, folders: list[str], c: DataConfig) -> str:
    folder, out = folders[0], str(c.out)
    if verb == "info":
        return describe(Dataset(folder))
    if verb == "show":
        name = f"{Path(folder).name}-episode-{c.episode}.png"
        return f"written to {picture_sheet(Dataset(folder), c.episode, c.out or name)}"
    if verb == "merge":
        return f"{merge(folders, out)} episodes written to {out}"
    if verb == "repair":
        return "\n".join(repair(folder) if c.out is None else salvage(folder, out))
    if c.to == "minari":
        return f"{export_minari(folder, out, dataset_id=c.id or 'robotrl/data-v0')} episodes written to {out}"
    if c.to != "lerobot":
        raise RobotRLError("To which format? Give to=lerobot (from Minari) or to=minari.")
    with episodes_bar(out) as progress:
        return f"{import_minari(folder, out, fps=c.fps, task=c.task, progress=progress)} episodes written to {out}"
