"""Runs of fake learners through the real loop, collector and replays, and what every one of them must keep."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from robotrl.collect import Collector
from robotrl.runners.loop import Schedule, train
from robotrl.seeding import rng_state, seed_everything, set_rng_state
from robotrl.statetree import flatten, unflatten
from robotrl.types import Learner, Metrics, Progress, Replay


class Recorder:
    """A replay that passes everything on and counts the calls. It shares no base class with the one inside."""

    def __init__(self, inner: Replay) -> None:
        self.inner, self.calls = inner, Counter()

    def add(self, rollout):
        self.calls["add"] += 1
        self.inner.add(rollout)

    def batches(self, spec, count):
        self.calls["batches"] += 1
        for batch in self.inner.batches(spec, count):
            self.calls["batch"] += 1
            yield batch

    def write(self, rows):
        self.calls["write"] += 1
        self.inner.write(rows)

    def state_dict(self):
        return self.inner.state_dict()

    def load_state_dict(self, state):
        self.inner.load_state_dict(state)


@dataclass
class Parts:
    """What `train` takes, and what it left."""

    learner: Learner
    replay: Any
    collector: Collector | None
    schedule: Schedule
    progress: Progress = field(default_factory=lambda: Progress(10**9))
    log: list[Metrics] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.replay = Recorder(self.replay)

    def run(self, iterations: int) -> "Parts":
        end = self.progress.iterations + iterations
        train(
            self.learner,
            self.replay,
            self.collector,
            self.schedule,
            self.progress,
            hooks=[lambda _, metrics: self.log.append(metrics)],
            stop=lambda: self.progress.iterations >= end,
        )
        return self

    def owners(self) -> dict[str, Any]:
        found = {"learner": self.learner, "replay": self.replay, "progress": self.progress, "collector": self.collector}
        return {name: owner for name, owner in found.items() if owner is not None}

    def state(self) -> Any:
        """Every owner's state, as a checkpoint gives it back."""
        nodes, tensors = flatten({name: owner.state_dict() for name, owner in self.owners().items()})
        copies = {name: tensor.clone() for name, tensor in tensors.items()}
        return unflatten(nodes, lambda name: copies[name].clone())


def assert_same(left: Any, right: Any, path: str = "") -> None:
    """Equal bit for bit, through dictionaries, lists, tensors and arrays."""
    if isinstance(left, dict):
        assert left.keys() == right.keys(), path
        for key in left:
            assert_same(left[key], right[key], f"{path}/{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), path
        for i, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_same(a, b, f"{path}/{i}")
    elif isinstance(left, torch.Tensor | np.ndarray):
        assert left.dtype == right.dtype, path
        np.testing.assert_array_equal(np.asarray(left), np.asarray(right), err_msg=path)
    else:
        assert left == right, path


def timeless(log: list[Metrics]) -> list[Metrics]:
    return [{k: v for k, v in metrics.items() if not k.startswith("time/")} for metrics in log]


def check_exact_continuation(make, iterations: int = 6) -> None:
    """2k iterations give the same state and metrics, bit for bit, as k, a save, new objects, a load and k more."""
    seed_everything(1)
    whole = make()
    seed_everything(2)
    whole.run(2 * iterations)
    seed_everything(1)
    first = make()
    seed_everything(2)
    first.run(iterations)
    saved, streams = first.state(), rng_state()
    seed_everything(77)  # new objects start from elsewhere
    second = make()
    for name, owner in second.owners().items():
        owner.load_state_dict(saved[name])
    set_rng_state(streams)
    second.run(iterations)
    assert_same(whole.state(), second.state())
    assert_same(timeless(whole.log[iterations:]), timeless(second.log))


class Linear(nn.Module):
    """A Gaussian policy whose mean is linear in `state`; counts the calls of `act`."""

    obs_groups = ("state",)

    def __init__(self, obs_dim: int, action_dim: int) -> None:
        super().__init__()
        self.layer = nn.Linear(obs_dim, action_dim)
        self.acts = 0

    def initial_state(self, num_envs):
        return {}

    def reset_state(self, state, done):
        return state

    def log_prob(self, obs, raw):
        return -0.5 * ((raw - self.layer(obs)) / 0.3).square().sum(-1)

    @torch.no_grad()
    def act(self, obs, state, *, explore):
        self.acts += 1
        mean = self.layer(obs["state"])
        raw = mean + 0.3 * torch.randn_like(mean) * explore
        action = raw.clamp(torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 1.0]))
        return action, {"raw_action": raw, "log_prob": self.log_prob(obs["state"], raw)}, state
