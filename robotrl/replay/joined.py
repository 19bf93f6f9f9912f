"""Several data sets as one source: each batch is mixed from all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from robotrl.data.dataset import Dataset
from robotrl.registry import nearest
from robotrl.replay.dataset import EpisodeDataset
from robotrl.types import Batch, BatchSpec, Part, RobotRLError, StateDict

_INFO = Path("meta", "info.json")


def data_sets_in(folder: str | Path) -> dict[str, Path]:
    """The data sets that a folder stands for, by name: those directly below it, or itself where there are none."""
    root = Path(folder)
    below = sorted(root.iterdir()) if root.is_dir() and not (root / _INFO).is_file() else []
    return {path.name: path for path in below if (path / _INFO).is_file()} or {root.name: root}


class JoinedDatasets:
    """A `Replay` over data sets: how many rows of a batch each gives is drawn, then each draws its own.

    Batches hold the fields that all have, and `source`, the data set's number. Row ids count through all of them.

    Args:
        sources: the data sets, by name.
        weights: share of each in a batch, by name; those not named count 1. Empty: in proportion to their steps.
        seed: of drawing the shares.

    Raises:
        RobotRLError: a weight of no data set, or none above zero.
    """

    def __init__(
        self, sources: Mapping[str, EpisodeDataset], weights: Mapping[str, float] | None = None, *, seed: int = 0
    ) -> None:
        self.sources = dict(sources)
        for name, weight in (weights or {}).items():
            if name not in self.sources or not 0 <= weight < np.inf:
                raise RobotRLError(
                    f"replay.demo_weights gives '{name}' the weight {weight:g}.{nearest(name, list(self.sources))} "
                    f"Give numbers of at least 0 to: {', '.join(self.sources)}."
                )
        lengths = np.array([len(source) for source in self.sources.values()])
        shares = np.array([(weights or {}).get(name, 1.0) for name in self.sources]) if weights else lengths
        if not shares.sum() > 0:
            raise RobotRLError("All weights in replay.demo_weights are 0. Give at least one data set more.")
        self._shares = shares / shares.sum()
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        self._generator = np.random.default_rng(np.random.SeedSequence((seed, 7)))

    def __len__(self) -> int:
        """Steps."""
        return int(self._starts[-1])

    def check(self, parts: Mapping[str, Part]) -> None:
        """See `EpisodeDataset.check`."""
        for source in self.sources.values():
            source.check(parts)

    def add(self, rollout: Batch) -> None:
        """Refused, as by each of them.

        Raises:
            RobotRLError: always.
        """
        next(iter(self.sources.values())).add(rollout)

    def batches(self, spec: BatchSpec, count: int) -> Iterator[dict[str, Batch]]:
        """`count` batches, each sampled when it is asked for.

        Raises:
            RobotRLError: as by `EpisodeDataset.batches`.
        """
        for _ in range(count):
            yield {name: self._sample(name, part) for name, part in spec.items()}

    def _sample(self, name: str, part: Part) -> Batch:
        counts = self._generator.multinomial(part.batch_size, self._shares)
        found = []
        for number, (source, rows) in enumerate(zip(self.sources.values(), counts.tolist(), strict=True)):
            if rows:
                (batch,) = source.batches({name: replace(part, batch_size=rows)}, 1)
                here = batch[name]
                here["row"] = torch.where(here["row"] < 0, here["row"], here["row"] + int(self._starts[number]))
                here["source"] = torch.full_like(here["row"], number)
                found.append(here)
        common = [key for key in found[0] if all(key in other for other in found)]
        return {key: torch.cat([batch[key] for batch in found], _axis(key, part, found[0])) for key in common}

    def write(self, rows: Batch) -> None:
        """Write each row back to the data set it came from."""
        for number, source in enumerate(self.sources.values()):
            start, end = int(self._starts[number]), int(self._starts[number + 1])
            here = (rows["row"] >= start) & (rows["row"] < end)
            if bool(here.any()):
                chosen = {key: value[here] for key, value in rows.items()}
                source.write({**chosen, "row": chosen["row"] - start})

    def state_dict(self) -> StateDict:
        """That of each, by name, and of drawing the shares."""
        states = {name: source.state_dict() for name, source in self.sources.items()}
        return {"sources": states, "generator": self._generator.bit_generator.state}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly.

        Raises:
            RobotRLError: the data sets are not those of the saved run.
        """
        if state["sources"].keys() != self.sources.keys():
            raise RobotRLError(
                f"The saved run learned from the data sets {sorted(state['sources'])}, here are "
                f"{sorted(self.sources)}. Continue with the data of that run, or start a new one."
            )
        for name, source in self.sources.items():
            source.load_state_dict(state["sources"][name])
        self._generator.bit_generator.state = state["generator"]


def _axis(key: str, part: Part, batch: Batch) -> int:
    """Along which axis the rows of a field lie side by side."""
    if part.kind == "transition":
        return 0
    if part.windows is None:
        return 1
    return 1 if key.startswith("valid/") or f"valid/{key}" in batch else 0


def open_demos(
    folder: str, *, weights: Mapping[str, float], hold: int, seed: int, **options: object
) -> EpisodeDataset | JoinedDatasets:
    """The data set in `folder`, or all those directly below it as one; `options` are those of `EpisodeDataset`.

    Raises:
        RobotRLError: none is there, or one is damaged or does not fit.
    """
    found: Sequence[tuple[str, Path]] = list(data_sets_in(folder).items())
    sources = {
        name: EpisodeDataset(path, seed=seed + number, hold=hold // len(found), **options)  # type: ignore[arg-type]
        for number, (name, path) in enumerate(found)
    }
    if len(sources) == 1 and not weights:
        return next(iter(sources.values()))
    return JoinedDatasets(sources, weights, seed=seed)


def datasets_of(demos: EpisodeDataset | JoinedDatasets) -> list[Dataset]:
    """The data sets that `open_demos` opened."""
    sources = demos.sources.values() if isinstance(demos, JoinedDatasets) else [demos]
    return [source.dataset for source in sources]


__all__ = ["JoinedDatasets", "data_sets_in", "datasets_of", "open_demos"]
