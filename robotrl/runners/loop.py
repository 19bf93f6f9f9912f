"""The loop that every learner family runs through."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robotrl.collect import Collector
from robotrl.types import Batch, Learner, Metrics, Progress, Replay

Hook = Callable[[int, Metrics], None]


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to update. A fraction of an update is carried over to the next iterations."""

    rollout_steps: int = 32
    """Env steps of each env in one collect."""
    updates: float = 1.0
    """Updates per iteration."""
    warmup_env_steps: int = 0
    """Env steps collected before the first update; no update is owed for them."""

    def due(self, progress: Progress) -> int:
        """Updates to make in this iteration, once its data is in."""
        if progress.env_steps < self.warmup_env_steps:
            return 0
        return int(self.updates * (progress.iterations + 1)) - int(self.updates * progress.iterations)


def train(
    learner: Learner,
    replay: Replay,
    collector: Collector | None,
    schedule: Schedule,
    progress: Progress,
    hooks: Sequence[Hook] = (),
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Collect, add, observe, update, hooks, until `total_env_steps` are made or `stop()` says so.

    Without a collector (learning from a data set) an iteration counts `rollout_steps` env steps, so that every clock
    still runs, and `observe` gets an empty batch. Metrics are the iteration's means over its updates, on the device;
    hooks decide what to convert.
    """
    while progress.env_steps < progress.total_env_steps and not stop():
        start = time.perf_counter()
        metrics: Metrics = {}
        fresh: Batch = {}
        if collector is None:
            progress.env_steps += schedule.rollout_steps
        else:
            fresh = collector.collect(learner.acting, schedule.rollout_steps)
            replay.add(fresh)
            progress.env_steps += fresh["reward"].numel()
            metrics.update(collector.stats())
            progress.episodes += int(metrics["train/episodes"])
        learner.observe(fresh, progress)
        collected = time.perf_counter()
        sums: defaultdict[str, list[Tensor]] = defaultdict(list)
        for batch in replay.batches(learner.batch_spec, schedule.due(progress)):
            update_metrics, rows = learner.update(batch)
            if rows is not None:
                replay.write(rows)
            progress.updates += 1
            progress.grad_steps += int(update_metrics.pop("grad_steps", 1))
            for name, value in update_metrics.items():
                sums[name].append(value)
        progress.iterations += 1
        metrics.update({name: torch.stack(values).mean() for name, values in sums.items()})
        metrics["time/collect"] = torch.tensor(collected - start)
        metrics["time/update"] = torch.tensor(time.perf_counter() - collected)
        for hook in hooks:
            hook(progress.iterations, metrics)
