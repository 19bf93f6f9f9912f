"""As AILBoost does: three parts of two sources, a weighted one, and a mixture whose member is chosen per episode."""

import numpy as np
import torch
from torch import nn

from robotrl.collect import Collector
from robotrl.replay import MixedReplay, ReplayBuffer
from robotrl.runners.loop import Schedule
from robotrl.types import Part
from tests.envs_for_tests import Ragged, Target
from tests.protocol.harness import Linear, Parts, check_exact_continuation

ENVS, STEPS, ROUND, ETA = 4, 5, 3, 0.3
UPDATES = 0.4


class Mixture(nn.Module):
    """Every episode is played by one member, drawn by the mixture's weights, or by the newest."""

    obs_groups = ("state",)

    def __init__(self, members, *, newest_only):
        super().__init__()
        self.members, self.newest_only = members, newest_only

    def weights(self):
        """w_1 = (1 - eta)^(k - 1), w_j = eta (1 - eta)^(k - j)."""
        k = len(self.members)
        return torch.tensor([(1 - ETA) ** (k - 1)] + [ETA * (1 - ETA) ** (k - j) for j in range(2, k + 1)])

    def _draw(self, count):
        if self.newest_only:
            return torch.full((count,), len(self.members) - 1)
        return torch.multinomial(self.weights(), count, replacement=True)

    def initial_state(self, num_envs):
        return {"member": self._draw(num_envs)}

    def reset_state(self, state, done):
        return {"member": torch.where(done, self._draw(len(done)), state["member"])}

    def act(self, obs, state, *, explore):
        each = [member.act(obs, {}, explore=explore)[0] for member in self.members]
        action = torch.stack(each)[state["member"], torch.arange(len(state["member"]))]
        # relative weights of members never change if each new one counts more, instead of every old row less
        column = torch.tensor([1.0] + [ETA / (1 - ETA) ** j for j in range(1, len(self.members))])
        return action, {"member": state["member"], "weight": column[state["member"]]}, state


class AILBoostLike:
    def __init__(self):
        self.members = nn.ModuleList([Linear(2, 2)])
        self.policy = Mixture(self.members, newest_only=False)
        self.acting = Mixture(self.members, newest_only=True)
        self.discriminator = nn.Linear(4, 1)
        self.sgd = torch.optim.SGD(self.discriminator.parameters(), lr=0.1)
        self.iterations = self.updates = 0

    @property
    def batch_spec(self):
        return {
            "rl": Part("online", "transition", 6),
            "disc": Part("online", "transition", 8, weight_by="weight"),
            "expert": Part("demos", "transition", 8),
        }

    def observe(self, fresh, progress):
        self.iterations += 1
        if self.iterations % ROUND == 0:
            self.members.append(Linear(2, 2))

    def _score(self, part):
        return self.discriminator(torch.cat([part["obs/state"], part["action"]], -1)).squeeze(-1)

    def update(self, batch):
        assert list(batch) == ["rl", "disc", "expert"]
        loss = torch.exp(-self._score(batch["expert"])).mean() + self._score(batch["disc"]).mean()
        self.sgd.zero_grad()
        loss.backward()
        self.sgd.step()
        self.updates += 1
        both = {key: torch.cat([batch["rl"][key], batch["expert"][key]]) for key in ("row", "obs/state", "action")}
        return {"loss/disc": loss.detach()}, {"row": both["row"], "score": self._score(both).detach()}

    def state_dict(self):
        return {
            "members": [dict(m.state_dict()) for m in self.members],
            "discriminator": dict(self.discriminator.state_dict()),
            "sgd": self.sgd.state_dict(),
            "iterations": self.iterations,
        }

    def load_state_dict(self, state):
        while len(self.members) < len(state["members"]):
            self.members.append(Linear(2, 2))
        for member, saved in zip(self.members, state["members"], strict=True):
            member.load_state_dict(saved)
        self.discriminator.load_state_dict(state["discriminator"])
        self.sgd.load_state_dict(state["sgd"])
        self.iterations = state["iterations"]


def demos():
    return Collector(Target(num_envs=1), seed=9).collect(Linear(2, 2), 40)


def make():
    replay = MixedReplay({"online": ReplayBuffer(400, ENVS, seed=1), "demos": ReplayBuffer(40, 1, seed=2)})
    replay.sources["demos"].add(demos())
    return Parts(AILBoostLike(), replay, Collector(Ragged(num_envs=ENVS), seed=3), Schedule(STEPS, UPDATES))


def test_updates_are_exactly_those_scheduled_with_the_fraction_carried_over():
    parts = make()
    for i in range(1, 15):
        parts.run(1)
        assert parts.learner.updates == parts.progress.updates == int(UPDATES * i)
    assert parts.replay.calls == {"add": 14, "batches": 14, "batch": 5, "write": 5}


def test_warm_up_owes_no_updates():
    parts = make()
    parts.schedule = Schedule(STEPS, 2.0, warmup_env_steps=3 * STEPS * ENVS)
    assert parts.run(2).learner.updates == 0
    assert parts.run(1).learner.updates == 2
    assert parts.run(1).learner.updates == 4


def test_a_weighted_part_draws_members_by_their_mixture_weights():
    parts = make().run(4 * ROUND)
    online = parts.replay.inner.sources["online"]
    spec = {"disc": Part("online", "transition", 30_000, weight_by="weight")}
    batch = next(online.batches(spec, 1))["disc"]
    stored = online._storage.take(np.arange(len(online)))
    weights, played = parts.learner.policy.weights()[:-1], torch.bincount(stored["member"])
    rows = torch.zeros(len(played)).index_add(0, stored["member"], stored["weight"])
    shares = torch.bincount(batch["member"], minlength=len(played)) / 30_000
    torch.testing.assert_close(shares, rows / rows.sum(), atol=0.015, rtol=0)
    assert len(played) == 4
    torch.testing.assert_close((rows / played) / (rows / played)[0], weights / weights[0])


def test_the_member_is_part_of_the_policy_state_and_lasts_an_episode():
    parts = make().run(3 * ROUND)
    rollout = parts.collector.collect(parts.learner.policy, 60)
    changes = rollout["member"][1:] != rollout["member"][:-1]
    assert changes.any()
    assert rollout["is_first"][1:][changes].all()
    assert len(rollout["member"].unique()) > 1


def test_written_scores_find_their_way_to_the_store_that_served_the_row():
    parts = make().run(12)
    for name, count in (("online", 240), ("demos", 40)):
        store = parts.replay.inner.sources[name]
        score = store._storage.take(np.arange(count))["score"]
        assert 0 < (score != 0).sum() < count
    spec = {k: v for k, v in parts.learner.batch_spec.items() if k != "disc"}
    batch = next(parts.replay.inner.batches(spec, 1))
    marked = torch.cat([batch["rl"]["row"], batch["expert"]["row"]])
    parts.replay.write({"row": marked, "score": torch.arange(14.0) + 100})
    assert (parts.replay.inner.sources["online"]._storage.fields["score"] >= 100).sum() == len(
        batch["rl"]["row"].unique()
    )
    assert (parts.replay.inner.sources["demos"]._storage.fields["score"] >= 106).sum() == len(
        batch["expert"]["row"].unique()
    )


def test_it_continues_exactly():
    check_exact_continuation(make, iterations=7)
