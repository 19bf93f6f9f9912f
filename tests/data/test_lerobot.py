"""LeRobot reads what RobotRL writes, and RobotRL what LeRobot writes, frame by frame."""

import contextlib
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from robotrl.data.dataset import Dataset
from robotrl.data.frames import Frames
from robotrl.data.merge import merge
from robotrl.data.repair import repair, salvage
from robotrl.replay import EpisodeDataset
from robotrl.types import Part, RobotRLError
from tests.data import made
from tests.data.test_repair import stopped

lerobot = pytest.importorskip("lerobot.datasets.lerobot_dataset")


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_HUB_OFFLINE", "1")
    yield
    patch.undo()


def theirs(root, **words):
    return lerobot.LeRobotDataset("made/up", root=root, **words)


SIDE = 64
FEATURES = {
    "observation.state": {"dtype": "float32", "shape": (3,), "names": ["a", "b", "c"]},
    "observation.grid": {"dtype": "float32", "shape": (2, 4), "names": None},
    "observation.images.top": {"dtype": "video", "shape": (SIDE, SIDE, 3), "names": ["height", "width", "channels"]},
    "observation.images.side": {"dtype": "image", "shape": (SIDE, SIDE, 3), "names": ["height", "width", "channels"]},
    "action": {"dtype": "float32", "shape": (2,), "names": None},
    "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
}


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Written by LeRobot: small files, so that there are many; two sessions; AV1 videos of several episodes each."""
    root = tmp_path_factory.mktemp("lerobot") / "d"
    words = {
        "fps": 25,
        "features": FEATURES,
        "root": root,
        "data_files_size_in_mb": 0.006,
        "video_files_size_in_mb": 0.03,
    }
    dataset, steps = lerobot.LeRobotDataset.create("made/up", **words), []
    for number in range(5):
        if number == 3:
            dataset.finalize()
            dataset = lerobot.LeRobotDataset.resume("made/up", root=root)
        rng = np.random.default_rng(number)
        pictures = made.pictures(rng, 12 + number, SIDE).transpose(0, 2, 3, 1)
        for picture in pictures:
            frame = {
                "observation.state": rng.normal(size=3).astype(np.float32),
                "observation.grid": rng.normal(size=(2, 4)).astype(np.float32),
                "observation.images.top": picture,
                "observation.images.side": picture[::-1].copy(),
                "action": rng.normal(size=2).astype(np.float32),
                "next.reward": rng.normal(size=1).astype(np.float32),
            }
            steps.append({**frame, "episode": number})
            dataset.add_frame({**frame, "task": f"task {number % 2}"})
        dataset.save_episode()
    dataset.finalize()
    ordinary_priority()
    return root, steps


def ordinary_priority():
    """LeRobot's encoder, SVT-AV1, when root runs it, leaves its caller at real-time priority, and others starve."""
    tasks = Path("/proc/self/task")
    for thread in tasks.iterdir() if tasks.exists() else ():
        with contextlib.suppress(OSError):
            os.sched_setscheduler(int(thread.name), os.SCHED_OTHER, os.sched_param(0))


def test_what_lerobot_wrote_in_many_files_is_read_as_lerobot_reads_it(foreign):
    root, steps = foreign
    dataset = Dataset(root)
    assert len({e.data for e in dataset.episodes}) > 1
    clips = [e.clips["observation.images.top"] for e in dataset.episodes]
    assert 1 < len({c.path for c in clips}) < len(clips), "several videos, with several episodes in some"
    columns = dataset.read(["obs/state", "obs/grid", "action", "reward"])
    for name, key in dataset.fields.items():
        if name in columns:
            expected = np.stack([step[key] for step in steps])
            np.testing.assert_array_equal(columns[name].reshape(expected.shape), expected, err_msg=key)
    other = theirs(root, return_uint8=True)
    rows = np.arange(len(steps))
    frames = Frames(dataset, ["obs/image/top", "obs/image/side"]).read({"obs/image/top": rows, "obs/image/side": rows})
    for row in rows:
        item = other[int(row)]
        np.testing.assert_array_equal(frames["obs/image/top"][row], item["observation.images.top"].numpy())
        np.testing.assert_array_equal(
            frames["obs/image/side"][row], (item["observation.images.side"] * 255).round().byte().numpy()
        )
        assert item["task"] == dataset.episodes[steps[row]["episode"]].tasks[0]


