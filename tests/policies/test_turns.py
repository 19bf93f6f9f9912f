"""Who plays which episode when a frozen policy owes some steps."""

import torch

from robotrl.collect import Collector
from robotrl.policies.turns import EXPLORING, Turns
from robotrl.seeding import seed_everything
from tests import envs_for_tests as envs


class Still:
    """Always the same action, which tells who acted."""

    obs_groups = ("state",)

    def __init__(self, number):
        self.number = number

    def act(self, obs, state, *, explore):
        action = torch.tensor([self.number, 0.5]).expand(len(obs["state"]), 2).clone()
        return action, {"log_prob": torch.zeros(len(action))}, state


def turns(time_limit=8):
    return Turns(Still(0.0), time_limit, torch.device("cpu"))


def episodes(rollout, env=0):
    """The extra `member` of each episode of one env, which must be one value."""
    found = []
    for member, first, action in zip(
        rollout["member"][:, env], rollout["is_first"][:, env], rollout["action"][:, env, 0], strict=True
    ):
        assert action == (0.0 if member == EXPLORING else 1.0)
        if first:
            found.append(int(member))
        assert found[-1] == member, "an episode is played by one policy"
    return found


def test_without_a_call_the_learning_policy_plays():
    policy = turns()
    assert episodes(Collector(envs.Target(num_envs=1)).collect(policy, 24)) == [EXPLORING] * 3


def test_the_member_plays_whole_episodes_until_its_steps_are_made():
    for steps, count in ((1, 1), (8, 1), (9, 2), (16, 2)):
        policy = turns()
        policy.call(Still(1.0), 3, steps)
        assert episodes(Collector(envs.Target(num_envs=1)).collect(policy, 40)) == [3] * count + [EXPLORING] * (
            5 - count
        )


def test_a_call_in_the_middle_of_an_episode_waits_for_the_next():
    policy, collector = turns(), Collector(envs.Target(num_envs=1))
    rollouts = [collector.collect(policy, 5)]
    policy.call(Still(1.0), 0, 8)
    rollouts += [collector.collect(policy, steps) for steps in (2, 7, 10)]
    joined = {key: torch.cat([r[key] for r in rollouts]) for key in ("member", "is_first", "action")}
    assert episodes(joined) == [EXPLORING, 0, EXPLORING]


def test_the_next_member_plays_under_its_own_number():
    policy, collector = turns(), Collector(envs.Target(num_envs=1))
    policy.call(Still(1.0), 0, 8)
    rollouts = [collector.collect(policy, 15)]
    policy.call(Still(1.0), 1, 16)
    rollouts += [collector.collect(policy, 33)]
    joined = {key: torch.cat([r[key] for r in rollouts]) for key in ("member", "is_first", "action")}
    assert episodes(joined) == [0, EXPLORING, 1, 1, EXPLORING, EXPLORING]


def test_as_many_rows_play_as_the_steps_take():
    policy = turns()
    policy.call(Still(1.0), 0, 20)
    rollout = Collector(envs.Target(num_envs=5)).collect(policy, 16)
    assert [episodes(rollout, env) for env in range(5)] == [[0, EXPLORING]] * 3 + [[EXPLORING, EXPLORING]] * 2


def test_episodes_that_end_early_are_made_up_for():
    policy = turns()
    policy.call(Still(1.0), 0, 30)
    rollout = Collector(envs.Ragged(num_envs=2)).collect(policy, 60)  # lengths 1 to 8
    played = int((rollout["member"] == 0).sum())
    assert 30 <= played < 30 + 2 * 8
    assert episodes(rollout, 0)[-1] == episodes(rollout, 1)[-1] == EXPLORING


def test_without_a_time_limit_rows_take_their_turns_one_after_the_other():
    policy = turns(time_limit=None)
    policy.call(Still(1.0), 0, 20)
    rollout = Collector(envs.Target(num_envs=3)).collect(policy, 48)
    together = (rollout["member"] == 0).sum(1)
    assert together.max() == 1
    assert together.sum() == 24


def test_who_plays_survives_a_checkpoint():
    def run(split):
        seed_everything(0)
        policy, collector = turns(), Collector(envs.Target(num_envs=2), seed=1)
        policy.call(Still(1.0), 0, 24)
        first = collector.collect(policy, 5)["member"]
        if split:
            saved = collector.state_dict()
            collector = Collector(envs.Target(num_envs=2), seed=7)
            collector.load_state_dict(saved)
        return torch.cat([first, collector.collect(policy, 40)["member"]])

    assert torch.equal(run(split=False), run(split=True))
