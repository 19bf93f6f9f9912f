import json

import numpy as np
import pytest

from robotrl.data.dataset import Dataset
from robotrl.data.frames import Frames
from robotrl.data.minari import export_minari, import_minari
from robotrl.replay import EpisodeDataset
from robotrl.types import RobotRLError
from tests.data import made

minari = pytest.importorskip("minari")


def test_there_and_back_numbers_are_bit_equal_and_minari_reads_what_is_between(tmp_path):
    episodes = made.dataset(tmp_path / "d", 4, "front")
    assert export_minari(tmp_path / "d", tmp_path / "m", dataset_id="made/up-v0") == 4
    theirs = minari.MinariDataset(tmp_path / "m/data")
    assert theirs.id == "made/up-v0" and theirs.total_episodes == 4
    np.testing.assert_array_equal(theirs.action_space.high, [1.0, 2.0])
    for found, one in zip(theirs.iterate_episodes(), episodes, strict=True):
        np.testing.assert_array_equal(found.observations["state"][:-1], one.steps["obs/state"])
        np.testing.assert_array_equal(found.observations["state"][-1], one.final["obs/state"])
        np.testing.assert_array_equal(
            found.observations["image.front"][-1], one.final["obs/image/front"].transpose(1, 2, 0)
        )
        np.testing.assert_array_equal(found.terminations, one.steps["terminated"])
    assert import_minari(tmp_path / "m", tmp_path / "back", fps=20, task="again") == 4
    back, first = Dataset(tmp_path / "back"), Dataset(tmp_path / "d")
    assert back.schema.features.keys() == first.schema.features.keys()
    ours, again = first.read(first.schema.arrays), back.read(back.schema.arrays)
    for key in first.schema.arrays:
        np.testing.assert_array_equal(again[key], ours[key], err_msg=key)
    assert back.episodes[0].tasks == ("again",)
    rows = {"obs/image/front": np.arange(first.total_frames)}
    pictures = [Frames(d, ["obs/image/front"]).read(rows)["obs/image/front"].astype(int) for d in (first, back)]
    assert np.abs(pictures[0] - pictures[1]).mean() < 3
    replay = EpisodeDataset(tmp_path / "back", groups=["state"])
    assert len(replay._transitions) == len(replay), "final observations came along"


def test_an_import_that_was_stopped_goes_on_and_what_cannot_be_imported_is_one_sentence(tmp_path):
    made.dataset(tmp_path / "d", 3)
    export_minari(tmp_path / "d", tmp_path / "m", dataset_id="made/up-v0")
    import_minari(tmp_path / "m", tmp_path / "a", fps=20)
    assert import_minari(tmp_path / "m", tmp_path / "a", fps=20) == 3
    with pytest.raises(RobotRLError, match=r"another kind: .* 10 frames a second|20 frames a second there"):
        import_minari(tmp_path / "m", tmp_path / "a", fps=10)
    with pytest.raises(RobotRLError, match="is there already"):
        export_minari(tmp_path / "d", tmp_path / "m", dataset_id="x/y-v0")
    with pytest.raises(RobotRLError, match=r"metadata\.json cannot be read|no Minari data set 'nowhere/x-v0'"):
        import_minari("nowhere/x-v0", tmp_path / "b")
    path = tmp_path / "m/data/metadata.json"
    data = json.loads(path.read_text())
    data.pop("action_space")
    data["env_spec"] = json.dumps({"id": "evil-v0", "entry_point": "this:would_be_imported"})
    path.write_text(json.dumps(data))
    with pytest.raises(RobotRLError, match="does not describe its spaces"):
        import_minari(tmp_path / "m", tmp_path / "b")
