"""A data set with something wrong in it is one clear sentence."""

import dataclasses
import json
import re
import shutil
from fractions import Fraction

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robotrl.data.schema import Schema
from robotrl.data.writer import DatasetWriter
from robotrl.replay import EpisodeDataset
from robotrl.types import ActionSpec, ArraySpec, Part, RobotRLError
from tests.data import made


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    root = tmp_path_factory.mktemp("good") / "d"
    made.dataset(root, 4, "front", "wrist")
    return root


@pytest.fixture
def root(good, tmp_path):
    return shutil.copytree(good, tmp_path / "d")


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def said(root, **words):
    """What reading all of it says."""

    def read():
        replay = EpisodeDataset(root, **words)
        next(replay.batches({"x": Part("demos", "transition", 64)}, 1))

    with pytest.raises(RobotRLError) as error:
        read()
    text = str(error.value)
    assert "\n" not in text and len(text) < 500
    return text


INFO, DATA = "meta/info.json", "data/chunk-000/file-000.parquet"
VIDEO = "videos/observation.images.{}/chunk-000/file-000.mp4"


def test_no_data_set_names_the_ones_inside(root):
    assert f"There is no data set at {root / 'nowhere'}" in said(root / "nowhere")
    assert f"it has no meta/info.json. Data sets inside it: {root}" in said(root.parent)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: d.update(codebase_version="v2.1"), "format v2.1; RobotRL reads v3. Convert it with LeRobot's"),
        (lambda d: d.update(codebase_version="v4.0"), "of the format 'v4.0', which this RobotRL does not know"),
        (lambda d: d.update(fps=0), "fps is 0; it must be a number above zero"),
        (lambda d: d.update(fps=30), "says 30 frames a second, but the timestamps of episode"),
        (lambda d: d.update(total_frames="many"), "total_frames is 'many'; it must be a whole number"),
        (lambda d: d.update(total_frames=10**13), "total_frames is 10000000000000"),
        (lambda d: d.update(total_frames=10**9), "meta/episodes counts 26 steps, but .* counts 1000000000"),
        (lambda d: d.update(total_episodes=9), "lists 4 episodes, but .* counts 9"),
        (lambda d: d["features"].pop("index"), r"declares no \['index'\]"),
        (lambda d: d["features"]["action"].update(dtype="object"), "'action' has the unknown type 'object'"),
        (lambda d: d["features"]["action"].update(shape=[10**9, 10**9]), "'action' has the impossible shape"),
        (lambda d: d["features"]["action"].update(shape=[3]), r"'action' holds .* numbers .* shape \[3\]"),
        (lambda d: d["features"].update({"../../x": {"dtype": "video", "shape": [2, 2, 3]}}), "not of the form"),
        (lambda d: d["features"].update(torque={"dtype": "float32", "shape": [2]}), r"lacks the columns \['torque'\]"),
        (lambda d: d.update(data_path="/etc/{chunk_index}"), "which is not one of v3.0"),
        (lambda d: d.update(data_path="{chunk_index.__class__}"), "which is not one of v3.0"),
        (lambda d: d["features"]["observation.images.front"].update(shape=[64, 64, 3]), "is 32x32, .* declares 64x64"),
    ],
)  # fmt: skip
def test_a_description_that_is_wrong_is_named(root, change, text):
    edit(root / INFO, change)
    assert re.search(text, said(root)), said(root)


def test_cut_off_and_missing_files_are_named(root, good):
    video = root / VIDEO.format("front")
    whole = video.read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 400):
        video.write_bytes(whole[:size])
        assert str(video) in said(root)
        assert "empty" in said(root) or "cut off or damaged" in said(root)
    video.unlink()
    assert f"The video {video} is missing; it holds the pictures of episodes 0 to 3" in said(root)
    shutil.copy(good / VIDEO.format("front"), video)
    (root / DATA).write_bytes((root / DATA).read_bytes()[:-50])
    assert f"{root / DATA} is cut off or no parquet file" in said(root)
    (root / DATA).unlink()
    assert f"{root / DATA} is missing" in said(root)
    (root / INFO).write_text("{")
    assert f"{root / INFO} cannot be read" in said(root)


def test_a_flipped_byte_in_a_table_is_an_error_or_leaves_the_shape(root):
    whole = bytearray((root / DATA).read_bytes())
    rng = np.random.default_rng(0)
    count, refused = len(EpisodeDataset(root, groups=["state"])), 0
    for at in rng.integers(0, len(whole), 25):
        spoiled = whole.copy()
        spoiled[at] ^= 1 << rng.integers(8)
        (root / DATA).write_bytes(spoiled)
        try:  # any other error would be a crash
            read = EpisodeDataset(root, groups=["state"])
        except RobotRLError:
            refused += 1
            continue
        assert len(read) == count
    assert 0 < refused < 25, "some bits matter, others do not"


def test_a_video_of_another_camera_has_no_picture_at_some_time(root):
    longer = root.parent / "longer"
    made.dataset(longer, 2, "front")
    shutil.copy(longer / VIDEO.format("front"), root / VIDEO.format("wrist"))
    assert "has no picture at" in said(root) and "cut off, or has another frame rate" in said(root)


