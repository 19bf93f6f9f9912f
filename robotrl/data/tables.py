"""Parquet files from and to NumPy arrays: sizes are checked against what is declared before anything is read."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robotrl.data.schema import Feature
from robotrl.types import RobotRLError

if TYPE_CHECKING:
    import pyarrow as pa

MAX_META_BYTES = 1 << 30
GROUP_ROWS = 1024
"""Rows of a row group at least: a group costs some kilobytes and a fraction of a millisecond, however short it is."""


def pyarrow() -> Any:
    """The package, or one sentence where it is missing."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise RobotRLError('Data sets need pyarrow, which is not installed: pip install "robotrl[data]"') from error
    return pyarrow


def column(values: NDArray[Any]) -> pa.Array:
    """One column of `[T]` or `[T, ...]`: numbers, lists of fixed length, nested lists."""
    pa = pyarrow()
    values = np.ascontiguousarray(values)
    flat = pa.array(values.reshape(-1))
    sizes = values.shape[1:]
    if len(sizes) == 1:
        return pa.FixedSizeListArray.from_arrays(flat, sizes[0])
    for size in reversed(sizes):  # what LeRobot reads as Array2D and so on
        offsets = pa.array(np.arange(0, len(flat) + 1, size), pa.int32())
        flat = pa.ListArray.from_arrays(offsets, flat)
    return flat


def nested(values: NDArray[Any]) -> pa.Array:
    """One column of `[T, ...]` as lists of lists, of whatever length: the type that rows of Python lists have."""
    pa = pyarrow()
    values = np.ascontiguousarray(values)
    flat = pa.array(values.reshape(-1))
    for size in reversed(values.shape[1:]):
        flat = pa.ListArray.from_arrays(pa.array(np.arange(0, len(flat) + 1, size), pa.int32()), flat)
    return flat


def grouped(table: pa.Table, lengths: Sequence[int]) -> list[pa.Table]:
    """A table of episodes with `lengths` rows, cut between episodes into groups of `GROUP_ROWS` or a little more."""
    groups, start, end = [], 0, 0
    for length in lengths:
        end += length
        if end - start >= GROUP_ROWS:
            groups.append(table.slice(start, end - start))
            start = end
    return [*groups, *([table.slice(start)] if end > start else [])]


def encode(table: pa.Table) -> bytes:
    """A table as the bytes of a parquet file with one row group."""
    return encode_groups([table])


def encode_groups(tables: Sequence[pa.Table]) -> bytes:
    """Tables of one schema as the bytes of a parquet file, each a row group."""
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    with pq.ParquetWriter(sink, tables[0].schema, compression="snappy") as writer:
        for table in tables:
            writer.write_table(table, row_group_size=max(1, len(table)))
    return sink.getvalue()


def open_parquet(path: Path) -> Any:
    """An opened parquet file.

    Raises:
        RobotRLError: it is missing, or cut off, or something else.
    """
    pyarrow()
    import pyarrow.parquet as pq
    from pyarrow import ArrowInvalid

    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise RobotRLError(f"{path} is missing. Copy the data set again, or run: robotrl data repair") from None
    except (ArrowInvalid, OSError) as error:
        raise RobotRLError(
            f"{path} is cut off or no parquet file ({_first_line(error)}). Whoever wrote it was probably stopped "
            "midway; copy it again, or keep the other episodes with: robotrl data repair <folder> out=<new folder>"
        ) from error


