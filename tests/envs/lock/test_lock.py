"""The combination lock is the one of Zhou et al. (2023): its construction against the written specification."""

import json

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard

from robotrl.envs import make_vec
from robotrl.envs.experts import expert_for
from robotrl.envs.lock.observations import walsh_hadamard
from robotrl.envs.lock.vector_env import DEAD, NUM_ACTIONS
from robotrl.types import EnvSpec, RobotRLError
from tests.lock_features import tiny_features

ROWS = 4000


def lock(**options):
    env = make_vec("lock/combination", **({"num_envs": ROWS} | options))
    env.reset(seed=3)
    return env


def unit(index):
    return np.eye(NUM_ACTIONS, dtype=np.float32)[index]


def latent(obs):
    return obs["privileged"][:, 0].astype(int)


def play(env, choose):
    """One episode in every row: hidden states before each step, rewards, final observations, success."""
    obs = {"privileged": env._obs["privileged"].copy(), "state": env._obs["state"].copy()}
    states, rewards = [], []
    for _ in range(env.horizon):
        states.append(latent(obs))
        obs, reward, terminated, truncated, infos = env.step(choose(obs).astype(np.float32))
        rewards.append(reward)
    assert terminated.all() and truncated.all()
    return np.stack(states), np.stack(rewards), infos


def right(obs):
    return unit(obs["privileged"][:, 2].astype(int))


def within(count, n, p):
    """Five standard errors around what is expected."""
    assert abs(count - n * p) < 5 * np.sqrt(n * p * (1 - p)) + 1, (count, n, p)


def test_the_transform_is_the_hadamard_matrix():
    x = np.random.default_rng(0).standard_normal((5, 32)).astype(np.float32)
    np.testing.assert_allclose(walsh_hadamard(x.copy()), x @ hadamard(32), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("horizon", "dim"), [(1, 8), (4, 8), (5, 16), (10, 16), (12, 16), (13, 32), (15, 32), (30, 64), (50, 64)]
)
def test_an_observation_has_the_least_power_of_two_from_horizon_plus_4_on(horizon, dim):
    assert lock(horizon=horizon, num_envs=1).env_spec.obs["state"].shape == (dim,)


def test_observations_decode_to_state_step_and_noise_of_a_tenth():
    env = lock(horizon=5)
    obs = {k: v.copy() for k, v in env._obs.items()}
    decode = hadamard(16) / 16.0
    for step in range(6):
        code = obs["state"].astype(np.float64) @ decode
        expected = np.zeros_like(code)
        expected[np.arange(ROWS), latent(obs)] += 1.0
        expected[:, 3 + step] += 1.0
        noise = code - expected
        np.testing.assert_allclose(noise[:, 8:], 0.0, atol=1e-5)  # beyond horizon + 3 entries there is none
        assert noise[:, :8].std() == pytest.approx(0.1, rel=0.03)
        assert abs(noise[:, :8].mean()) < 0.003
        assert (obs["privileged"][:, 1] == step).all()
        if step < 5:
            after, _, _, _, infos = env.step(right(obs))
            obs = infos.get("final_obs", after)


def test_who_plays_the_combination_opens_every_lock_and_is_paid_one_at_the_end():
    env = lock(horizon=5)
    states, rewards, infos = play(env, right)
    # a softmax at temperature 0.1 misses with probability 1 - e^10 / (e^10 + 9) a step
    miss = 1 - (1 - 9 / (np.exp(10) + 9)) ** 5
    within((rewards[-1] != 1).sum(), ROWS, miss)
    assert (rewards[:-1] == 0).all()
    assert (infos["success"] == (rewards[-1] == 1)).all()
    within((states[0] == 0).sum(), ROWS, 0.5)
    alive = (states[1:] < DEAD).all(0)
    within((states[1:, alive] == 0).sum(), 4 * alive.sum(), 0.5)  # state 0 or 1 by lot, whatever it was


def test_a_wrong_action_leads_to_the_dead_state_for_good():
    env = lock(horizon=5)
    states, _, infos = play(env, lambda obs: unit((obs["privileged"][:, 2].astype(int) + 1) % NUM_ACTIONS))
    assert (states[2:, states[1] == DEAD] == DEAD).all()
    assert (states[1] == DEAD).mean() > 0.99
    assert infos["success"].mean() < 0.01


