from typing import ClassVar

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary

from robotrl.collect import Collector
from robotrl.types import ArraySpec, EnvSpec, RobotRLError
from tests import envs_for_tests as envs


class Constant:
    """A policy that does the same thing everywhere, counts its steps in its state and tells them in its extras."""

    obs_groups = ("state",)

    def __init__(self, action):
        self.action, self.seen = torch.as_tensor(action), []

    def initial_state(self, num_envs):
        return {"count": torch.zeros(num_envs, dtype=torch.int64)}

    def reset_state(self, state, done):
        return {"count": torch.where(done, 0, state["count"])}

    def act(self, obs, state, *, explore):
        assert explore
        self.seen.append({key: value.clone() for key, value in obs.items()})
        count = len(next(iter(obs.values())))
        return self.action.expand(count, *self.action.shape), {"n": state["count"]}, {"count": state["count"] + 1}


class Senses(envs.ConstantReward):
    """Groups of every dtype."""

    groups: ClassVar = {
        "state": Box(-np.inf, np.inf, (2,), np.float64),
        "image/front": Box(0, 255, (3, 4, 5), np.uint8),
        "instruction": Box(0, 99, (6,), np.int32),
        "contact": MultiBinary(2),
        "phase": Box(-1, 1, (), np.float32),
    }
    success = "the episode number is even"

    def observe(self, now, step):
        return {
            "state": np.stack([self._episode, step], -1),
            "image/front": np.full((self.num_envs, 3, 4, 5), 200, np.uint8),
            "instruction": np.full((self.num_envs, 6), 7, np.int32),
            "contact": np.ones((self.num_envs, 2), np.int8),
            "phase": np.zeros(self.num_envs, np.float32),
        }

    def succeeded(self, now, action):
        return self._episode % 2 == 0


class Uneven(envs.Clock):
    """Episodes of 1 to `length` steps, by their number; terminated."""

    def limit(self, episode):
        return 1 + (3 * int(episode)) % self.length


def collector(env=None, **options):
    return Collector(env or Uneven(num_envs=3, length=5, copy=False), **options)


def test_a_rollout_has_the_fields_dtypes_and_shapes_of_the_contract():
    rollout = collector(Senses(num_envs=3, length=4, copy=False)).collect(Constant(torch.zeros(1)), 7)
    expected = {
        "state": (torch.float32, (2,)),
        "image/front": (torch.uint8, (3, 4, 5)),
        "instruction": (torch.int64, (6,)),
        "phase": (torch.float32, ()),
        "contact": (torch.float32, (2,)),
    }
    for group, (dtype, shape) in expected.items():
        for prefix in ("obs", "next_obs"):
            value = rollout[f"{prefix}/{group}"]
            assert (value.dtype, tuple(value.shape)) == (dtype, (7, 3, *shape)), group
    for name, dtype in {
        "reward": torch.float32, "terminated": torch.bool, "truncated": torch.bool, "is_first": torch.bool,
        "episode": torch.int64, "step": torch.int64, "n": torch.int64,
    }.items():  # fmt: skip
        assert (rollout[name].dtype, tuple(rollout[name].shape)) == (dtype, (7, 3)), name
    assert rollout["action"].shape == (7, 3, 1)
    assert rollout["state/count"].shape == (1, 3)
    assert "done" not in rollout


