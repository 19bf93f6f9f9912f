"""As a chunked policy does: the pending chunk and its cursor are policy state, and only exhausted rows infer."""

import torch
from torch import nn

from robotrl.collect import Collector
from robotrl.replay import ReplayBuffer
from robotrl.runners.loop import Schedule
from robotrl.types import Part
from tests.envs_for_tests import Ragged
from tests.protocol.harness import Parts, check_exact_continuation

ENVS, STEPS, CHUNK = 3, 5, 3


class ChunkPolicy(nn.Module):
    obs_groups = ("state",)

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2 * CHUNK)
        self.inferred = 0

    def chunks(self, obs):
        return self.layer(obs).unflatten(-1, (CHUNK, 2))

    def initial_state(self, num_envs):
        return {"chunk": torch.zeros(num_envs, CHUNK, 2), "cursor": torch.full((num_envs,), CHUNK)}

    def reset_state(self, state, done):
        return {**state, "cursor": torch.where(done, CHUNK, state["cursor"])}

    @torch.no_grad()
    def act(self, obs, state, *, explore):
        decision = state["cursor"] >= CHUNK
        chunk, cursor = state["chunk"].clone(), torch.where(decision, 0, state["cursor"])
        if decision.any():
            fresh = self.chunks(obs["state"][decision])
            self.inferred += len(fresh)
            chunk[decision] = torch.sigmoid(fresh + 0.5 * torch.randn_like(fresh) * explore)
        action = chunk[torch.arange(len(cursor)), cursor]
        return action, {"chunk": chunk, "decision": decision}, {"chunk": chunk, "cursor": cursor + 1}


class ChunkLearner:
    """Regresses the executed actions of a chunk, weighted by reward, at the steps where one was decided."""

    def __init__(self):
        self.policy = self.acting = ChunkPolicy()
        self.adam = torch.optim.Adam(self.policy.parameters(), lr=1e-2)
        self.decisions = 0

    @property
    def batch_spec(self):
        return {"online": Part(kind="sequence", batch_size=6, length=CHUNK, within_episode=True)}

    def observe(self, fresh, progress):
        self.decisions += int(fresh["decision"].sum())

    def update(self, batch):
        data = batch["online"]
        error = (self.policy.chunks(data["obs/state"][0]) - data["action"].transpose(0, 1)).square().sum(-1)
        weight = data["valid"].t() * data["decision"][0].unsqueeze(-1)
        loss = (error * weight).sum() / weight.sum().clamp(min=1)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        return {"loss/chunk": loss.detach()}, None

    def state_dict(self):
        return {"policy": dict(self.policy.state_dict()), "adam": self.adam.state_dict(), "decisions": self.decisions}

    def load_state_dict(self, state):
        self.policy.load_state_dict(state["policy"])
        self.adam.load_state_dict(state["adam"])
        self.decisions = state["decisions"]


def make():
    collector = Collector(Ragged(num_envs=ENVS, length=7), seed=3)
    return Parts(ChunkLearner(), ReplayBuffer(300, ENVS, seed=4), collector, Schedule(STEPS, 1.5))


def test_only_exhausted_rows_infer_and_an_episode_end_discards_the_rest_of_a_chunk():
    parts = make()
    rollouts = []
    add = parts.replay.inner.add
    parts.replay.inner.add = lambda rollout: (rollouts.append(rollout), add(rollout))
    parts.run(12)
    whole = {k: torch.cat([r[k] for r in rollouts]) for k in ("decision", "is_first", "chunk", "action", "step")}
    assert torch.equal(whole["decision"], whole["step"] % CHUNK == 0)
    assert whole["decision"][whole["is_first"]].all()
    assert parts.learner.policy.inferred == parts.learner.decisions == int(whole["decision"].sum())
    assert parts.learner.policy.inferred < 0.6 * whole["decision"].numel()
    cursor = (whole["step"] % CHUNK)[..., None, None].expand(*whole["step"].shape, 1, 2)
    assert torch.equal(whole["chunk"].gather(2, cursor).squeeze(2), whole["action"])


def test_updates_with_nothing_to_write_back_write_nothing():
    parts = make().run(10)
    assert parts.progress.updates == 15
    assert parts.replay.calls == {"add": 10, "batches": 10, "batch": 15}


def test_it_continues_exactly_in_the_middle_of_chunks():
    parts = make().run(8)
    assert (parts.collector.state_dict()["policy_state"]["cursor"] % CHUNK != 0).any()
    check_exact_continuation(make, iterations=8)
