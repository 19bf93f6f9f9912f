import errno
import json
from pathlib import Path

import numpy as np
import pytest

from robotrl.data.dataset import Dataset
from robotrl.data.journal import Change, Journal
from robotrl.data.schema import Schema
from robotrl.data.writer import DatasetWriter
from robotrl.types import RobotRLError
from tests.data import made


def read(root):
    """Everything a data set holds, by episode."""
    dataset = Dataset(root)
    columns = dataset.read([*dataset.schema.arrays])
    return dataset, [
        {key: values[e.start : e.start + e.length] for key, values in columns.items()} for e in dataset.episodes
    ]


def files(root):
    return {
        str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file() and p.name != "lock"
    }


@pytest.mark.parametrize("apart", [False, True])
def test_numbers_come_back_bit_for_bit(tmp_path, apart):
    episodes = made.dataset(tmp_path / "d", 5, apart=apart)
    dataset, found = read(tmp_path / "d")
    assert [e.length for e in dataset.episodes] == [len(e) for e in episodes]
    for one, back in zip(episodes, found, strict=True):
        for key, values in one.steps.items():
            assert back[key].dtype == values.dtype
            np.testing.assert_array_equal(back[key], values, err_msg=key)
    assert [e.tasks for e in dataset.episodes] == [(e.task,) for e in episodes]
    assert [(e.seed, e.number, e.success) for e in dataset.episodes] == [(7, e.number, e.success) for e in episodes]
    finals = dataset.extras(["final/obs/state"])
    for i, one in enumerate(episodes):
        np.testing.assert_array_equal(np.float32(finals[i]["final/obs/state"]), one.final["obs/state"])


def test_saved_apart_or_together_and_joined_the_data_are_the_same(tmp_path):
    made.dataset(tmp_path / "together", 5, "front")
    made.dataset(tmp_path / "apart", 5, "front", apart=True)
    together, apart = files(tmp_path / "together"), files(tmp_path / "apart")
    assert set(together) == set(apart)
    assert json.loads(together["meta/info.json"]) == json.loads(apart["meta/info.json"])
    (_, left), (_, right) = read(tmp_path / "together"), read(tmp_path / "apart")
    for a, b in zip(left, right, strict=True):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_a_data_set_grows_in_a_second_session_and_remembers_both(tmp_path):
    env = made.spec("front")
    for session in range(2):
        with DatasetWriter(tmp_path / "d", Schema.from_env(env), env=env) as writer:
            assert writer.num_episodes == 2 * session
            assert writer.begin_session(seed=session) == session
            writer.save_all([made.episode(2 * session + i, env) for i in range(2)])
    dataset, found = read(tmp_path / "d")
    assert [e.session for e in dataset.episodes] == [0, 0, 1, 1]
    assert dataset.own["sessions"] == [{"seed": 0, "first_episode": 0}, {"seed": 1, "first_episode": 2}]
    for i, back in enumerate(found):
        np.testing.assert_array_equal(back["action"], made.episode(i, env).steps["action"])
    assert dataset.total_frames == sum(len(back["action"]) for back in found)


