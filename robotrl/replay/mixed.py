"""Several stores behind one: online data beside demonstrations, experts beside mixtures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from robotrl.types import Batch, BatchSpec, Replay, RobotRLError, StateDict

_SOURCE_BITS = 48
"""The store's number stands above this bit of a row id; 2**48 steps are more than any run makes."""


class MixedReplay:
    """Routes each part of a batch to the store that `Part.source` names; fresh rollouts go to `online`.

    Row ids name the store they came from, so what a learner writes back finds its way.

    Args:
        sources: stores by name.
    """

    def __init__(self, sources: Mapping[str, Replay]) -> None:
        self.sources = dict(sources)

    def add(self, rollout: Batch) -> None:
        """Store a rollout in `online`."""
        self._source("online").add(rollout)

    def batches(self, spec: BatchSpec, count: int) -> Iterator[dict[str, Batch]]:
        """`count` batches whose parts come from their sources."""
        names = list(self.sources)
        served: dict[str, Iterator[dict[str, Batch]]] = {}
        for source in dict.fromkeys(part.source for part in spec.values()):
            parts = {name: part for name, part in spec.items() if part.source == source}
            served[source] = self._source(source).batches(parts, count)
        for _ in range(count):
            parts_now: dict[str, Batch] = {}
            for source, batches in served.items():
                for name, batch in next(batches).items():
                    parts_now[name] = {**batch, "row": _tag(batch["row"], names.index(source))}
            yield {name: parts_now[name] for name in spec}

    def write(self, rows: Batch) -> None:
        """Write each row back to the store that served it."""
        owner = rows["row"] >> _SOURCE_BITS  # negative ids, steps that a window repeated, keep their sign: nobody's
        for number, source in enumerate(self.sources.values()):
            here = owner == number
            if not here.any():
                continue
            chosen = {key: value[here] for key, value in rows.items()}
            chosen["row"] = chosen["row"] & ((1 << _SOURCE_BITS) - 1)
            source.write(chosen)

    def state_dict(self) -> StateDict:
        """Every store's, by name."""
        return {name: source.state_dict() for name, source in self.sources.items()}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue every store exactly.

        Raises:
            RobotRLError: the state has other stores.
        """
        if state.keys() != self.sources.keys():
            raise RobotRLError(
                f"The saved replay has the sources {sorted(state)}, this one {sorted(self.sources)}. "
                "Continue with the sources of the saved run."
            )
        for name, source in self.sources.items():
            source.load_state_dict(state[name])

    def _source(self, name: str) -> Replay:
        if name not in self.sources:
            raise RobotRLError(f"The replay has no source '{name}', only {sorted(self.sources)}.")
        return self.sources[name]


def _tag(row: torch.Tensor, number: int) -> torch.Tensor:
    return torch.where(row < 0, row, row + (number << _SOURCE_BITS)) if number else row