def test_every_step_follows_the_one_before_across_episodes_and_rollouts():
    made = collector(Uneven(num_envs=3, length=5, copy=False, ends="terminated"))
    policy = Constant(torch.zeros(1))
    parts = [made.collect(policy, steps) for steps in (4, 1, 9, 6)]
    whole = {k: torch.cat([p[k] for p in parts]) for k in parts[0] if not k.startswith("state/")}
    limits = 1 + (3 * whole["episode"]) % 5
    assert torch.equal(whole["obs/state"], torch.stack([whole["episode"], whole["step"]], -1).float())
    assert torch.equal(whole["next_obs/state"], whole["obs/state"] + torch.tensor([0.0, 1.0]))
    assert torch.equal(whole["terminated"], whole["step"] + 1 == limits)
    assert not whole["truncated"].any()
    assert torch.equal(whole["is_first"], whole["step"] == 0)
    assert torch.equal(whole["n"], whole["step"])  # the policy state is reset with the episode, and only then
    done = whole["terminated"][:-1]
    assert torch.equal(whole["episode"][1:], whole["episode"][:-1] + 3 * done)
    assert torch.equal(whole["step"][1:], torch.where(done, 0, whole["step"][:-1] + 1))
    for before, part in zip(np.cumsum([0, 4, 1, 9]), parts, strict=True):
        assert torch.equal(part["state/count"][0], whole["step"][before])


def test_the_policy_sees_what_is_stored():
    policy = Constant(torch.zeros(1))
    rollout = collector().collect(policy, 6)
    assert torch.equal(torch.stack([seen["state"] for seen in policy.seen]), rollout["obs/state"])


def test_envs_are_reset_once_and_stepped_once_a_step():
    env = Uneven(num_envs=3, length=5)
    made = collector(env)
    for _ in range(3):
        made.collect(Constant(torch.zeros(1)), 5)
    assert (env.resets_made, env.steps_made) == (1, 15)


def test_a_rollout_is_not_touched_by_what_comes_after():
    made = collector()
    first = made.collect(Constant(torch.zeros(1)), 5)
    kept = {key: value.clone() for key, value in first.items()}
    made.collect(Constant(torch.zeros(1)), 5)
    assert all(torch.equal(first[key], kept[key]) for key in kept)


def test_statistics_are_of_the_episodes_finished_since_they_were_last_asked_for():
    made = collector(Senses(num_envs=2, length=4))
    policy = Constant(torch.zeros(1))
    made.collect(policy, 3)
    assert {key: float(value) for key, value in made.stats().items()} == {"train/episodes": 0.0}
    made.collect(policy, 6)
    stats = {key: float(value) for key, value in made.stats().items()}
    assert stats == {"train/episodes": 4.0, "train/return": 4.0, "train/length": 4.0, "train/success": 0.5}
    assert float(made.stats()["train/episodes"]) == 0.0
    plain = collector(envs.ConstantReward(num_envs=2, length=2))
    plain.collect(policy, 2)
    assert "train/success" not in plain.stats()


def test_seed_and_episode_decide_what_is_collected_whatever_the_number_of_envs():
    def first_obs(num_envs, seed):
        rollout = collector(envs.Target(num_envs=num_envs, length=2), seed=seed).collect(Constant([0.0, 0.0]), 8)
        return {int(e): rollout["obs/state"][t, n] for t in range(0, 8, 2) for n, e in enumerate(rollout["episode"][t])}

    few, many, other = first_obs(2, 5), first_obs(4, 5), first_obs(2, 6)
    assert set(few) == set(range(8))
    assert all(torch.equal(few[i], many[i]) for i in few)
    assert not any(torch.equal(few[i], other[i]) for i in few)


def test_discrete_actions_reach_the_env_as_integers():
    rollout = collector(envs.Pick(num_envs=3)).collect(Constant(torch.tensor(2)), 5)
    assert rollout["action"].dtype == torch.int64
    assert torch.equal(rollout["reward"], rollout["obs/state"][..., 2])


def test_an_env_whose_state_is_not_exact_goes_on_with_new_episodes():
    def inexact():
        env = envs.Clock(num_envs=2, length=6)
        env.env_spec = EnvSpec(**{**env.env_spec.to_json(), "obs": env.env_spec.obs, "action": env.env_spec.action,
                                  "exact_state": False})  # fmt: skip
        return env

    made = collector(inexact())
    made.collect(Constant(torch.zeros(1)), 4)
    resumed = collector(inexact(), seed=0)
    resumed.load_state_dict(made.state_dict())
    rollout = resumed.collect(Constant(torch.zeros(1)), 3)
    assert rollout["is_first"][0].all()
    assert rollout["episode"][0].tolist() == [2, 3]  # the cut-off ones, 0 and 1, are not played again
    assert rollout["obs/state"][0].tolist() == [[2, 0], [3, 0]]
    assert rollout["n"][:, 0].tolist() == [0, 1, 2]