def test_statistics_are_those_of_all_steps(tmp_path):
    episodes = made.dataset(tmp_path / "d", 6, "front", apart=True)
    stats = json.loads((tmp_path / "d/meta/stats.json").read_text())
    for key, field in (("observation.state", "obs/state"), ("action", "action"), ("next.reward", "reward")):
        values = np.concatenate([e.steps[field] for e in episodes]).astype(np.float64)
        for name, expected in (("mean", values.mean(0)), ("std", values.std(0)), ("min", values.min(0))):
            np.testing.assert_allclose(stats[key][name], np.atleast_1d(expected), rtol=1e-9, atol=1e-12, err_msg=name)
        assert stats[key]["count"] == [len(values)]
    pictures = np.concatenate([e.steps["obs/image/front"] for e in episodes]) / 255.0
    front = stats["observation.images.front"]
    np.testing.assert_allclose(np.ravel(front["mean"]), pictures.mean((0, 2, 3)))
    np.testing.assert_allclose(np.ravel(front["std"]), pictures.std((0, 2, 3)))
    assert np.shape(front["q50"]) == (3, 1, 1)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda e: e.steps["obs/state"].__setitem__((2, 1), np.nan),
            r"obs/state is nan at step 2 of the episode \(elem",
        ),
        (lambda e: e.steps.pop("action"), "missing fields \\['action'\\], new fields \\[\\]"),
        (lambda e: e.steps.update(torque=np.zeros(len(e))), "new fields \\['torque'\\]"),
        (lambda e: e.steps.update(reward=np.zeros(3, np.float32)), r"reward has the shape \[3\], this data set needs"),
        (lambda e: e.steps.update(action=e.steps["action"].astype(np.float64)), "action is float64, .* needs float32"),
        (lambda e: setattr(e, "task", " "), "needs a task in words"),
        (lambda e: e.final.update({"obs/state": np.full(3, np.inf, np.float32)}), "the final obs/state is inf"),
        (lambda e: e.steps.update({k: v[:0] for k, v in e.steps.items()}), "without steps cannot be saved"),
    ],
)
def test_an_episode_that_does_not_fit_or_is_not_finite_is_refused_and_nothing_changes(tmp_path, spoil, said):
    env = made.spec()
    with DatasetWriter(tmp_path / "d", Schema.from_env(env), env=env) as writer:
        writer.save(made.episode(0, env))
        before = files(tmp_path / "d")
        bad = made.episode(1, env)
        spoil(bad)
        with pytest.raises(RobotRLError, match=said):
            writer.save_all([made.episode(2, env), bad])
        assert files(tmp_path / "d") == before
        assert writer.save(made.episode(3, env)) == 1


def test_two_writers_on_one_data_set_are_refused(tmp_path):
    env = made.spec()
    with DatasetWriter(tmp_path / "d", Schema.from_env(env), env=env) as writer:
        with pytest.raises(RobotRLError, match=r"being written by another process .*robotrl data merge"):
            DatasetWriter(tmp_path / "d", Schema.from_env(env), env=env)
        writer.save(made.episode(0, env))
    DatasetWriter(tmp_path / "d", Schema.from_env(env), env=env).close()


def test_a_data_set_of_another_kind_and_a_strangers_folder_are_refused(tmp_path):
    made.dataset(tmp_path / "d", 1)
    other = made.spec("front", control_hz=10)
    with pytest.raises(
        RobotRLError, match=r"another kind: observation.images.front: nothing there.*; 20 frames a second"
    ):
        DatasetWriter(tmp_path / "d", Schema.from_env(other), env=other)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("x")
    with pytest.raises(RobotRLError, match=r"not empty and no data set: it holds thesis\.tex"):
        DatasetWriter(tmp_path / "mine", Schema.from_env(other))
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("fails_at", range(12))
def test_a_full_disk_is_one_sentence_and_every_finished_episode_is_intact(tmp_path, monkeypatch, fails_at):
    env = made.spec("front")
    root = tmp_path / "d"
    written = 0

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def write(self, name, content, original=Change.write):
        nonlocal written
        written += 1
        if written > fails_at:
            Path(self.path(name)).write_bytes(content[: len(content) // 2])
            full()
        original(self, name, content)

    with DatasetWriter(root, Schema.from_env(env), env=env) as writer:
        writer.save(made.episode(0, env))
        with monkeypatch.context() as patch:
            patch.setattr(Change, "write", write)
            if fails_at >= 8:
                patch.setattr(Journal, "_seal", full)
            with pytest.raises(RobotRLError, match=r"Episode 1 could not be saved: the disk of .* is full .*intact"):
                writer.save(made.episode(1, env))
        assert len(read(root)[1]) == 1
        assert writer.save(made.episode(1, env)) == 1
    _, found = read(root)
    np.testing.assert_array_equal(found[1]["action"], made.episode(1, env).steps["action"])
    assert sorted(p.name for p in (root / ".robotrl").iterdir()) == ["lock"]
