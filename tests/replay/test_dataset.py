from typing import ClassVar

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from robotrl.replay import EpisodeDataset, MixedReplay, ReplayBuffer
from robotrl.types import Part, RobotRLError
from tests.data import made
from tests.protocol.harness import assert_same
from tests.replay.stream import Stream

TRANSITIONS = {"demos": Part("demos", "transition", 64)}


def whole(episodes, key):
    return np.concatenate([e.steps[key] for e in episodes])


def one(replay, part):
    return next(replay.batches({"x": part}, 1))["x"]


def test_a_transition_is_the_recorded_step_and_its_next_observation_the_one_that_followed(tmp_path):
    episodes = made.dataset(tmp_path / "d", 4)
    replay = EpisodeDataset(tmp_path / "d")
    batch = one(replay, Part("demos", "transition", 200))
    rows = batch["row"].numpy()
    assert set(rows) == set(range(len(replay)))
    for key in ("obs/state", "obs/privileged", "action", "reward", "terminated", "truncated"):
        np.testing.assert_array_equal(batch[key].numpy(), whole(episodes, key)[rows], err_msg=key)
    following = np.concatenate([[*e.steps["obs/state"][1:], e.final["obs/state"]] for e in episodes])
    np.testing.assert_array_equal(batch["next_obs/state"].numpy(), following[rows])
    assert batch["obs/state"].dtype == torch.float32 and batch["terminated"].dtype == torch.bool
    np.testing.assert_array_equal(batch["is_first"].numpy(), batch["step"].numpy() == 0)


@pytest.mark.parametrize("ends", ["terminated", "truncated"])
def test_a_truncated_end_without_a_recorded_next_observation_is_no_transition_a_terminated_one_is(tmp_path, ends):
    episodes = made.dataset(tmp_path / "d", 3, final=False, ends=ends)
    replay = EpisodeDataset(tmp_path / "d")
    batch = one(replay, Part("demos", "transition", 300))
    lasts = np.cumsum([len(e) for e in episodes]) - 1
    assert (set(lasts) <= set(batch["row"].tolist())) == (ends == "terminated")
    assert not batch["truncated"].any()
    assert (ends == "terminated") == bool(batch["terminated"].any())


def test_sequences_follow_the_rows_and_within_an_episode_repeat_its_last_step(tmp_path):
    episodes = made.dataset(tmp_path / "d", 5)
    replay = EpisodeDataset(tmp_path / "d")
    state = whole(episodes, "obs/state")
    batch = one(replay, Part("demos", "sequence", 16, 4))
    assert batch["obs/state"].shape == (4, 16, 3)
    np.testing.assert_array_equal(batch["obs/state"].numpy(), state[batch["row"].numpy()])
    assert (batch["row"][1:] == batch["row"][:-1] + 1).all()
    batch = one(replay, Part("demos", "sequence", 64, 6, within_episode=True))
    valid = batch["valid"]
    assert valid[0].all() and not valid.all()
    assert (batch["episode"] == batch["episode"][0]).all()
    assert (batch["row"][~valid] == -1).all()
    lengths = torch.tensor([len(e) for e in episodes])
    assert (valid.sum(0) == (lengths[batch["episode"][0]] - batch["step"][0]).clamp(max=6)).all()
    last = valid.sum(0) - 1
    for i, t in enumerate(last.tolist()):
        assert (batch["obs/state"][t:, i] == batch["obs/state"][t, i]).all()


def test_windows_give_every_field_its_own_steps_and_mask_what_lies_outside_of_the_episode(tmp_path):
    episodes = made.dataset(tmp_path / "d", 4, "front")
    replay = EpisodeDataset(tmp_path / "d")
    part = Part("demos", "sequence", 40, windows={"obs": (-2, 0), "action": range(3)})
    batch = one(replay, part)
    assert batch["obs/image/front"].shape == (2, 40, 3, made.SIDE, made.SIDE)
    assert batch["action"].shape == (3, 40, 2) and batch["reward"].shape == (40,)
    for i, (episode, step) in enumerate(zip(batch["episode"].tolist(), batch["step"].tolist(), strict=True)):
        length = len(episodes[episode])
        for key, offsets in (("obs/state", (-2, 0)), ("action", range(3)), ("obs/image/front", (-2, 0))):
            for w, offset in enumerate(offsets):
                at = step + offset
                assert bool(batch[f"valid/{key}"][w, i]) == (0 <= at < length)
                expected = episodes[episode].steps[key][min(max(at, 0), length - 1)]
                found = batch[key][w, i].numpy()
                if key == "obs/image/front":
                    assert np.abs(found.astype(int) - expected).mean() < 4
                else:
                    np.testing.assert_array_equal(found, expected)
    with pytest.raises(RobotRLError, match=r"no \['torque'\], which a window asks for"):
        one(replay, Part("demos", "sequence", 2, windows={"torque": (0,)}))


def test_the_last_transition_shows_the_recorded_final_picture_exactly(tmp_path):
    episodes = made.dataset(tmp_path / "d", 3, "front", "wrist")
    batch = one(EpisodeDataset(tmp_path / "d"), Part("demos", "transition", 100))
    ends = batch["terminated"].nonzero()[:, 0]
    assert len(ends)
    for i in ends.tolist():
        final = episodes[int(batch["episode"][i])].final["obs/image/wrist"]
        np.testing.assert_array_equal(batch["next_obs/image/wrist"][i].numpy(), final)


