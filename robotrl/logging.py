"""Where the numbers of a run go: `metrics.jsonl`, the truth, and side writers that may fail without stopping a run."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

Row = dict[str, float | int]

_COUNTS = ("iteration", "env_steps", "grad_steps", "episodes")


def to_numbers(metrics: Mapping[str, Tensor | float | int]) -> Row:
    """Metrics as numbers, with one transfer from each device instead of one a metric.

    Raises:
        ValueError: a metric has more than one element; the message names it.
    """
    row: Row = {key: value for key, value in metrics.items() if not isinstance(value, Tensor)}
    by_device: dict[torch.device, dict[str, Tensor]] = {}
    for key, value in metrics.items():
        if isinstance(value, Tensor):
            if value.numel() != 1:
                raise ValueError(f"the metric '{key}' has shape {list(value.shape)}; a metric is one number")
            by_device.setdefault(value.device, {})[key] = value.detach().reshape(())
    for device, scalars in by_device.items():
        kind = torch.float32 if device.type == "mps" else torch.float64
        numbers = torch.stack([scalar.to(kind) for scalar in scalars.values()]).tolist()
        row.update(zip(scalars, numbers, strict=True))
    return {key: row[key] for key in metrics}


class SideWriter(Protocol):
    """Gets every row too. It may raise: the run goes on, with one warning and without it."""

    def write(self, row: Row) -> None:
        """Take one row; non-finite values are left out already."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class MetricsLog:
    """Appends one line an iteration to `metrics.jsonl`; a non-finite value is `null` there, is counted and named.

    Args:
        path: of `metrics.jsonl`; lines are appended.
        side_writers: name to writer.
        nonfinite: how many non-finite values the run has seen so far.
    """

    def __init__(self, path: Path, side_writers: Mapping[str, SideWriter] | None = None, nonfinite: int = 0) -> None:
        self._path = path
        self._file = path.open("ab")
        self._side_writers = dict(side_writers or {})
        self.nonfinite = nonfinite
        self._named: set[str] = set()

    def write(self, row: Row) -> None:
        """Append a row. A full disk costs lines, never the run: it is warned about."""
        bad = [key for key, value in row.items() if not math.isfinite(value)]
        self.nonfinite += len(bad)
        for key in bad:
            if key not in self._named:
                self._named.add(key)
                warnings.warn(
                    f"The metric {key} is {row[key]} at env step {row.get('env_steps', '?')}; it is written as null."
                )
        line: dict[str, Any] = {key: None if key in bad else value for key, value in row.items()}
        if self.nonfinite:
            line["nonfinite_metrics"] = self.nonfinite
        self._append(json.dumps(line, allow_nan=False).encode() + b"\n")
        finite = {key: value for key, value in line.items() if value is not None}
        for name in list(self._side_writers):
            try:
                self._side_writers[name].write(finite)
            except Exception as error:
                self._give_up(name, error)

    def _append(self, data: bytes) -> None:
        start = self._file.tell()
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            if "disk" not in self._named:
                self._named.add("disk")
                warnings.warn(f"{self._path} could not be written: {error}. Training goes on; lines are missing there.")
            self._reopen(start)

    def _reopen(self, size: int) -> None:
        """Drop half a line, so that the next one starts on its own."""
        with contextlib.suppress(OSError):  # the buffered rest of the line is what could not be written
            self._file.close()
        with contextlib.suppress(OSError):
            os.truncate(self._path, size)
        self._file = self._path.open("ab")

    def _give_up(self, name: str, error: Exception) -> None:
        del self._side_writers[name]
        warnings.warn(
            f"{name} stopped taking metrics ({type(error).__name__}: {error}). The run and {self._path} go on."
        )

    def sync(self) -> int:
        """Force all lines to the disk; returns the size of the file, to which a resumed run cuts it back."""
        with contextlib.suppress(OSError):  # the lines are the system's now; resume warns if some are missing then
            os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size  # of the open file: its name may be gone

    def close(self) -> None:
        """Close the file and the side writers."""
        self._file.close()
        for name in list(self._side_writers):
            try:
                self._side_writers[name].close()
            except Exception as error:
                self._give_up(name, error)


class TensorBoardWriter:
    """TensorBoard events in `directory`; events after env step `purge_after` of an earlier process are hidden."""

    def __init__(self, directory: Path, purge_after: int | None = None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer, self._event, self._summary = EventFileWriter(str(directory)), Event, Summary
        if purge_after is not None:
            start = SessionLog(status=SessionLog.START)
            self._writer.add_event(Event(wall_time=time.time(), step=purge_after + 1, session_log=start))

    def write(self, row: Row) -> None:
        """Add one event with every metric of the row but the clocks."""
        values = [self._summary.Value(tag=k, simple_value=v) for k, v in row.items() if k not in _COUNTS]
        event = self._event(wall_time=time.time(), step=int(row["env_steps"]), summary=self._summary(value=values))
        self._writer.add_event(event)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WandbWriter:
    """A run on Weights & Biases, for those who have it installed and configured."""

    def __init__(self, directory: Path, name: str, config: dict[str, Any]) -> None:
        import wandb

        self._run = wandb.init(project="robotrl", name=name, dir=str(directory), config=config, resume="allow", id=name)

    def write(self, row: Row) -> None:
        """Send one row."""
        self._run.log(row, step=int(row["env_steps"]))

    def close(self) -> None:
        """Tell the server that the process is done."""
        self._run.finish()


def side_writers(
    directory: Path, *, tensorboard: bool, wandb: bool, config: dict[str, Any], purge_after: int | None = None
) -> dict[str, SideWriter]:
    """The side writers that start; one that does not is warned about and left out."""
    started: dict[str, SideWriter] = {}
    if tensorboard:
        try:
            started["TensorBoard"] = TensorBoardWriter(directory, purge_after)
        except Exception as error:
            warnings.warn(f"TensorBoard events are not written ({type(error).__name__}: {error}).")
    if wandb:
        try:
            started["Weights & Biases"] = WandbWriter(directory, "-".join(directory.parts[-2:]), config)
        except ImportError:
            warnings.warn('Weights & Biases is not installed, so nothing is sent there: pip install "wandb".')
        except Exception as error:
            warnings.warn(f"Nothing is sent to Weights & Biases ({type(error).__name__}: {error}).")
    return started


__all__ = ["MetricsLog", "Row", "SideWriter", "TensorBoardWriter", "WandbWriter", "side_writers", "to_numbers"]
