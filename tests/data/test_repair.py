import json
import shutil

import pytest

from robotrl.data.dataset import Dataset
from robotrl.data.journal import Journal
from robotrl.data.repair import repair, salvage
from robotrl.data.schema import Schema
from robotrl.data.writer import DatasetWriter
from robotrl.types import RobotRLError
from tests.data import made


def stopped(root, monkeypatch, method):
    """A data set of two episodes whose writer died at some moment of saving the second."""
    env = made.spec("front")
    writer = DatasetWriter(root, Schema.from_env(env), env=env)
    writer.save(made.episode(0, env))
    with monkeypatch.context() as patch:

        def die(*_):
            raise SystemExit

        patch.setattr(Journal, method, die)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(SystemExit):
            writer.save(made.episode(1, env))
    writer._journal.close()


def test_an_episode_that_was_stored_but_not_in_place_is_completed(tmp_path, monkeypatch):
    stopped(tmp_path / "d", monkeypatch, "_apply")
    with pytest.raises(
        RobotRLError, match=r"Writing .* was interrupted. Nothing finished is lost; .* robotrl data repair"
    ):
        Dataset(tmp_path / "d")
    lines = repair(tmp_path / "d")
    assert lines[0].startswith("Put in place: data/chunk-000/file-001.parquet, ")
    assert lines[1:] == ["Joined the files of 2 episodes.", f"{tmp_path / 'd'} is in order: 2 episodes, 11 steps."]
    assert repair(tmp_path / "d") == lines[2:]


def test_an_episode_that_was_not_stored_leaves_no_trace(tmp_path, monkeypatch):
    stopped(tmp_path / "d", monkeypatch, "_seal")
    assert len(Dataset(tmp_path / "d").episodes) == 1
    assert repair(tmp_path / "d") == [f"{tmp_path / 'd'} is in order: 1 episodes, 5 steps."]
    assert sorted(p.name for p in (tmp_path / "d/.robotrl").iterdir()) == ["lock"]


def test_files_of_no_episode_are_put_aside_and_counts_that_lag_are_corrected(tmp_path):
    made.dataset(tmp_path / "d", 3, "front")
    stray = tmp_path / "d/data/chunk-000/file-007.parquet"
    stray.write_bytes(b"not finished")
    info = json.loads((tmp_path / "d/meta/info.json").read_text())
    (tmp_path / "d/meta/info.json").write_text(json.dumps({**info, "total_episodes": 2, "total_frames": 11}))
    lines = repair(tmp_path / "d")
    assert lines[0] == "Corrected the counts: 3 episodes instead of 2."
    assert "Moved 1 files that belong to no episode" in lines[1]
    assert (tmp_path / "d/.robotrl/strays/data/chunk-000/file-007.parquet").read_bytes() == b"not finished"
    assert json.loads((tmp_path / "d/meta/info.json").read_text()) == info


def test_salvage_keeps_what_is_whole_and_leaves_the_original_alone(tmp_path):
    env = made.spec("front")
    for i in range(3):  # three sessions, so that each episode has files of its own
        with DatasetWriter(tmp_path / "d", Schema.from_env(env), env=env) as writer:
            writer.save(made.episode(i, env))
    video = tmp_path / "d/videos/observation.images.front/chunk-000/file-001.mp4"
    video.write_bytes(video.read_bytes()[:300])
    lines = salvage(tmp_path / "d", tmp_path / "rest")
    assert lines[0].startswith(f"Episode 1 is lost: The video {video} is cut off or damaged")
    assert lines[1] == f"2 whole episodes of {tmp_path / 'd'} are now in {tmp_path / 'rest'}."
    assert [e.number for e in Dataset(tmp_path / "rest").episodes] == [0, 2]
    assert Dataset(tmp_path / "d").total_episodes == 3
    video.unlink()
    shutil.rmtree(tmp_path / "d/data")
    with pytest.raises(RobotRLError, match=r"No episode of .* can be read whole"):
        salvage(tmp_path / "d", tmp_path / "none")


def test_a_plan_that_leads_out_of_the_data_set_is_refused(tmp_path):
    made.dataset(tmp_path / "d", 1)
    folder = tmp_path / "d/.robotrl/change-000000"
    folder.mkdir()
    (folder / "plan.json").write_text(json.dumps({"moves": [], "deletes": ["../precious"]}))
    (tmp_path / "precious").write_text("x")
    with pytest.raises(RobotRLError, match="lies outside of the data set"):
        repair(tmp_path / "d")
    assert (tmp_path / "precious").exists()
    with pytest.raises(RobotRLError, match="There is no data set at"):
        repair(tmp_path / "nowhere")
