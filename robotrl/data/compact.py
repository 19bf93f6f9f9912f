"""Joining the small files of a recording into larger ones; encoded pictures and numbers stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from robotrl.data import schema as names
from robotrl.data.dataset import Dataset, EpisodeInfo
from robotrl.data.journal import Change, Journal
from robotrl.data.schema import read_json
from robotrl.data.tables import GROUP_ROWS, encode, place_columns, pyarrow, read_whole
from robotrl.data.video import Cut, join_clips

LOOSE = "loose_from"
"""In RobotRL's notes: from this episode on, what one `save` stored has files of its own."""

Place = tuple[int, int]


def compact(journal: Journal) -> int:
    """Join the files of the loose episodes; how many episodes were joined.

    Raises:
        RobotRLError: a file of theirs is damaged, or the disk is full. The data set is as it was then.
    """
    dataset = Dataset(journal.root)
    first = dataset.own.get(LOOSE)
    if not isinstance(first, int) or not 0 <= first < len(dataset.episodes):
        return 0
    loose = dataset.episodes[first:]
    own = {key: value for key, value in dataset.own.items() if key != LOOSE}
    with journal.change("The joining of files") as change:
        change.write(names.OWN_INFO, names.to_bytes(own))
        if len(loose) > 1:
            _join(dataset, loose, change)
    return len(loose) if len(loose) > 1 else 0


def _join(dataset: Dataset, loose: list[EpisodeInfo], change: Change) -> None:
    wanted = {e.index for e in loose}
    meta, meta_files = _rows(dataset.root, "meta/episodes", wanted)
    extras, extra_files = _rows(dataset.root, "meta/robotrl/episodes", wanted)
    old = [*meta_files, *extra_files, *(dataset.data_path(*e.data) for e in loose)]
    new: dict[str, list[Any]] = {}
    for place, part in _parts(loose, lambda e: (dataset.data_path(*e.data), e.data), names.DATA_MB):
        target = change.path(names.DATA_PATH.format(chunk_index=place[0], file_index=place[1]))
        _join_tables(list(dict.fromkeys(dataset.data_path(*e.data) for e in part)), target)
        _note(new, [place_columns("data", place)] * len(part))
    for key in loose[0].clips:
        old += [e.clips[key].path for e in loose]
        for place, part in _parts(loose, partial(_clip, key=key), names.VIDEO_MB):
            name = names.VIDEO_PATH.format(video_key=key, chunk_index=place[0], file_index=place[1])
            cuts = [Cut(e.clips[key].path, e.clips[key].start, e.length) for e in part]
            join_clips(cuts, dataset.fps, change.path(name))
            shown = 0
            for episode in part:
                start, shown = shown, shown + episode.length
                where = {"from_timestamp": start / dataset.fps, "to_timestamp": shown / dataset.fps}
                where = {f"videos/{key}/{name}": value for name, value in where.items()}
                _note(new, [place_columns(f"videos/{key}", place) | where])
    place = min(_place(path) for path in meta_files)
    _note(new, [place_columns("meta/episodes", place)] * len(loose))
    for name, values in new.items():
        at = meta.schema.get_field_index(name)
        meta = meta.set_column(at, name, pyarrow().array(values))
    change.write(names.EPISODES_PATH.format(chunk_index=place[0], file_index=place[1]), encode(meta))
    if extras is not None:
        change.write(names.EXTRAS_PATH.format(chunk_index=place[0], file_index=place[1]), encode(extras))
    change.delete(list(dict.fromkeys(str(path.relative_to(dataset.root)) for path in old)))


def _note(columns: dict[str, list[Any]], rows: list[dict[str, Any]]) -> None:
    """Append to columns that are in the order of the loose episodes."""
    for row in rows:
        for name, value in row.items():
            columns.setdefault(name, []).append(value)


def _clip(episode: EpisodeInfo, key: str) -> tuple[Path, Place]:
    clip = episode.clips[key]
    return clip.path, (clip.chunk, clip.file)


def _rows(root: Path, folder: str, wanted: set[int]) -> tuple[Any, list[Path]]:
    """The rows of the episodes `wanted` in their order, None without any, and the files that hold no others."""
    pa = pyarrow()
    tables, files = [], []
    for path in sorted((root / folder).glob("chunk-*/file-*.parquet")):
        table = read_whole(path)
        if wanted.issuperset(table.column("episode_index").to_pylist()):
            tables.append(table)
            files.append(path)
    if not tables:
        return None, files
    # types may differ in what is null throughout: a column nobody knew of until later
    return pa.concat_tables(tables, promote_options="permissive").sort_by("episode_index"), files


def _parts(
    episodes: list[EpisodeInfo], where: Callable[[EpisodeInfo], tuple[Path, Place]], megabytes: int
) -> Iterable[tuple[Place, list[EpisodeInfo]]]:
    """Episodes in order, as many a file as fit; each file takes the place of its first episode's."""
    part: list[EpisodeInfo] = []
    size = 0
    for path, together in groupby(episodes, lambda episode: where(episode)[0]):
        more = path.stat().st_size
        if part and size + more > megabytes << 20:
            yield where(part[0])[1], part
            part, size = [], 0
        part += together
        size += more
    yield where(part[0])[1], part


def _join_tables(paths: list[Path], target: Path) -> None:
    """One file of all tables; row groups stay, but short ones are joined."""
    import pyarrow.parquet as pq

    writer, waiting = None, []
    for path in paths:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                waiting.append(file.read_row_group(group))
                writer = writer or pq.ParquetWriter(target, waiting[0].schema, compression="snappy")
                if sum(map(len, waiting)) >= GROUP_ROWS:
                    _write_group(writer, waiting)
                    waiting = []
    if writer is not None:
        if waiting:
            _write_group(writer, waiting)
        writer.close()


def _write_group(writer: Any, tables: list[Any]) -> None:
    table = pyarrow().concat_tables(tables)
    writer.write_table(table, row_group_size=max(1, len(table)))


def _place(path: Path) -> Place:
    return int(path.parent.name.rpartition("-")[2]), int(path.stem.rpartition("-")[2])


def loose_from(root: Path) -> int | None:
    """The first episode that has files of its own, if there is one."""
    path = root / names.OWN_INFO
    value = read_json(path, "RobotRL's notes on a data set").get(LOOSE) if path.is_file() else None
    return value if isinstance(value, int) else None


__all__ = ["LOOSE", "compact", "loose_from"]
