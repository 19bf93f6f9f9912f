import numpy as np
import pytest
import torch

from robotrl.collect import Collector
from robotrl.data.dataset import Dataset
from robotrl.data.schema import Schema
from robotrl.data.writer import DatasetWriter
from robotrl.envs import make_vec
from robotrl.policies.random import RandomPolicy
from robotrl.replay import EpisodeDataset
from robotrl.runners.record import record, session_seed
from robotrl.types import Part, RobotRLError
from tests.envs_for_tests import Target, TinyEnv


class Uneven(Target):
    """Episodes of unequal length; every third succeeds."""

    success = "every third episode"

    def limit(self, episode):
        return 2 + (7 * int(episode)) % 6

    def succeeded(self, now, action):
        return self._episode % 3 == 0


def run(root, env, *, seed=0, policy=None, **words):
    with DatasetWriter(root, Schema.from_env(env.env_spec), env=env.env_spec) as writer:
        policy = policy or RandomPolicy(None, env.env_spec)
        return record(policy, Collector(env, seed=seed, dump_dir=root.parent), writer, seed=seed, **words)


@pytest.mark.parametrize("num_envs", [1, 3])
def test_the_first_episodes_by_number_are_recorded_whichever_end_first(tmp_path, num_envs):
    done = run(tmp_path / "d", Uneven(num_envs=num_envs), episodes=7, seed=5)
    assert (done.saved, done.attempts, done.successes) == (7, 7, 3)
    dataset = Dataset(tmp_path / "d")
    assert sorted(e.number for e in dataset.episodes) == list(range(7))
    assert {e.seed for e in dataset.episodes} == {5}
    assert all(e.length == 2 + (7 * e.number) % 6 and e.success == (e.number % 3 == 0) for e in dataset.episodes)


def test_what_is_recorded_is_what_the_env_showed(tmp_path):
    run(tmp_path / "d", Uneven(num_envs=4), episodes=6, seed=2)
    dataset, alone = Dataset(tmp_path / "d"), Uneven(num_envs=1)
    columns, finals = dataset.read(["obs/state", "action", "reward"]), dataset.extras(["final/obs/state"])
    obs, _ = alone.reset(seed=2)
    for e in sorted(dataset.episodes, key=lambda e: e.number):
        rows = range(e.start, e.start + e.length)
        for row in rows:
            np.testing.assert_array_equal(np.float32(obs["state"][0]), columns["obs/state"][row])
            obs, reward, _, _, infos = alone.step(columns["action"][row][None])
            assert np.float32(reward[0]) == columns["reward"][row]
        np.testing.assert_array_equal(np.float32(infos["final_obs"]["state"][0]), finals[e.index]["final/obs/state"])


@pytest.mark.parametrize("num_envs", [1, 2, 5])
def test_successes_are_kept_in_the_order_of_attempts_so_short_ones_are_not_favoured(tmp_path, num_envs):
    done = run(tmp_path / "d", Uneven(num_envs=num_envs), episodes=4, only_success=True)
    assert sorted(e.number for e in Dataset(tmp_path / "d").episodes) == [0, 3, 6, 9]
    assert done.saved == 4 and done.successes >= 4
    with pytest.raises(
        RobotRLError, match=r"Of \d+ attempts \d+ succeeded, so 9 successful episodes would take too long"
    ):
        run(tmp_path / "e", Uneven(num_envs=num_envs), episodes=9, only_success=True, max_attempts=12)
    assert Dataset(tmp_path / "e").total_episodes >= 3, "what succeeded is saved"


def test_a_stop_saves_what_has_finished_and_the_next_session_plays_other_episodes(tmp_path):
    looks = iter([False, True])
    done = run(tmp_path / "d", Uneven(num_envs=2), episodes=50, stop=lambda: next(looks))
    assert done.stopped and 0 < done.saved < 50
    assert session_seed(0, 0) == 0
    again = run(tmp_path / "d", Uneven(num_envs=2), episodes=20, seed=session_seed(0, 1))
    dataset = Dataset(tmp_path / "d")
    assert dataset.total_episodes == 20 == done.saved + again.saved
    assert len({(e.seed, e.number) for e in dataset.episodes}) == 20


class Speaking(Uneven):
    """Tells every episode something else."""

    @property
    def instructions(self):
        return [f"do number {i}" for i in self._episode]


def test_every_episode_is_recorded_with_its_own_instruction(tmp_path):
    run(tmp_path / "d", Speaking(num_envs=3), episodes=6)
    assert all(e.tasks == (f"do number {e.number}",) for e in Dataset(tmp_path / "d").episodes)
    run(tmp_path / "e", Speaking(num_envs=3), episodes=2, task="do as I say")
    assert {e.tasks for e in Dataset(tmp_path / "e").episodes} == {("do as I say",)}


class Seeing(Uneven):
    groups = {**Target.groups, "image/front": TinyEnv.groups["state"].__class__(0, 255, (3, 16, 16), np.uint8)}  # noqa: RUF012

    def observe(self, now, step):
        shade = np.clip(40 * step, 0, 255).astype(np.uint8)
        return {"state": now, "image/front": np.broadcast_to(shade[:, None, None, None], (self.num_envs, 3, 16, 16))}


def test_pictures_are_recorded_and_come_back_in_their_place(tmp_path):
    run(tmp_path / "d", Seeing(num_envs=2), episodes=5)
    replay = EpisodeDataset(tmp_path / "d")
    batch = next(replay.batches({"x": Part("demos", "transition", 64)}, 1))["x"]
    for key, ahead in (("obs/image/front", 0), ("next_obs/image/front", 1)):
        shade = batch[key].float().mean((1, 2, 3))
        assert (shade - 40 * (batch["step"] + ahead).clamp(max=6)).abs().max() < 6


class Broken(RandomPolicy):
    def act(self, obs, state, *, explore):
        raise RobotRLError("The policy produced a non-finite action.")


def test_what_cannot_be_recorded_is_one_sentence(tmp_path):
    with pytest.raises(RobotRLError, match="episodes is 0; a data set needs at least 1"):
        run(tmp_path / "a", Uneven(), episodes=0)
    with pytest.raises(RobotRLError, match="does not say whether an episode succeeded"):
        run(tmp_path / "b", Target(), episodes=1, only_success=True)
    with pytest.raises(RobotRLError, match="non-finite action"):
        run(tmp_path / "c", Uneven(), episodes=1, policy=Broken(None, Uneven().env_spec))


def test_random_actions_fill_the_bounds(tmp_path):
    env = make_vec("HalfCheetah-v5", num_envs=2)
    policy = RandomPolicy(None, env.env_spec)
    action, extras, _ = policy.act({}, policy.initial_state(400), explore=False)
    assert action.shape == (400, 6) and extras == {}
    assert action.abs().max() <= 1 and action.std() > 0.5
    low = torch.tensor(env.env_spec.action.low)
    assert (action >= low).all()
    env.close()