def test_a_collector_that_has_not_begun_saves_that():
    made, other = collector(), collector(Uneven(num_envs=3, length=5))
    other.load_state_dict(made.state_dict())
    assert torch.equal(
        made.collect(Constant(torch.zeros(1)), 4)["obs/state"], other.collect(Constant(torch.zeros(1)), 4)["obs/state"]
    )


class Broken(envs.ConstantReward):
    """Goes wrong at the third step, in row 1."""

    def __init__(self, fault, **options):
        super().__init__(num_envs=3, **options)
        self.fault = fault

    def step(self, actions):
        obs, reward, terminated, truncated, infos = super().step(actions)
        if self.steps_made == 3:
            if self.fault == "obs":
                obs["state"][1] = np.nan
            elif self.fault == "reward":
                reward[1] = np.inf
            elif self.fault == "shape":
                obs = {"state": np.zeros((3, 2))}
            elif self.fault == "groups":
                obs = {**obs, "extra": np.zeros((3, 1))}
            elif self.fault == "final":
                infos["final_obs"]["state"][1] = np.nan
        return obs, reward, terminated, truncated, infos


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("obs", r"The env 'Broken' returned nan in its observation group 'state': row 1, element 0, step 3"),
        ("reward", r"'Broken' returned inf in its reward: row 1, element 0, step 3"),
        ("final", r"'Broken' returned nan in its final observation group 'state': row 1, element 0, step 3"),
        ("shape", r"changed the shape of its observation group 'state' at step 3: \(3, 2\) instead of \(3, 1\)"),
        ("groups", r"changed its observation groups at step 3: missing \[\], unexpected \['extra'\]"),
    ],
)
def test_what_an_env_must_not_return_stops_the_run_and_says_where(fault, message, tmp_path):
    made = collector(Broken(fault, length=3), dump_dir=tmp_path)
    with pytest.raises(RobotRLError, match=message):
        made.collect(Constant(torch.zeros(1)), 5)
    if fault in ("obs", "reward", "final"):
        (dump,) = tmp_path.glob("*.npz")
        with np.load(dump, allow_pickle=False) as saved:
            assert "Broken" in str(saved["about"])
            assert {"obs/state", "reward", "action", "env/episode"} <= set(saved.files)


def test_an_env_that_is_not_ours_is_refused():
    class Foreign:
        num_envs = 1

    with pytest.raises(RobotRLError, match=r"Foreign has no env_spec, so it is not a RobotRL env.*gym/<id>"):
        Collector(Foreign())


def test_extras_that_come_and_go_are_refused():
    class Fickle(Constant):
        def act(self, obs, state, *, explore):
            action, extras, state = super().act(obs, state, explore=explore)
            return action, extras if len(self.seen) != 3 else {}, state

    with pytest.raises(RobotRLError, match=r"extras were \['action', 'n'\] at one step and \['action'\] at another"):
        collector().collect(Fickle(torch.zeros(1)), 5)


def test_specs_are_read_back_from_json():
    spec = EnvSpec(
        "X", {"state": ArraySpec((3,), unit="m"), "image/a": ArraySpec((3, 4, 4), "uint8")},
        envs.Target(num_envs=1).env_spec.action, control_hz=20.0, time_limit=100, success="yes", exact_state=True,
    )  # fmt: skip
    assert EnvSpec.from_json(spec.to_json()) == spec
    discrete = EnvSpec("Y", {}, envs.Pick(num_envs=1).env_spec.action)
    assert EnvSpec.from_json(discrete.to_json()) == discrete
    assert discrete.action.num_actions == Discrete(4).n
