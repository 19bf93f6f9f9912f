"""As Dreamer does: a latent in the policy state, sequences with the latents stored at collection, newer ones back."""

import numpy as np
import torch
from torch import nn

from robotrl.collect import Collector
from robotrl.replay import ReplayBuffer
from robotrl.runners.loop import Schedule
from robotrl.types import Part
from tests.envs_for_tests import Ragged
from tests.protocol.harness import Parts, check_exact_continuation

ENVS, STEPS, LENGTH, BATCH, SIZE = 3, 4, 6, 5, 4


class LatentPolicy(nn.Module):
    obs_groups = ("state",)

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRUCell(2, SIZE), nn.Linear(SIZE, 2)

    def initial_state(self, num_envs):
        return {"latent": torch.zeros(num_envs, SIZE)}

    def reset_state(self, state, done):
        return {"latent": state["latent"] * ~done.unsqueeze(-1)}

    @torch.no_grad()
    def act(self, obs, state, *, explore):
        latent = self.cell(obs["state"], state["latent"])
        action = torch.sigmoid(self.head(latent) + torch.randn(len(latent), 2) * explore)
        return action, {"latent": latent}, {"latent": latent}


class DreamerLike:
    """Fits the reward from latents that start at the stored one before the window's second step."""

    def __init__(self):
        self.policy = self.acting = LatentPolicy()
        self.reward = nn.Linear(SIZE + 2, 1)
        self.adam = torch.optim.Adam([*self.policy.cell.parameters(), *self.reward.parameters()], lr=3e-3)
        self.shapes = set()

    @property
    def batch_spec(self):
        return {"online": Part(kind="sequence", batch_size=BATCH, length=LENGTH)}

    def observe(self, fresh, progress):
        assert fresh["latent"].shape == (STEPS, ENVS, SIZE)

    def update(self, batch):
        data = batch["online"]
        self.shapes.add(tuple(data["obs/state"].shape))
        latent, latents = data["latent"][0], []
        for t in range(1, LENGTH):
            latent = self.policy.cell(data["obs/state"][t], latent * ~data["is_first"][t].unsqueeze(-1))
            latents.append(latent)
        stacked = torch.stack(latents)
        predicted = self.reward(torch.cat([stacked, data["action"][1:]], -1)).squeeze(-1)
        loss = (predicted - data["reward"][1:]).square().mean()
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        return {"loss/model": loss.detach()}, {"row": data["row"][1:], "latent": stacked.detach()}

    def state_dict(self):
        return {
            "policy": dict(self.policy.state_dict()),
            "reward": dict(self.reward.state_dict()),
            "adam": self.adam.state_dict(),
        }

    def load_state_dict(self, state):
        self.policy.load_state_dict(state["policy"])
        self.reward.load_state_dict(state["reward"])
        self.adam.load_state_dict(state["adam"])


def make(capacity=600):
    replay = ReplayBuffer(capacity, ENVS, seed=4, omit=("next_obs",))
    collector = Collector(Ragged(num_envs=ENVS, copy=False), seed=3)
    return Parts(DreamerLike(), replay, collector, Schedule(STEPS, 2.5, warmup_env_steps=2 * STEPS * ENVS))


def test_sequences_start_once_there_is_enough_and_come_time_major():
    parts = make().run(9)
    assert parts.learner.shapes == {(LENGTH, BATCH, 2)}
    assert parts.progress.updates == int(2.5 * 9) - int(2.5 * 1)
    assert parts.replay.calls["write"] == parts.progress.updates


def test_stored_latents_are_those_that_acted():
    parts = make()
    parts.schedule = Schedule(STEPS, 0.0)
    parts.run(5)
    data = parts.replay.inner._storage.take(np.arange(5 * STEPS * ENVS).reshape(-1, ENVS))
    latent = torch.zeros(ENVS, SIZE)
    for t in range(5 * STEPS):
        latent = parts.learner.policy.cell(data["obs/state"][t], latent * ~data["is_first"][t].unsqueeze(-1))
        torch.testing.assert_close(data["latent"][t], latent.detach(), rtol=0, atol=1e-6)


def test_recomputed_latents_replace_the_stored_ones_by_row_id():
    parts = make().run(8)
    learner, replay = parts.learner, parts.replay
    batch = next(replay.inner.batches(learner.batch_spec, 1))
    _, rows = learner.update(batch)
    replay.write(rows)
    now = replay.inner._storage.take(rows["row"].numpy())["latent"]
    last = {int(r): value for r, value in zip(rows["row"].flatten(), rows["latent"].flatten(0, 1), strict=True)}
    expected = torch.stack([last[int(r)] for r in rows["row"].flatten()]).view_as(now)
    assert torch.equal(now, expected)
    assert not torch.equal(now, batch["online"]["latent"][1:])


def test_windows_overtaken_by_the_write_head_are_not_written():
    parts = make(capacity=ENVS * 10).run(6)
    batch = next(parts.replay.inner.batches(parts.learner.batch_spec, 1))
    _, rows = parts.learner.update(batch)
    fresh = [parts.collector.collect(parts.learner.acting, STEPS) for _ in range(3)]
    for rollout in fresh:
        parts.replay.add(rollout)
    parts.replay.write(rows)
    first = parts.replay.inner._storage.first_row
    data = parts.replay.inner._storage.take(np.arange(first, parts.replay.inner._storage.end_row))
    collected = torch.cat([rollout["latent"] for rollout in fresh])[-10:].flatten(0, 1)
    assert torch.equal(data["latent"], collected)


def test_it_continues_exactly():
    check_exact_continuation(make)


def test_it_continues_exactly_when_the_ring_has_wrapped():
    check_exact_continuation(lambda: make(capacity=ENVS * 11))