def rewrite(path, change):
    table = pq.read_table(path)
    columns = {name: table.column(name) for name in table.column_names}
    change(columns)
    pq.write_table(pa.table(columns), path)


def test_gaps_nan_and_rows_of_other_episodes_are_found(root):
    def spoil(columns):
        states = np.stack(columns["observation.state"].to_numpy(zero_copy_only=False))
        states[7, 1] = np.nan
        columns["observation.state"] = pa.array(list(states))

    rewrite(root / DATA, spoil)
    assert "holds nan in 'obs/state', episode 1, step 2, element 1 (1 steps are affected)" in said(root)

    def swap(columns):
        columns["episode_index"] = pa.array(columns["episode_index"].to_numpy()[::-1])

    rewrite(root / DATA, swap)
    assert "contradict meta/episodes: row 0 has episode_index 3 instead of 0" in said(root)

    def lose(columns):
        for name in columns:
            columns[name] = columns[name].slice(0, len(columns[name]) - 3)

    rewrite(root / DATA, lose)
    assert "lack row" in said(root)


def test_more_than_the_memory_is_refused_before_it_is_allocated(root, monkeypatch):
    monkeypatch.setattr("robotrl.data.dataset._free_memory", lambda: 10_000_000)
    edit(root / INFO, lambda d: d["features"]["action"].update(shape=[1 << 14, 1 << 10]))
    assert "GB of memory, and 0.0 GB are free" in said(root)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"control_hz": 10.0}, "recorded at 20 steps a second, the env makes 10"),
        ({"obs": {"state": ArraySpec((4,)), "privileged": ArraySpec((2,))}}, r"float32\[3\], the env's is fl"),
        ({"obs": {"state": ArraySpec((3,))}}, r"has the group 'privileged', the env has \['state'\]"),
        ({"action": ActionSpec("continuous", (2,), (-9.0, 0.0), (9.0, 2.0))}, "the env's within .* another scaling"),
        ({"action": ActionSpec("continuous", (3,), (-1.0,) * 3, (1.0,) * 3)}, r"action is float32\[2\], the env's"),
        ({"action": ActionSpec("discrete", num_actions=3)}, "the env's is discrete"),
    ],
)  # fmt: skip
def test_data_of_another_env_are_refused_with_every_difference(root, change, text):
    env = dataclasses.replace(made.spec(), **change)
    with pytest.raises(RobotRLError, match="does not fit made/up") as error:
        EpisodeDataset(root, groups=["state", "privileged"], env=env)
    assert re.search(text, str(error.value)), error.value
    EpisodeDataset(root, groups=["state", "privileged"], env=made.spec())


def test_actions_beyond_the_bounds_of_data_that_name_none_mean_another_scaling(root):
    shutil.rmtree(root / "meta/robotrl")

    EpisodeDataset(root, groups=["state"], env=made.spec())
    small = dataclasses.replace(made.spec(), action=ActionSpec("continuous", (2,), (-0.1, 0.0), (0.1, 0.2)))
    text = said(root, groups=["state"], env=small)
    assert re.search("its actions reach .* the env's bounds are .* another scaling", text)


def test_no_episodes_are_an_error_that_says_how_to_record_some(tmp_path):
    made.dataset(tmp_path / "d", 0)
    with pytest.raises(RobotRLError, match=r"it has no meta/info\.json"):
        EpisodeDataset(tmp_path / "d")
    env = made.spec()
    with DatasetWriter(tmp_path / "f", Schema.from_env(env), env=env) as writer:
        writer.save(made.episode(1, env))
    with pytest.raises(RobotRLError, match=r"has no successful episodes. Record some with: robotrl collect"):
        EpisodeDataset(tmp_path / "f", successful=True)


def test_a_picture_much_larger_than_declared_is_refused_before_memory_is_taken(tmp_path):
    from robotrl.data.video import decode_picture, encode_png

    small, huge = np.zeros((3, 16, 16), np.uint8), np.zeros((3, 3000, 3000), np.uint8)
    np.testing.assert_array_equal(decode_picture(encode_png(small), 16, 16), small)
    with pytest.raises(ValueError, match="of another size than declared"):
        decode_picture(encode_png(huge), 16, 16)
    codec = av.CodecContext.create("mjpeg", "w")
    codec.width = codec.height = 3000
    codec.pix_fmt, codec.time_base = "yuvj420p", Fraction(1)
    frame = av.VideoFrame.from_ndarray(huge.transpose(1, 2, 0).copy(), format="rgb24").reformat(format="yuvj420p")
    jpeg = b"".join(bytes(p) for p in [*codec.encode(frame), *codec.encode(None)])
    assert decode_picture(jpeg, 3000, 3000).shape == (3, 3000, 3000)
    with pytest.raises(ValueError, match="a damaged picture"):
        decode_picture(jpeg, 16, 16)


def test_a_table_that_claims_more_numbers_than_declared_is_refused_from_its_footer(root):
    rows = pq.read_metadata(root / DATA).num_rows

    def swell(columns):
        columns["action"] = pa.array([[0.0] * 5000] * rows, pa.list_(pa.float32()))

    rewrite(root / DATA, swell)
    assert f"'action' holds {rows * 5000} numbers in {rows} rows" in said(root)