def test_windows_and_masks_are_those_of_lerobots_delta_timestamps(foreign):
    root, _ = foreign
    obs, action = (-2, 0), tuple(range(4))
    deltas = {
        "observation.state": [d / 25 for d in obs], "observation.images.top": [d / 25 for d in obs],
        "action": [d / 25 for d in action],
    }  # fmt: skip
    other = theirs(root, delta_timestamps=deltas, return_uint8=True)
    replay = EpisodeDataset(root, groups=["state", "image/top"])
    windows = {"obs": obs, "action": action}
    batch = next(replay.batches({"x": Part("demos", "sequence", 32, windows=windows)}, 1))["x"]
    for i, row in enumerate(batch["row"].tolist()):
        item = other[row]
        for field, key in (("obs/state", "observation.state"), ("action", "action")):
            torch.testing.assert_close(batch[field][:, i], item[key], rtol=0, atol=0)
            torch.testing.assert_close(~batch[f"valid/{field}"][:, i], item[f"{key}_is_pad"])
        torch.testing.assert_close(batch["obs/image/top"][:, i], item["observation.images.top"], rtol=0, atol=0)


def test_steps_of_data_without_recorded_ends_are_no_transitions_at_the_end(foreign):
    replay = EpisodeDataset(foreign[0], groups=["state"])
    batch = next(replay.batches({"x": Part("demos", "transition", 500)}, 1))["x"]
    ends = {e.start + e.length - 1 for e in replay.episodes}
    assert not ends & set(batch["row"].tolist())
    replay = EpisodeDataset(foreign[0], groups=["state"], ends="terminated")
    batch = next(replay.batches({"x": Part("demos", "transition", 500)}, 1))["x"]
    assert ends <= set(batch["row"].tolist())


def test_lerobot_reads_numbers_pictures_tasks_and_statistics_of_ours(tmp_path):
    episodes = made.dataset(tmp_path / "d", 5, "front", "wrist", apart=True)
    other = theirs(tmp_path / "d", return_uint8=True)
    dataset = Dataset(tmp_path / "d")
    ours = Frames(dataset, ["obs/image/front"]).read({"obs/image/front": np.arange(len(other))})["obs/image/front"]
    rows = itertools.count()
    for one in episodes:
        for t in range(len(one)):
            row = next(rows)
            item = other[row]
            assert item["task"] == one.task
            assert bool(item["next.done"]) == (t == len(one) - 1)
            assert bool(item["next.success"]) == (t == len(one) - 1 and one.success)
            for key, field in (("observation.state", "obs/state"), ("action", "action")):
                np.testing.assert_array_equal(item[key].numpy(), one.steps[field][t])
            assert float(item["next.reward"]) == one.steps["reward"][t]
            picture = item["observation.images.front"].numpy()
            np.testing.assert_array_equal(picture, ours[row])
            assert np.abs(picture.astype(int) - one.steps["obs/image/front"][t]).mean() < 4
    assert other.meta.stats["observation.images.front"]["mean"].shape == (3, 1, 1)
    assert other.fps == 20


