"""Replay of single steps and of sequences, sampled; rows can be written back to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch

from robotrl.replay.config import ReplayConfig, check_memory
from robotrl.replay.rollout import check_single_source
from robotrl.replay.sampling import RowSampler
from robotrl.replay.storage import RingStorage, Rows
from robotrl.types import Batch, BatchSpec, EnvSpec, Part, RobotRLError, StateDict


class ReplayBuffer:
    """Keeps the newest `capacity` steps and serves samples of them.

    A `transition` part is `[B, ...]`; a `sequence` part `[T, B, ...]`, time-major windows of one env each that never
    reach beyond the newest step. A window may hold several episodes, the first step of each marked by `is_first`; with
    `Part.within_episode` it ends with its first episode: `valid` is false after that, and the last step repeats there.
    Every sample carries its row ids in `row`, which `write` takes; rows overwritten meanwhile are ignored, and so are
    the repeated ones, whose id is -1.

    Args:
        capacity: steps over all envs; rounded down to a multiple of `num_envs`.
        num_envs: envs of the rollouts that will be added.
        seed: of the sampling generator, which `state_dict` saves.
        device: where samples are delivered; they are stored in host memory.
        omit: fields or groups that are not stored, for example `("next_obs", "log_prob")`.
        frames: how many pictures are stacked in an observation group (`ArraySpec.frames`); each is stored once.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        *,
        seed: int = 0,
        device: str = "cpu",
        omit: Iterable[str] = (),
        frames: Mapping[str, int] | None = None,
    ) -> None:
        if num_envs < 1 or capacity < num_envs:
            raise RobotRLError(
                f"A replay of capacity {capacity} cannot hold one step of {num_envs} envs. Give a larger capacity."
            )
        self.device = torch.device(device)
        self._storage = RingStorage(capacity // num_envs, num_envs, omit, frames)
        self._sampler = RowSampler(seed, self._storage.take_field)
        self._fresh: dict[
            str, tuple[int, Rows]
        ] = {}  # by part: the next stretch's first step, stretches not yet served

    @classmethod
    def from_config(
        cls,
        config: ReplayConfig,
        spec: EnvSpec,
        parts: BatchSpec,
        *,
        num_envs: int,
        seed: int,
        device: str,
        env_steps: int,
    ) -> ReplayBuffer:
        """The replay of a run of `env_steps` env steps.

        Raises:
            RobotRLError: it does not fit into memory.
        """
        check_memory(config.capacity, spec, most=env_steps)
        frames = {name: array.frames for name, array in spec.obs.items()}
        return cls(config.capacity, num_envs, seed=seed, device=device, omit=config.omit, frames=frames)

    def __len__(self) -> int:
        """Steps stored, over all envs."""
        return self._storage.end_row - self._storage.first_row

    def add(self, rollout: Batch) -> None:
        """Store a time-major rollout `[T, N, ...]`; the oldest steps go.

        Its `state/*` is not kept: a policy whose state is to be learned from returns it among its extras.
        """
        self._storage.add(rollout)

    def batches(self, spec: BatchSpec, count: int) -> Iterator[dict[str, Batch]]:
        """`count` batches, each sampled when it is asked for, so that it sees what was written meanwhile.

        Raises:
            RobotRLError: a part asks for a whole rollout or for more than there is, or the parts name two sources.
        """
        check_single_source(spec)
        for name, part in spec.items():
            if part.kind == "rollout":
                raise RobotRLError(f"ReplayBuffer serves samples, but the part '{name}' asks for a rollout.")
            if part.windows is not None:
                raise RobotRLError(
                    f"The part '{name}' asks for windows, which only recorded episodes have. Use length."
                )
            if part.batch_size < 1 or part.length < 1:
                raise RobotRLError(f"The part '{name}' needs a batch_size and a length of at least 1.")
        for _ in range(count):
            yield {name: self._sample(name, part) for name, part in spec.items()}

    def _sample(self, name: str, part: Part) -> Batch:
        storage = self._storage
        sequence = part.kind == "sequence"
        whole = part.length if sequence and not part.within_episode else 1
        first, end = storage.first_row, storage.end_row - (whole - 1) * storage.num_envs
        if end <= first:
            raise RobotRLError(
                f"The part '{name}' needs {whole} steps of each env, but the replay holds "
                f"{min(storage.steps, storage.length)}. Collect more before the first update "
                "(schedule.warmup_env_steps), or give the replay a larger capacity."
            )
        fresh = self._unserved(name, part, first) if part.newest_first and sequence else _NO_ROWS
        rest = replace(part, batch_size=part.batch_size - len(fresh)) if len(fresh) else part
        rows = self._sampler.draw(rest, first, end, storage.changes)
        if not sequence:
            return self._deliver(rows)
        rows = np.concatenate([fresh, rows]) if len(fresh) else rows
        rows = rows + np.arange(part.length)[:, None] * storage.num_envs
        return self._windows_within_episode(rows) if part.within_episode else self._deliver(rows)

    def _unserved(self, name: str, part: Part, first: int) -> Rows:
        """First rows of stretches that no batch has had, at most a batch of them, oldest first."""
        storage = self._storage
        step, waiting = self._fresh.get(name, (0, _NO_ROWS))
        stride = max(1, part.length - 1)  # the last step of a stretch is the first of the next
        complete = range(step, storage.steps - part.length + 1, stride)
        if complete:
            new = np.asarray(complete)[:, None] * storage.num_envs + np.arange(storage.num_envs)
            step, waiting = complete[-1] + stride, np.concatenate([waiting, new.reshape(-1)])
        waiting = waiting[waiting >= first]
        self._fresh[name] = step, waiting[part.batch_size :]
        return waiting[: part.batch_size]

    def _windows_within_episode(self, rows: Rows) -> Batch:
        """The windows `rows [T, B]`, each cut where its episode or the replay ends."""
        storage = self._storage
        valid = rows < storage.end_row
        inside = np.where(valid, rows, rows % storage.num_envs + storage.end_row - storage.num_envs)
        ends = {key: storage.take_field(key, inside) for key in ("is_first", "terminated", "truncated")}
        valid[1:] &= ~(ends["is_first"][1:] | ends["terminated"][:-1] | ends["truncated"][:-1])
        valid = np.logical_and.accumulate(valid, axis=0)
        last = np.arange(rows.shape[1]), valid.sum(axis=0) - 1
        batch = self._deliver(np.where(valid, rows, rows[last[1], last[0]]))
        batch["valid"] = torch.from_numpy(valid).to(self.device)
        batch["row"] = torch.where(batch["valid"], batch["row"], -1)
        return batch

    def _deliver(self, rows: Rows) -> Batch:
        batch = self._storage.take(rows)
        batch["row"] = torch.from_numpy(rows)
        if self.device.type != "cpu":
            batch = {key: value.to(self.device, non_blocking=True) for key, value in batch.items()}
        return batch

    def write(self, rows: Batch) -> None:
        """Overwrite fields of the rows `rows["row"]`; a field that is new starts as zeros elsewhere."""
        values = {key: value for key, value in rows.items() if key != "row"}
        self._storage.write(rows["row"].cpu().numpy(), values)

    def state_dict(self) -> StateDict:
        """Contents (views of them, in pieces) and sampling generator."""
        return {
            "storage": self._storage.state_dict(),
            "generator": self._sampler.generator.bit_generator.state,
            "fresh": {name: {"step": step, "rows": rows} for name, (step, rows) in self._fresh.items()},
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self._storage.load_state_dict(state["storage"])
        self._sampler.generator.bit_generator.state = state["generator"]
        self._fresh = {name: (int(kept["step"]), kept["rows"]) for name, kept in state["fresh"].items()}


_NO_ROWS: Rows = np.zeros(0, np.int64)
