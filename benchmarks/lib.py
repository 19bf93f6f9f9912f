"""Result files: one a claim, `benchmarks/results/<suite>/<claim>.json`, raw values, written atomically, resumable.

    {claim, command, commit, date, hardware, target, met, note,
     arms: {name: {unit, seeds: [...], values: [...], wall_s: [...], env_steps: [...]}}}

One value a seed or a repeat. A seed that an arm has already is not run again, so every command can be stopped and
called once more. `met` follows from `target` and the values. Curves stand beside it as `<claim>.parquet`.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import provenance, targets

RESULTS = provenance.ROOT / "benchmarks" / "results"
"""Committed results, one folder a suite."""
WORK = provenance.ROOT / "benchmarks" / "work"
"""Run directories and logs of the measurements; git ignores it."""
SMOKE = WORK / "smoke" / "results"
"""Where `--smoke` puts its results: they prove that a command runs and are never published."""

KEYS = ("claim", "command", "commit", "date", "hardware", "target", "met", "note", "arms")


@dataclass(slots=True)
class Arm:
    """Raw values of one arm: element i of every list belongs to `seeds[i]` (a seed, or the number of a repeat)."""

    unit: str
    seeds: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    env_steps: list[int] = field(default_factory=list)

    def value_of(self, seed: int) -> float:
        """The value of one seed or repeat."""
        return self.values[self.seeds.index(seed)]

    def median(self) -> float:
        """The median of all values."""
        return statistics.median(self.values)


class ResultFile:
    """The result of one claim on disk. Threads may record into it at once; two processes may not."""

    def __init__(self, path: Path, command: str, target: targets.Target, note: str) -> None:
        """Read what `path` holds already, if anything.

        Args:
            path: `<directory>/<suite>/<claim>.json`.
            command: regenerates the file.
            target: what must be reached, see `benchmarks.targets`.
            note: what a reader must know to judge the numbers.
        """
        self.path, self.command, self.target, self.note = path, command, target, note
        self.arms: dict[str, Arm] = {}
        self._commits: list[str] = []
        self._taken: dict[str, Any] = {}
        self._lock = threading.Lock()
        if path.exists():
            data = read(path)
            self._commits = data["commit"].split(", ")
            self.arms = {name: Arm(**arm) for name, arm in data["arms"].items()}
            self._taken = {"date": data["date"], "hardware": data["hardware"]}

    @property
    def claim(self) -> str:
        return self.path.stem

    @property
    def commit(self) -> str:
        """Every commit that measured for this file since it was last fresh, oldest first."""
        return ", ".join(self._commits)

    def has(self, arm: str, seed: int) -> bool:
        """Whether this arm has its value for this seed."""
        return arm in self.arms and seed in self.arms[arm].seeds

    @property
    def curves(self) -> Path:
        """Where the learning curves of this claim are."""
        return self.path.with_suffix(".parquet")

    def record(
        self,
        arm: str,
        seed: int,
        value: float,
        *,
        unit: str,
        wall_s: float = 0.0,
        env_steps: int = 0,
        commit: str | None = None,
        replace: bool = False,
    ) -> None:
        """Add one value and write the file; seeds stay in order.

        Args:
            arm: name of the arm, with `/` between its parts.
            seed: the seed, or the number of the repeat.
            value: what was measured, raw.
            unit: the same for all values of an arm.
            wall_s: seconds it took.
            env_steps: agent decisions it took.
            commit: of the code that measured, perhaps several with `, ` between them; None: of this process.
            replace: the value follows from others (as the peak of a mean curve does) and changes when those do.

        Raises:
            ValueError: the value is not finite, the arm has this seed, or another unit.
        """
        with self._lock:
            entry = self.arms.setdefault(arm, Arm(unit))
            if replace and seed in entry.seeds:
                at = entry.seeds.index(seed)
                for column in (entry.seeds, entry.values, entry.wall_s, entry.env_steps):
                    del column[at]
            if not math.isfinite(value):
                raise ValueError(f"{self.claim}: arm {arm}, seed {seed}: {value} is no result")
            if seed in entry.seeds or entry.unit != unit:
                raise ValueError(f"{self.claim}: arm {arm} has seed {seed} already, or another unit than {unit}")
            at = sum(s < seed for s in entry.seeds)
            entry.seeds.insert(at, seed)
            entry.values.insert(at, float(value))
            entry.wall_s.insert(at, round(float(wall_s), 4))
            entry.env_steps.insert(at, int(env_steps))
            for code in (commit or provenance.commit()).split(", "):
                if code not in self._commits:
                    self._commits.append(code)
            self._taken = {"date": provenance.today(), "hardware": self._hardware()}
            self._write()

    def forget(self, prefix: str) -> None:
        """Drop the arms whose names start with `prefix`, so that they are measured anew."""
        self.arms = {name: arm for name, arm in self.arms.items() if not name.startswith(prefix)}
        if not self.arms:
            self._commits.clear()
            self._taken.clear()

    def refresh(self) -> None:
        """Write the file once more: its target or note may be newer than its values."""
        with self._lock:
            if self.arms:
                self._write()

    def add_curve(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add one run to the curves beside the file; what is there of the same arm, task and seed is replaced."""
        if not rows:
            return
        with self._lock:
            key = {(row["arm"], row["task"], row["seed"]) for row in rows}
            old = read_curves(self.curves) if self.curves.exists() else []
            kept = [row for row in old if (row["arm"], row["task"], row["seed"]) not in key]
            merged = sorted([*kept, *rows], key=lambda row: (row["arm"], row["task"], row["seed"], row["env_steps"]))
            write_curves(self.curves, merged)

    def _hardware(self) -> dict[str, Any]:
        """This machine, and the processors of others that values of this file came from, oldest first."""
        here = provenance.hardware()
        before: list[str] = self._taken["hardware"]["cpu"].split(", ") if self._taken else []
        return here | {"cpu": ", ".join(dict.fromkeys([*before, here["cpu"]]))}

    def _write(self) -> None:
        arms = {name: asdict(self.arms[name]) for name in sorted(self.arms)}
        data = {
            "claim": self.claim, "command": self.command, "commit": self.commit,
            **self._taken, "target": self.target,
            "met": targets.met(self.target, values(arms)), "note": self.note, "arms": arms,
        }  # fmt: skip
        write_atomically(self.path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def values(arms: Mapping[str, Mapping[str, Any]]) -> dict[str, list[float]]:
    """Raw values by arm, from the `arms` of a result file."""
    return {name: list(arm["values"]) for name, arm in arms.items()}


def read(path: Path) -> dict[str, Any]:
    """A result file, its form checked.

    Raises:
        ValueError: the file is not of the documented form.
    """
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if tuple(data) != KEYS:
        raise ValueError(f"{path} has the keys {list(data)}, a result file has {list(KEYS)}")
    for name, arm in data["arms"].items():
        lengths = {len(arm[key]) for key in ("seeds", "values", "wall_s", "env_steps")}
        if set(arm) != {"unit", "seeds", "values", "wall_s", "env_steps"} or len(lengths) != 1:
            raise ValueError(f"{path}: arm {name} lacks a field, or its lists differ in length")
    return data


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step: a reader, or a machine that stops, sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_curves(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Learning curves as Parquet: one row an evaluation episode or a point, the same columns in each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    pq.write_table(pa.Table.from_pylist(list(rows)), temporary, compression="zstd")
    temporary.replace(path)


def read_curves(path: Path) -> list[dict[str, Any]]:
    """What `write_curves` wrote."""
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows
