"""The tables hold what their papers say."""

import numpy as np
import pytest

from robotrl.envs import make_vec
from robotrl.envs.tabular import table_of
from robotrl.types import RobotRLError


def play(env, *actions):
    """Rewards and ends of the first row."""
    rewards, ends = [], []
    for action in actions:
        _, reward, terminated, truncated, _ = env.step(np.full(env.num_envs, action))
        rewards.append(float(reward[0]))
        ends.append((bool(terminated[0]), bool(truncated[0])))
    return rewards, ends


@pytest.mark.parametrize(("actions", "pays"), [((0, 0), 2.0), ((0, 1), 0.5), ((1, 0), 1.0), ((1, 1), 1.0)])
def test_two_steps_pay_two_a_half_or_one(actions, pays):
    env = make_vec("TwoStep", num_envs=2)
    env.reset(seed=0)
    assert play(env, *actions) == ([0.0, pays], [(False, False), (True, False)])


def test_the_two_step_task_shows_seven_states_one_hot_and_its_end_before_the_reset():
    env = make_vec("TwoStep", num_envs=1)
    obs, _ = env.reset(seed=0)
    seen = [obs["state"][0]]
    obs, *_ = env.step(np.array([0]))
    seen.append(obs["state"][0])
    obs, _, _, _, infos = env.step(np.array([0]))
    seen += [infos["final_obs"]["state"][0], obs["state"][0]]
    assert np.array(seen).argmax(1).tolist() == [0, 1, 3, 0]
    assert (np.array(seen).sum(1) == 1).all()
    assert seen[0].shape == (7,)
    assert infos["success"].tolist() == [True]


def test_the_room_starts_in_the_middle_and_its_corners_pay_and_end():
    env = make_vec("GridWorld", num_envs=1)
    obs, _ = env.reset(seed=0)
    assert obs["state"][0].argmax() == 12
    rewards, ends = play(env, 0, 0, 2, 2)  # up and left: the small prize
    assert rewards == pytest.approx([-0.01, -0.01, -0.01, 0.5])
    assert ends[-1] == (True, False)
    rewards, ends = play(env, 1, 1, 3, 3)  # down and right: the large one
    assert rewards[-1] == 1.0
    assert ends[-1] == (True, False)


def test_walls_stop_a_move_and_the_room_closes_after_three_steps_a_side():
    env = make_vec("GridWorld", num_envs=1)
    env.reset(seed=0)
    _, ends = play(env, *[0] * 15)
    assert ends == [(False, False)] * 14 + [(False, True)]
    large = table_of("GridWorld", side=9)
    assert (large.start, large.time_limit, len(large.end)) == (40, 27, 81)


def test_a_picture_shows_who_acts_where():
    env = make_vec("GridWorld", num_envs=2)
    env.reset(seed=0)
    before = env.render_rows([0, 1], height=100, width=140)
    env.step(np.array([3, 0]))
    after = env.render_rows([0, 1], height=100, width=140)
    assert before.shape == (2, 100, 140, 3)
    assert (before[0] == before[1]).all()
    assert (before[0, 50, 70] == [51, 89, 191]).all()
    assert (after[0, 50, 90] == [51, 89, 191]).all()
    assert (after[1, 30, 70] == [51, 89, 191]).all()


def test_mistakes_are_named():
    with pytest.raises(RobotRLError, match=r"GridWorld has no option 'sides'\. Did you mean side"):
        make_vec("GridWorld", sides=4)
    with pytest.raises(RobotRLError, match="side is 2; a room has 3 to 100"):
        make_vec("GridWorld", side=2)
    with pytest.raises(RobotRLError, match="max_episode_steps is 0"):
        make_vec("TwoStep", max_episode_steps=0)
    env = make_vec("TwoStep", num_envs=2)
    with pytest.raises(RobotRLError, match="Call reset"):
        env.step(np.zeros(2, int))
    env.reset()
    with pytest.raises(RobotRLError, match=r"shape \(3,\)"):
        env.step(np.zeros(3, int))
    other = make_vec("TwoStep", num_envs=3)
    with pytest.raises(RobotRLError, match="TwoStep with 7 states and 2 envs"):
        other.load_state_dict(env.state_dict())
