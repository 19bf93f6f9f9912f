import pytest
import torch

from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.types import ActionSpec, ArraySpec, EnvSpec, RobotRLError

UNBOUNDED = ActionSpec("continuous", (2,), (-torch.inf,) * 2, (torch.inf,) * 2)
BOUNDED = ActionSpec("continuous", (2,), (-1.0, 0.0), (1.0, 4.0))


def spec(action=BOUNDED, limit=4, obs=None):
    return EnvSpec("test", obs or {"state": ArraySpec((3,))}, action, time_limit=limit)


def build(**changes):
    torch.manual_seed(0)
    return build_policy(PolicyConfig(kind="stepwise", hidden=[8], normalise_obs=False), spec(**changes))


def test_every_row_is_played_by_the_network_of_its_step():
    policy, obs = build(), {"state": torch.randn(5, 3)}
    step = torch.tensor([2, 0, 3, 2, 1])
    together, _, after = policy.act(obs, {"step": step}, explore=False)
    for i in range(5):
        row = {"state": obs["state"][i : i + 1]}
        alone, _, _ = policy.act(row, {"step": step[i : i + 1]}, explore=False)
        torch.testing.assert_close(together[i : i + 1], alone)
    assert after["step"].tolist() == [3, 1, 4, 3, 2]
    again, _, _ = policy.act(obs, {"step": torch.zeros(5, dtype=torch.int64)}, explore=False)
    assert not torch.allclose(again[0], together[0])


def test_a_finished_row_begins_again_and_the_others_go_on():
    policy = build()
    state = policy.reset_state({"step": torch.tensor([4, 2])}, torch.tensor([True, False]))
    assert state["step"].tolist() == [0, 2]


def test_exploration_starts_with_the_deviation_that_is_asked_for_in_units_of_the_bounds():
    policy = build(action=UNBOUNDED)
    obs = {"state": torch.zeros(4000, 3)}
    state = policy.initial_state(4000)
    action, extras, _ = policy.act(obs, state, explore=True)
    assert action.std(0).tolist() == pytest.approx([1.0, 1.0], rel=0.05)
    assert torch.equal(action, extras["raw_action"])


def test_what_is_executed_of_a_raw_action_lies_within_the_bounds():
    policy = build()
    raw = torch.tensor([[-3.0, 0.5], [0.0, 2.0]])
    assert policy.unit(raw).tolist() == [[-1.0, 0.5], [0.0, 1.0]]
    assert torch.equal(policy.unit(raw.t(), axis=-2), policy.unit(raw).t())
    torch.testing.assert_close(policy.actions.to_env(raw), policy.actions.to_env(policy.unit(raw)))
    assert torch.equal(build(action=UNBOUNDED).unit(raw), raw)


def test_an_episode_beyond_the_horizon_is_refused():
    policy = build()
    with pytest.raises(RobotRLError, match="for 4 steps"):
        policy.act({"state": torch.zeros(1, 3)}, {"step": torch.tensor([4])}, explore=False)
    with pytest.raises(RobotRLError, match="last 9"):
        policy.check_env(spec(limit=9))
    policy.check_env(spec(limit=3))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"action": ActionSpec("discrete", num_actions=3)}, "discrete actions"),
        ({"limit": None}, "as long as they like"),
        ({"limit": 10**6}, "at most 10000"),
        ({"obs": {"image/front": ArraySpec((3, 8, 8), "uint8")}}, "only images"),
    ],
)
def test_what_it_is_not_made_for_is_refused(changes, text):
    with pytest.raises(RobotRLError, match=text):
        build(**changes)
