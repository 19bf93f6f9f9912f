"""As PROPS does: a behaviour policy that is not the target, several target batches in the buffer, clocks of its own."""

import copy

import torch

from robotrl.collect import Collector
from robotrl.replay import RolloutBuffer
from robotrl.runners.loop import Schedule
from robotrl.types import Part
from tests.envs_for_tests import Target
from tests.protocol.harness import Linear, Parts, check_exact_continuation

ENVS, STEPS, TARGET_EVERY, BATCHES = 3, 4, 4, 2


class PropsLike:
    """Behaviour update every m steps (each iteration), target update every n = 4 m before it."""

    def __init__(self):
        self.policy = Linear(2, 2)
        self.acting = copy.deepcopy(self.policy)
        self.adam = torch.optim.Adam(self.policy.parameters(), lr=1e-2)
        self.collected = self.target_updates = self.behaviour_updates = self.observed = 0
        self.seen = []

    @property
    def batch_spec(self):
        return {"buffer": Part(kind="rollout")}

    def observe(self, fresh, progress):
        self.observed += 1
        self.collected += fresh["reward"].numel()

    def update(self, batch):
        rollout = batch["buffer"]
        obs, raw = rollout["obs/state"], rollout["raw_action"]
        self.seen.append(rollout["reward"].shape[0])
        if self.collected % (ENVS * STEPS * TARGET_EVERY) == 0:
            loss = -(self.policy.log_prob(obs, raw) * rollout["reward"]).mean()
            self.adam.zero_grad()
            loss.backward()
            self.adam.step()
            self.target_updates += 1
        self.acting.load_state_dict(self.policy.state_dict())
        loss = self.acting.log_prob(obs, raw).mean()
        gradients = torch.autograd.grad(loss, list(self.acting.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(self.acting.parameters(), gradients, strict=True):
                parameter.sub_(0.01 * gradient)
            log_prob = self.policy.log_prob(obs, raw)
        self.behaviour_updates += 1
        return {"loss/behaviour": loss.detach()}, {"row": rollout["row"], "target_log_prob": log_prob}

    def state_dict(self):
        return {
            "policy": dict(self.policy.state_dict()),
            "acting": dict(self.acting.state_dict()),
            "adam": self.adam.state_dict(),
            "collected": self.collected,
        }

    def load_state_dict(self, state):
        self.policy.load_state_dict(state["policy"])
        self.acting.load_state_dict(state["acting"])
        self.adam.load_state_dict(state["adam"])
        self.collected = state["collected"]


def make():
    env = Target(num_envs=ENVS, length=7, copy=False)
    return Parts(PropsLike(), RolloutBuffer(TARGET_EVERY * BATCHES), Collector(env, seed=3), Schedule(STEPS, 1.0))


def test_the_behaviour_policy_collects_and_the_learner_keeps_its_own_clocks():
    parts = make().run(13)
    learner = parts.learner
    assert learner.acting.acts == 13 * STEPS
    assert learner.policy.acts == 0
    assert (learner.observed, learner.behaviour_updates, learner.target_updates) == (13, 13, 3)
    assert parts.replay.calls == {"add": 13, "batches": 13, "batch": 13, "write": 13}
    assert parts.progress.env_steps == 13 * STEPS * ENVS
    assert learner.seen == [STEPS * min(i, TARGET_EVERY * BATCHES) for i in range(1, 14)]


def test_recomputed_log_probs_stay_with_their_rows_while_rollouts_come_and_go():
    parts = make().run(11)
    rollout = next(parts.replay.inner.batches(parts.learner.batch_spec, 1))["buffer"]
    expected = parts.learner.policy.log_prob(rollout["obs/state"], rollout["raw_action"])
    torch.testing.assert_close(rollout["target_log_prob"], expected.detach(), rtol=0, atol=0)
    collected = parts.collector.collect(parts.learner.acting, STEPS)
    parts.replay.add(collected)
    after = next(parts.replay.inner.batches(parts.learner.batch_spec, 1))["buffer"]
    assert torch.equal(after["target_log_prob"][:-STEPS], rollout["target_log_prob"][STEPS:])
    assert (after["target_log_prob"][-STEPS:] == 0).all()
    # ids of the rollout before, of which the oldest part is gone: only what is still here is written
    parts.replay.write({"row": rollout["row"], "target_log_prob": rollout["row"].float()})
    final = next(parts.replay.inner.batches(parts.learner.batch_spec, 1))["buffer"]
    assert torch.equal(final["target_log_prob"][:-STEPS], final["row"][:-STEPS].float())
    assert (final["target_log_prob"][-STEPS:] == 0).all()


def test_it_continues_exactly():
    check_exact_continuation(make)