def test_it_is_a_source_of_a_mixed_replay_and_continues_exactly(tmp_path):
    made.dataset(tmp_path / "d", 4)
    stream = Stream(2)

    def make():
        mixed = MixedReplay({"online": ReplayBuffer(64, 2), "demos": EpisodeDataset(tmp_path / "d", seed=3)})
        mixed.add({k: v for k, v in rollout.items() if not k.endswith("pixels")})
        return mixed

    rollout = stream.rollout(16)
    spec = {"online": Part("online", "transition", 8), "demos": Part("demos", "transition", 8)}
    first = make()
    list(first.batches(spec, 3))
    first.write({"row": torch.tensor([1 << 48, (1 << 48) + 2]), "weight": torch.tensor([2.0, 3.0])})
    second = make()
    second.load_state_dict(first.state_dict())
    for a, b in zip(first.batches(spec, 3), second.batches(spec, 3), strict=True):
        assert_same(a, b)
        assert "weight" in a["demos"]


def test_written_fields_can_weigh_and_recorded_ones_cannot_be_overwritten(tmp_path):
    made.dataset(tmp_path / "d", 3)
    replay = EpisodeDataset(tmp_path / "d")
    rows = torch.tensor([2, 4])
    replay.write({"row": rows, "weight": torch.tensor([1.0, 3.0])})
    batch = one(replay, Part("demos", "transition", 400, weight_by="weight"))
    assert set(batch["row"].tolist()) == {2, 4}
    assert 0.6 < (batch["row"] == 4).float().mean() < 0.9
    with pytest.raises(RobotRLError, match="'action' was recorded"):
        replay.write({"row": rows, "action": torch.zeros(2, 2)})
    with pytest.raises(RobotRLError, match="not from this data set"):
        replay.write({"row": torch.tensor([999]), "weight": torch.zeros(1)})


def test_strata_give_every_episode_an_equal_share(tmp_path):
    made.dataset(tmp_path / "d", 4)
    batch = one(EpisodeDataset(tmp_path / "d"), Part("demos", "transition", 40, stratify_by="episode"))
    assert torch.bincount(batch["episode"]).tolist() == [10, 10, 10, 10]


def test_episodes_can_be_chosen_by_count_by_index_and_by_success(tmp_path):
    episodes = made.dataset(tmp_path / "d", 6)
    assert len(EpisodeDataset(tmp_path / "d", episodes=2)) == sum(map(len, episodes[:2]))
    chosen = EpisodeDataset(tmp_path / "d", episodes=[4, 1])
    assert set(one(chosen, Part("x", "transition", 99))["episode"].tolist()) == {1, 4}
    assert [e.index for e in EpisodeDataset(tmp_path / "d", successful=True).episodes] == [0, 2, 4]
    with pytest.raises(RobotRLError, match=r"4 successful episodes are asked for, but .* has 3"):
        EpisodeDataset(tmp_path / "d", episodes=4, successful=True)
    with pytest.raises(RobotRLError, match=r"no episodes \[9\]"):
        EpisodeDataset(tmp_path / "d", episodes=[9])


def test_adding_whole_rollouts_and_unknown_groups_are_refused_in_one_sentence(tmp_path):
    made.dataset(tmp_path / "d", 2)
    replay = EpisodeDataset(tmp_path / "d")
    with pytest.raises(RobotRLError, match="cannot be added to"):
        replay.add({})
    with pytest.raises(RobotRLError, match="asks for a rollout"):
        one(replay, Part("demos"))
    with pytest.raises(RobotRLError, match=r"no observation groups \['image/front'\], only \['state', 'privileged'\]"):
        EpisodeDataset(tmp_path / "d", groups=["image/front"])
    with pytest.raises(RobotRLError, match="needs 99 steps"):
        one(replay, Part("demos", "sequence", 1, 99))


def test_the_state_of_other_data_is_refused(tmp_path):
    made.dataset(tmp_path / "a", 2)
    made.dataset(tmp_path / "b", 3)
    state = EpisodeDataset(tmp_path / "a").state_dict()
    with pytest.raises(RobotRLError, match="other episodes than when the run was saved"):
        EpisodeDataset(tmp_path / "b").load_state_dict(state)


def test_a_cache_of_decoded_pictures_gives_the_same_ones_and_is_filled_once(tmp_path):
    made.dataset(tmp_path / "d", 3, "front")
    plain = EpisodeDataset(tmp_path / "d", seed=1)
    cached = EpisodeDataset(tmp_path / "d", seed=1, cache=tmp_path / "cache")
    for a, b in zip(plain.batches(TRANSITIONS, 2), cached.batches(TRANSITIONS, 2), strict=True):
        assert_same(a, b)
    (file,) = (tmp_path / "cache").iterdir()
    assert file.stat().st_size == len(plain) * 3 * made.SIDE**2
    before = file.stat().st_mtime_ns
    EpisodeDataset(tmp_path / "d", cache=tmp_path / "cache")
    assert file.stat().st_mtime_ns == before


def test_a_group_or_an_action_of_one_number_keeps_its_axis(tmp_path):
    from tests.demos import write_demos
    from tests.envs_for_tests import ConstantReward

    class Two(ConstantReward):
        groups: ClassVar = {"state": Box(-1.0, 1.0, (1,), np.float32), "level": Box(-1.0, 1.0, (), np.float32)}

        def observe(self, now, step):
            return {"state": now, "level": now[:, 0]}

    env = Two(num_envs=1)
    for spec in (env.env_spec, None):
        data = EpisodeDataset(write_demos(tmp_path / str(spec is None), Two(num_envs=1)), env=spec)
        batch = next(data.batches({"p": Part("demos", "transition", 5)}, 1))["p"]
        assert batch["action"].shape == batch["obs/state"].shape == batch["next_obs/state"].shape == (5, 1)
        assert batch["obs/level"].shape == batch["next_obs/level"].shape == batch["reward"].shape == (5,)
