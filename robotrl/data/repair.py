"""Putting a data set in order after a recording was killed, by RobotRL or by others; nothing is thrown away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robotrl.data import schema as names
from robotrl.data.compact import compact
from robotrl.data.dataset import Dataset, EpisodeInfo
from robotrl.data.frames import VideoFile
from robotrl.data.journal import FOLDER, Journal
from robotrl.data.merge import assemble
from robotrl.data.schema import read_json
from robotrl.data.tables import read_columns, read_rows
from robotrl.types import RobotRLError

STRAYS = f"{FOLDER}/strays"


def repair(root: str | Path) -> list[str]:
    """Finish what was interrupted, in place; sentences about what was done.

    Files that belong to no episode, left by a writer that was killed before it could save, are moved to
    `.robotrl/strays`. Counts in `meta/info.json` that lag behind the episodes' list are corrected.

    Raises:
        RobotRLError: another process is writing, or files are damaged: `salvage` keeps the episodes that are not.
    """
    folder = Path(root)
    if not (folder / "meta").is_dir() and not (folder / FOLDER).is_dir():
        raise RobotRLError(f"There is no data set at {folder}.")
    journal = Journal(folder)
    try:
        done = [f"Put in place: {', '.join(files)}." for files in [journal.recover()] if files]
        if not (folder / names.INFO).is_file():
            return [*done, "No episode was ever finished here, so there is nothing to lose."]
        done += _recount(journal)
        joined = compact(journal)
        done += [f"Joined the files of {joined} episodes."] if joined else []
        dataset = Dataset(folder)
        dataset.read(dataset.schema.arrays)
        strays = _strays(dataset)
        for path in strays:
            target = folder / STRAYS / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        if strays:
            done.append(f"Moved {len(strays)} files that belong to no episode to {folder / STRAYS}.")
        return [*done, f"{folder} is in order: {dataset.total_episodes} episodes, {dataset.total_frames:,} steps."]
    finally:
        journal.close()


def salvage(root: str | Path, out: str | Path) -> list[str]:
    """Write the episodes that can be read whole into a new data set; sentences about it. The old one stays as it is.

    Raises:
        RobotRLError: none can be read, or something is at `out`.
    """
    dataset = _Damaged(root)
    good, lost = [], list(dataset.problems)
    for episode in dataset.episodes:
        problem = dataset.problem(episode)
        if problem is None:
            good.append(episode)
        else:
            lost.append(f"Episode {episode.index} is lost: {problem}")
    if not good:
        raise RobotRLError(f"No episode of {dataset.root} can be read whole. {' '.join(lost[:3])}")
    count = assemble([(dataset, good)], out)
    return [*lost, f"{count} whole episodes of {dataset.root} are now in {out}."]


class _Damaged(Dataset):
    """A data set of which only `meta/info.json` has to be whole."""

    def __init__(self, root: str | Path) -> None:
        self.problems: list[str] = []
        self._readable: dict[Path, Any] = {}
        super().__init__(root)

    def _rows(self, columns: list[str]) -> list[dict[str, Any]]:
        rows = []
        for path in sorted((self.root / "meta/episodes").glob("chunk-*/file-*.parquet")):
            try:
                rows += [row for row in read_rows(path, columns) if columns[0] in row]
            except RobotRLError as error:
                self.problems.append(str(error))
        return rows

    def _checked(
        self, rows: list[dict[str, Any]], videos: list[str], notes: dict[int, dict[str, Any]]
    ) -> list[EpisodeInfo]:
        found = []
        for row in rows:
            try:
                found.append(self._episode(row, videos, notes))
            except (RobotRLError, KeyError) as error:
                self.problems.append(f"Episode {row['episode_index']} is lost: {error}")
        return found

    def _check_files(self) -> None:
        """One after the other, later."""

    def problem(self, episode: EpisodeInfo) -> str | None:
        """Why an episode cannot be read whole; None if it can."""
        try:
            path = self.data_path(*episode.data)
            if path not in self._readable:
                arrays = {k: f for k, f in self.features.items() if not f.visual}
                self._readable[path] = read_columns(path, arrays)["episode_index"]
            if int((self._readable[path] == episode.index).sum()) != episode.length:
                return f"{path} does not hold its {episode.length} steps."
            for key, clip in episode.clips.items():
                if clip.path not in self._readable:
                    height, width, _ = self.features[key].shape
                    self._readable[clip.path] = VideoFile(clip.path, height, width, 1)
                if not self._readable[clip.path].covers(clip.start, episode.length, self.fps):
                    return f"{clip.path} does not hold its pictures."
        except RobotRLError as error:
            return str(error)
        return None


def _recount(journal: Journal) -> list[str]:
    """Correct totals that do not count the episodes listed."""
    info = read_json(journal.root / names.INFO, "the description of a LeRobotDataset")
    rows = [
        row
        for path in sorted((journal.root / "meta/episodes").glob("chunk-*/file-*.parquet"))
        for row in read_rows(path, ("episode_index", "length"))
    ]
    listed = sorted(row["episode_index"] for row in rows)
    counted = {"total_episodes": len(rows), "total_frames": sum(row["length"] for row in rows)}
    if listed != list(range(len(rows))) or all(info.get(key) == value for key, value in counted.items()):
        return []
    with journal.change("The correction of counts") as change:
        splits = {"train": f"0:{len(rows)}"}
        change.write(names.INFO, names.to_bytes({**info, **counted, "splits": splits}))
    return [f"Corrected the counts: {len(rows)} episodes instead of {info.get('total_episodes')}."]


def _strays(dataset: Dataset) -> list[Path]:
    """Tables and videos that no episode is in."""
    used = {dataset.data_path(*e.data) for e in dataset.episodes}
    used |= {clip.path for e in dataset.episodes for clip in e.clips.values()}
    found = [*dataset.root.glob("data/chunk-*/file-*.parquet"), *dataset.root.glob("videos/*/chunk-*/file-*.mp4")]
    return sorted(path for path in found if path not in used)


__all__ = ["repair", "salvage"]
