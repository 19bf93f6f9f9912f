"""The scripted experts do every task, with noise too, notice what went wrong, and say what they cannot do."""

import numpy as np
import pytest
import torch

from robotrl.envs import make_vec
from robotrl.envs.tabletop.experts import PLANS, Expert, ExpertConfig
from robotrl.envs.tabletop.tasks import TASKS
from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.runners.evaluate import evaluate
from robotrl.types import Policy, RobotRLError


def test_every_task_has_a_plan():
    assert set(PLANS) == set(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_does_the_task_with_noise(task):
    env = make_vec(f"tabletop/{task}", num_envs=3)
    result = evaluate(Expert(None, env.env_spec), env, episodes=3, seed=11, explore=True)
    assert result.successes == [True] * 3


def test_the_expert_is_a_policy_by_name():
    env = make_vec("tabletop/reach", num_envs=2)
    policy = build_policy(PolicyConfig(kind="expert"), env.env_spec)
    assert isinstance(policy, Policy)
    assert policy.obs_groups == ("state", "privileged")
    result = evaluate(policy, env, episodes=2, seed=0)
    assert result.successes == [True, True]


def test_a_block_that_is_taken_away_is_picked_up_again():
    env = make_vec("tabletop/pick", num_envs=1)
    expert = Expert(None, env.env_spec)
    obs, _ = env.reset(seed=0)
    state = expert.initial_state(1)
    for k in range(190):
        action, _, state = expert.act({n: torch.as_tensor(v) for n, v in obs.items()}, state, explore=False)
        obs, _, terminated, _, infos = env.step(action.numpy())
        if k == 42:
            at = env.addresses.object_q[0]
            env.batch.bind("qpos")[0, at : at + 3] = [0.4, -0.2, 0.02]
        if terminated[0]:
            break
    assert infos["success"][0] and k > 80


def test_a_row_acts_the_same_whatever_runs_beside_it():
    env = make_vec("tabletop/stack", num_envs=3)
    expert = Expert(None, env.env_spec)
    obs, _ = env.reset(seed=0)
    state, single = expert.initial_state(3), expert.initial_state(1)
    for _ in range(40):
        tensors = {n: torch.as_tensor(v) for n, v in obs.items()}
        action, _, state = expert.act(tensors, state, explore=False)
        alone, _, single = expert.act({n: v[1:2] for n, v in tensors.items()}, single, explore=False)
        assert torch.equal(action[1], alone[0])
        obs, *_ = env.step(action.numpy())


def test_without_exploration_it_repeats_itself_and_with_it_it_varies():
    env = make_vec("tabletop/reach", num_envs=2)
    obs, _ = env.reset(seed=0)
    tensors = {n: torch.as_tensor(v) for n, v in obs.items()}
    expert = Expert(ExpertConfig(noise=0.3), env.env_spec)
    first, second = (expert.act(tensors, expert.initial_state(2), explore=False)[0] for _ in range(2))
    assert torch.equal(first, second)
    torch.manual_seed(0)
    noisy = [expert.act(tensors, expert.initial_state(2), explore=True)[0] for _ in range(2)]
    assert not torch.equal(noisy[0], noisy[1])
    low, high = env.single_action_space.low, env.single_action_space.high
    assert all((a.numpy() >= low).all() and (a.numpy() <= high).all() for a in (*noisy, first))


def test_beside_a_noisy_action_stands_the_one_that_was_meant():
    env = make_vec("tabletop/pick", num_envs=4)
    obs, _ = env.reset(seed=0)
    expert = Expert(ExpertConfig(noise=0.5), env.env_spec)
    state = expert.initial_state(4)
    for _ in range(5):
        tensors = {n: torch.as_tensor(v) for n, v in obs.items()}
        begun = state if state["pace"].all() else expert.act(tensors, state, explore=True)[2]  # with a speed drawn
        exact, extras, _ = expert.act(tensors, begun, explore=False)
        assert torch.equal(extras["expert_action"], exact)
        noisy, extras, state = expert.act(tensors, begun, explore=True)
        assert torch.equal(extras["expert_action"], exact)
        assert not torch.equal(noisy[:, :3], exact[:, :3])
        assert torch.equal(noisy[:, 3:], exact[:, 3:])
        obs, *_ = env.step(noisy.numpy())


def test_rows_that_are_done_begin_again():
    env = make_vec("tabletop/reach", num_envs=2)
    expert = Expert(None, env.env_spec)
    state = {name: torch.ones_like(value) for name, value in expert.initial_state(2).items()}
    fresh = expert.reset_state(state, torch.tensor([True, False]))
    for value in fresh.values():
        assert (value[0] == 0).all() and (value[1] == 1).all()


@pytest.mark.parametrize(
    ("env_id", "options", "says"),
    [
        ("Hopper-v5", {}, "no expert for the env 'Hopper-v5'"),
        ("tabletop/pick", {"control": "joint"}, "control=delta"),
    ],
)
def test_an_env_that_the_expert_cannot_act_in_is_refused(env_id, options, says):
    with pytest.raises(RobotRLError, match=says):
        Expert(None, make_vec(env_id, **options).env_spec)


@pytest.mark.parametrize(
    "settings", [{"speed": 1.2}, {"noise": -1.0}, {"noise_memory": 1.0}, {"speed_variation": -0.5}]
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(RobotRLError, match="expert"):
        ExpertConfig(**settings)


def test_expert_actions_survive_being_float32():
    env = make_vec("tabletop/press", num_envs=4)
    result = evaluate(Expert(None, env.env_spec), env, episodes=4, seed=5)
    assert np.all(result.successes)
