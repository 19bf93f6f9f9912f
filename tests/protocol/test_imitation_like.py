"""As behaviour cloning does: no collector, sequences of demonstrations, annealing by the run's clock."""

import torch

from robotrl.collect import Collector
from robotrl.replay import ReplayBuffer
from robotrl.runners.loop import Schedule, train
from robotrl.types import Part, Progress
from tests.envs_for_tests import Ragged
from tests.protocol.harness import Linear, Parts, check_exact_continuation


class Cloning:
    def __init__(self):
        self.policy = self.acting = Linear(2, 2)
        self.adam = torch.optim.Adam(self.policy.parameters(), lr=3e-2)
        self.observed, self.rates = 0, []

    @property
    def batch_spec(self):
        return {"demos": Part("demos", "sequence", batch_size=16, length=3, within_episode=True)}

    def observe(self, fresh, progress):
        assert fresh == {}
        self.observed += 1
        self.adam.param_groups[0]["lr"] = 3e-2 * (1.0 - progress.fraction)
        self.rates.append(self.adam.param_groups[0]["lr"])

    def update(self, batch):
        data = batch["demos"]
        error = (self.policy.layer(data["obs/state"]) - data["expert_action"]).square().sum(-1)
        loss = (error * data["valid"]).sum() / data["valid"].sum()
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        return {"loss/action": loss.detach()}, None

    def state_dict(self):
        return {"policy": dict(self.policy.state_dict()), "adam": self.adam.state_dict()}

    def load_state_dict(self, state):
        self.policy.load_state_dict(state["policy"])
        self.adam.load_state_dict(state["adam"])


def make():
    demos = Collector(Ragged(num_envs=1), seed=9).collect(Linear(2, 2), 60)
    replay = ReplayBuffer(60, 1, seed=2)
    replay.add({**demos, "expert_action": demos["obs/state"]})
    return Parts(Cloning(), replay, None, Schedule(rollout_steps=10, updates=3.0))


def test_it_learns_without_a_collector_and_every_clock_runs():
    parts = make()
    progress = parts.progress = Progress(total_env_steps=600)
    log = parts.log
    train(parts.learner, parts.replay, None, parts.schedule, progress, hooks=[lambda _, m: log.append(m)])
    assert (progress.iterations, progress.updates, progress.env_steps, progress.episodes) == (60, 180, 600, 0)
    assert parts.replay.calls == {"batches": 60, "batch": 180}
    assert parts.learner.observed == 60
    assert parts.learner.rates[-1] == 0.0
    assert parts.learner.rates == sorted(parts.learner.rates, reverse=True)
    assert log[-1]["loss/action"] < 0.05 * log[0]["loss/action"]


def test_it_continues_exactly():
    check_exact_continuation(make)