def read_rows(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """A small table as dictionaries, one a row; columns that are not there are left out.

    Raises:
        RobotRLError: it cannot be read, or would take more than a gibibyte.
    """
    with open_parquet(path) as file:
        _check_size(path, file, MAX_META_BYTES)
        names = file.schema_arrow.names
        wanted = names if columns is None else [name for name in columns if name in names]
        rows: list[dict[str, Any]] = _read(path, file, wanted).to_pylist()
    return rows


def read_whole(path: Path) -> Any:
    """A small table as it is; errors as `read_rows`."""
    with open_parquet(path) as file:
        _check_size(path, file, MAX_META_BYTES)
        return _read(path, file, file.schema_arrow.names)


def read_columns(path: Path, features: Mapping[str, Feature]) -> dict[str, NDArray[Any]]:
    """Columns `[T, ...]` of the declared types and shapes.

    Raises:
        RobotRLError: one is missing or of another shape than declared, or holds nulls.
    """
    pa = pyarrow()
    with open_parquet(path) as file:
        missing = sorted(set(features) - set(file.schema_arrow.names))
        if missing:
            raise RobotRLError(f"{path} lacks the columns {missing}, which meta/info.json declares.")
        rows, counts = file.metadata.num_rows, _values(file)
        for key, feature in features.items():
            expected = rows * math.prod(feature.shape)
            if counts.get(key, expected) != expected:
                raise RobotRLError(
                    f"{path}: the column '{key}' holds {counts[key]} numbers in {rows} rows, but meta/info.json "
                    f"declares the shape {list(feature.shape)}."
                )
        table = _read(path, file, list(features))
    found = {}
    for key, feature in features.items():
        flat = table.column(key).combine_chunks()
        while isinstance(flat.type, pa.ListType | pa.LargeListType | pa.FixedSizeListType | pa.BaseExtensionType):
            flat = flat.storage if isinstance(flat.type, pa.BaseExtensionType) else flat.flatten()
        shape = () if feature.shape == (1,) else feature.shape
        if flat.null_count or len(flat) != rows * math.prod(feature.shape):
            raise RobotRLError(
                f"{path}: the column '{key}' has gaps; every row needs {math.prod(feature.shape)} numbers."
            )
        try:
            values = flat.to_numpy(zero_copy_only=False).astype(feature.dtype, copy=False)
        except (TypeError, ValueError) as error:
            raise RobotRLError(f"{path}: the column '{key}' holds no numbers ({error}).") from error
        found[key] = values.reshape(rows, *shape)
    return found


def extras_table(rows: list[dict[str, Any]]) -> Any:
    """RobotRL's notes on episodes; types are fixed, so that files agree where a value is missing."""
    pa = pyarrow()
    fixed = {
        "episode_index": pa.int64(), "length": pa.int64(), "seed": pa.int64(), "episode": pa.int64(),
        "success": pa.bool_(), "return": pa.float64(), "session": pa.int64(),
    }  # fmt: skip
    finals = dict.fromkeys(key for row in rows for key in row if key not in fixed)
    columns = {key: pa.array([row.get(key) for row in rows], kind) for key, kind in fixed.items()}
    return pa.table(columns | {key: pa.array([row.get(key) for row in rows]) for key in finals})


def tasks_table(tasks: Iterable[str]) -> bytes:
    """`meta/tasks.parquet`: the words as the index, as LeRobot reads it."""
    import pandas as pd

    words = list(tasks)
    sink = io.BytesIO()
    pd.DataFrame({"task_index": range(len(words))}, index=pd.Index(words, name="task")).to_parquet(sink)
    return sink.getvalue()


def place_columns(prefix: str, place: tuple[int, int]) -> dict[str, int]:
    """The two columns that say in which file a part of an episode is."""
    return {f"{prefix}/chunk_index": place[0], f"{prefix}/file_index": place[1]}


def num_rows(path: Path) -> int:
    """Rows of a parquet file, from its footer."""
    with open_parquet(path) as file:
        return int(file.metadata.num_rows)


def _read(path: Path, file: Any, columns: Sequence[str]) -> Any:
    from pyarrow import ArrowException

    try:
        return file.read(columns=list(columns), use_threads=False)
    except (ArrowException, OSError) as error:
        raise RobotRLError(
            f"{path} is damaged: {_first_line(error)}. Copy it again from where it came from."
        ) from error


def _values(file: Any) -> dict[str, int]:
    """Numbers in every top-level column, nulls included, as the footer counts them."""
    counts: dict[str, int] = {}
    metadata = file.metadata
    for group in range(metadata.num_row_groups):
        for i in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(i)
            name = (
                chunk.path_in_schema.partition(".list.")[0]
                if ".list." in chunk.path_in_schema
                else chunk.path_in_schema
            )
            counts[name] = counts.get(name, 0) + chunk.num_values
    return counts


def _check_size(path: Path, file: Any, limit: int) -> None:
    metadata = file.metadata
    values = sum(_values(file).values())
    size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if max(size, values * 8) > limit:
        raise RobotRLError(
            f"{path} would take {max(size, values * 8) / 1e9:.1f} GB of memory, which no such table needs."
        )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


__all__ = [
    "column", "encode", "encode_groups", "extras_table", "grouped", "nested", "num_rows", "open_parquet",
    "place_columns", "pyarrow", "read_columns", "read_rows", "read_whole", "tasks_table",
]  # fmt: skip