def test_lerobot_goes_on_recording_in_ours_and_we_in_theirs(tmp_path):
    made.dataset(tmp_path / "d", 2)
    more = lerobot.LeRobotDataset.resume("made/up", root=tmp_path / "d")
    third = made.episode(2, made.spec())
    for t in range(len(third)):
        frame = {
            k: np.atleast_1d(third.steps[f][t]) for f, k in Dataset(tmp_path / "d").fields.items() if f in third.steps
        }
        frame |= {"next.done": np.array([t == len(third) - 1]), "next.success": np.array([False])}
        more.add_frame({**frame, "task": third.task})
    more.save_episode()
    more.finalize()
    dataset = Dataset(tmp_path / "d")
    assert [e.success for e in dataset.episodes] == [True, False, None]
    made_up = dataset.read(["obs/state"])["obs/state"][dataset.episodes[2].start :]
    np.testing.assert_array_equal(made_up, third.steps["obs/state"])
    episodes = [made.episode(i, made.spec()) for i in (3, 4)]
    from robotrl.data.schema import Schema
    from robotrl.data.writer import DatasetWriter

    with DatasetWriter(tmp_path / "d", Schema.from_env(made.spec()), env=made.spec()) as writer:
        writer.save_all(episodes)
    other = theirs(tmp_path / "d")
    assert other.num_episodes == 5
    np.testing.assert_array_equal(other[len(other) - 1]["action"].numpy(), episodes[1].steps["action"][-1])


def test_merged_data_hold_every_step_of_both_and_lerobot_reads_them(tmp_path):
    first = made.dataset(tmp_path / "a", 3, "front")
    second = made.dataset(tmp_path / "b", 2, "front", task="stack")
    assert merge([tmp_path / "a", tmp_path / "b", tmp_path / "a"], tmp_path / "all") == 8
    dataset, other = Dataset(tmp_path / "all"), theirs(tmp_path / "all", return_uint8=True)
    assert other.num_episodes == 8
    assert [e.tasks[0] for e in dataset.episodes] == [e.task for e in (*first, *second, *first)]
    columns = dataset.read(["obs/state", "action"])
    rows = np.arange(dataset.total_frames)
    pictures = Frames(dataset, ["obs/image/front"]).read({"obs/image/front": rows})["obs/image/front"]
    for info, one in zip(dataset.episodes, (*first, *second, *first), strict=True):
        here = slice(info.start, info.start + info.length)
        np.testing.assert_array_equal(columns["obs/state"][here], one.steps["obs/state"])
        assert (info.success, info.number) == (one.success, one.number)
        assert np.abs(pictures[here].astype(int) - one.steps["obs/image/front"]).mean() < 4
        np.testing.assert_array_equal(other[info.start]["observation.images.front"].numpy(), pictures[info.start])
    replay = EpisodeDataset(tmp_path / "all", env=made.spec("front"))
    assert len(replay) == len(other)
    with pytest.raises(RobotRLError, match="is there already"):
        merge([tmp_path / "a"], tmp_path / "all")
    made.dataset(tmp_path / "c", 1)
    with pytest.raises(RobotRLError, match=r"different kinds: observation\.images\.front is video.* and missing"):
        merge([tmp_path / "a", tmp_path / "c"], tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_a_recording_that_lerobot_left_in_the_middle_is_salvaged(foreign, tmp_path):
    import shutil

    root = tmp_path / "d"
    shutil.copytree(foreign[0], root)
    dataset = Dataset(root)
    last = dataset.data_path(*dataset.episodes[-1].data)
    lost = [e.index for e in dataset.episodes if dataset.data_path(*e.data) == last]
    last.write_bytes(last.read_bytes()[:-60])  # no footer: what a killed writer leaves
    with pytest.raises(RobotRLError, match="is cut off or no parquet file"):
        repair(root)
    lines = salvage(root, tmp_path / "rest")
    assert [f"Episode {i} is lost" in line for i, line in zip(lost, lines, strict=False)] == [True] * len(lost)
    assert theirs(tmp_path / "rest").num_episodes == 5 - len(lost)
    EpisodeDataset(tmp_path / "rest", groups=["state", "image/top"])


def test_a_recording_of_ours_that_was_killed_is_read_by_lerobot_once_repaired(tmp_path, monkeypatch):
    stopped(tmp_path / "d", monkeypatch, "_apply")
    repair(tmp_path / "d")
    other = theirs(tmp_path / "d", return_uint8=True)
    assert other.num_episodes == 2
    last = made.episode(1, made.spec("front"))
    item = other[len(other) - 1]
    np.testing.assert_array_equal(item["observation.state"].numpy(), last.steps["obs/state"][-1])
    assert np.abs(item["observation.images.front"].numpy().astype(int) - last.steps["obs/image/front"][-1]).mean() < 4