def test_in_the_code_every_failure_may_be_paid_at_the_last_step_only():
    states, rewards, _ = play(lock(horizon=5), lambda obs: np.zeros((ROWS, NUM_ACTIONS)))
    assert (rewards[:-1] == 0).all()
    dead = states[-1] == DEAD
    assert set(np.unique(rewards[-1])) == {0.0, 0.1, 1.0} or set(np.unique(rewards[-1])) == {0.0, 0.1}
    within((rewards[-1, dead] == 0.1).sum(), dead.sum(), 0.5)


def test_in_the_paper_the_step_that_leaves_the_good_states_may_be_paid():
    states, rewards, _ = play(lock(horizon=5, anti_reward="paper"), lambda obs: np.zeros((ROWS, NUM_ACTIONS)))
    leaves = np.zeros_like(states, dtype=bool)
    leaves[:-1] = (states[:-1] < DEAD) & (states[1:] == DEAD)
    within((rewards[:-1][leaves[:-1]] == 0.1).sum(), leaves.sum(), 0.5)
    assert (rewards[:-1][~leaves[:-1]] == 0).all()
    assert (rewards[-1][states[-1] == DEAD] == 0).all()


def test_hidden_actions_follow_the_softmax_at_its_temperature():
    env = lock(horizon=1, instance=4)
    action = np.zeros((ROWS, NUM_ACTIONS), np.float32)
    action[:, env.right[0, 0]] = 0.2  # e^2 against nine times one
    chance = np.exp(2.0) / (np.exp(2.0) + 9.0)
    zero = env._latent == 0
    if env.right[0, 0] == env.right[0, 1]:
        zero[:] = True
    _, reward, *_ = env.step(action)
    within((reward[zero] == 1).sum(), zero.sum(), chance)


def test_an_instance_is_a_lock_of_its_own():
    combinations = [lock(horizon=30, instance=i, num_envs=1).right[:-1, :2] for i in (0, 0, 1)]
    assert (combinations[0] == combinations[1]).all()
    assert (combinations[0] != combinations[2]).mean() > 0.7
    counts = np.bincount(
        np.concatenate([lock(horizon=30, instance=i, num_envs=1).right[:-1, :2].ravel() for i in range(50)])
    )
    assert len(counts) == NUM_ACTIONS and counts.min() > 0.7 * counts.mean()


@pytest.mark.parametrize(("horizon", "share"), [(5, 0.370), (10, 0.388)])
def test_the_offline_data_open_the_lock_as_often_as_the_authors_do(horizon, share):
    env, n = lock(horizon=horizon), 3 * ROWS
    expert = expert_for(None, env.env_spec)
    torch.manual_seed(0)
    opened = sum(
        play(
            env,
            lambda obs: expert.act({"privileged": torch.from_numpy(obs["privileged"])}, {}, explore=True)[0].numpy(),
        )[2]["success"].sum()
        for _ in range(3)
    )
    within(opened, n, share)


def test_without_exploring_the_expert_plays_the_combination():
    env = lock(num_envs=8)
    expert = expert_for(None, env.env_spec)
    action, extras, state = expert.act({"privileged": torch.from_numpy(env._obs["privileged"])}, {}, explore=False)
    assert (action.numpy() == right(env._obs)).all()
    assert extras == {} and state == {}


def test_actions_beyond_the_bounds_are_clipped_and_without_bounds_they_count():
    action = np.full((ROWS, NUM_ACTIONS), 1.0, np.float32)
    bounded, free = lock(horizon=1), lock(horizon=1, action_bound=None)
    action[:, bounded.right[0, 0]] = 3.0
    zero = bounded._latent == 0
    assert (bounded.step(action)[1][zero] == 1).mean() < 0.2
    assert (free.step(action)[1][zero] == 1).mean() > 0.99


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"horizon": 15, "obs_dim": 16}, "cannot encode a lock with a horizon of 15"),
        ({"obs_dim": 24}, "a power of two of at least horizon + 4"),
        ({"horizon": 0}, "'horizon' of lock/combination is 0"),
        ({"horizon": 10**9}, "up to 500"),
        ({"temperature": 0}, "must be a number above zero"),
        ({"anti_reward": "papre"}, "Did you mean 'paper'"),
        ({"horizn": 5}, "Did you mean 'horizon'"),
        ({"randomise": {"x": 1}}, "no physics"),
        ({"max_episode_steps": 0}, "must be at least 1"),
    ],
)
def test_a_lock_that_cannot_be_is_refused_in_one_sentence(options, text):
    with pytest.raises(RobotRLError, match=text.replace("(", r"\(").replace("+", r"\+")):
        make_vec("lock/combination", **options)


def test_the_same_lock_without_copies_reuses_its_arrays():
    env = make_vec("lock/combination", num_envs=2, copy=False)
    obs, _ = env.reset(seed=0)
    assert env.step(np.zeros((2, NUM_ACTIONS), np.float32))[0]["state"] is obs["state"]


def test_a_spec_without_bounds_is_valid_json():
    spec = lock(num_envs=1, action_bound=None).env_spec
    text = json.dumps(spec.to_json(), allow_nan=False)
    assert EnvSpec.from_json(json.loads(text)) == spec


def test_a_non_finite_action_is_refused():
    env = lock(num_envs=1)
    with pytest.raises(RobotRLError, match="not finite"):
        env.step(np.full((1, NUM_ACTIONS), np.nan, np.float32))


def test_the_state_of_another_lock_is_refused():
    state = lock(num_envs=2).state_dict()
    with pytest.raises(RobotRLError, match="Make the env as the run"):
        lock(num_envs=2, instance=1).load_state_dict(state)


def test_a_picture_of_a_lock_lights_its_state():
    frames = lock(num_envs=2).render_rows([0, 1], height=60, width=120)
    assert frames.shape == (2, 60, 120, 3) and frames.dtype == np.uint8
    assert (frames == (214, 110, 32)).all(-1).any()


class TestImages:
    def make(self, **options):
        return make_vec("lock/images", **({"num_envs": 200, "features": tiny_features()} | options))

    def test_an_observation_is_a_picture_of_the_character_for_state_and_step(self):
        env = self.make(horizon=5)
        obs, _ = env.reset(seed=0)
        vectors = env._observer._features.vectors
        for step in range(5):
            shown = vectors[3 * step + latent(obs)]  # [rows, pictures, D]
            assert (np.abs(shown - obs["state"][:, None]).max(-1).min(-1) == 0).all()
            obs, *_ = env.step(right(obs))

    def test_no_picture_is_in_both_splits(self):
        train, test = (self.make(num_envs=1, split=s)._observer._features.pictures for s in ("train", "test"))
        seen = {picture.tobytes() for picture in train.reshape(-1, 32 * 32)}
        assert len(seen) == train.shape[0] * train.shape[1]
        assert not any(picture.tobytes() in seen for picture in test.reshape(-1, 32 * 32))

    def test_features_have_length_one(self):
        np.testing.assert_allclose(np.linalg.norm(self.make()._observer._features.vectors, axis=-1), 1.0, rtol=1e-5)

    def test_a_lock_longer_than_the_characters_is_refused(self):
        with pytest.raises(RobotRLError, match="needs pictures of 39 characters"):
            self.make(horizon=12)

    @pytest.mark.parametrize("folder", ["", "/nowhere"])
    def test_without_features_the_message_says_how_to_make_them(self, folder):
        with pytest.raises(RobotRLError, match=r"python -m robotrl\.envs\.lock\.build"):
            self.make(features=folder)

    def test_a_damaged_file_is_refused(self, tmp_path):
        (tmp_path / "features.safetensors").write_bytes(b"x" * 100)
        with pytest.raises(RobotRLError, match="cannot be read"):
            self.make(features=str(tmp_path))

    def test_the_same_seed_makes_the_same_pictures(self, tmp_path):
        from robotrl.envs.lock.build import Recipe, build
        from robotrl.envs.lock.features import Features

        recipe = Recipe(train_pictures=2, test_pictures=2, steps=1, dim=4, probe_steps=5, characters="ABC")
        for name in ("a", "b"):
            build(tmp_path / name, recipe)
        one, other = (Features.load(str(tmp_path / name), "train") for name in ("a", "b"))
        assert (one.pictures == other.pictures).all()
        np.testing.assert_allclose(one.vectors, other.vectors, atol=1e-6)
        assert 0 <= one.facts["probe"]["test"] <= 1
