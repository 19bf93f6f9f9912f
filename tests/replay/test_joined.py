import numpy as np
import pytest
import torch

from robotrl.replay import EpisodeDataset
from robotrl.replay.joined import JoinedDatasets, data_sets_in, open_demos
from robotrl.types import Part, RobotRLError
from tests.data import made
from tests.protocol.harness import assert_same

CHUNKS = {"demos": Part("demos", "sequence", 300, windows={"obs": (0,), "action": range(3)})}


@pytest.fixture
def folder(tmp_path):
    made.dataset(tmp_path / "one", 3, "front")
    made.dataset(tmp_path / "two", 6, "front")
    (tmp_path / "notes").mkdir()
    return tmp_path


def opened(folder, **weights):
    return open_demos(str(folder), weights=weights, hold=0, seed=3)


def test_a_folder_stands_for_itself_or_for_the_data_sets_directly_below(folder):
    assert list(data_sets_in(folder / "one")) == ["one"]
    assert list(data_sets_in(folder)) == ["one", "two"]
    assert isinstance(opened(folder / "one"), EpisodeDataset)
    joined = opened(folder)
    assert isinstance(joined, JoinedDatasets)
    assert len(joined) == len(EpisodeDataset(folder / "one")) + len(EpisodeDataset(folder / "two"))
    with pytest.raises(RobotRLError, match="notes is not a LeRobotDataset"):
        opened(folder / "notes")


def test_batches_are_mixed_in_proportion_to_steps_or_as_the_weights_say(folder):
    for weights, share in (({}, None), ({"one": 3.0}, 0.75), ({"one": 1.0, "two": 0.0}, 1.0)):
        joined = opened(folder, **weights)
        lengths = [len(source) for source in joined.sources.values()]
        drawn = torch.cat([b["demos"]["source"] for b in joined.batches(CHUNKS, 10)])
        expected = lengths[0] / sum(lengths) if share is None else share
        assert (drawn == 0).float().mean().item() == pytest.approx(expected, abs=0.03)


def test_every_row_is_the_data_sets_own(folder):
    joined = opened(folder)
    (batch,) = (b["demos"] for b in joined.batches(CHUNKS, 1))
    assert batch["action"].shape == (3, 300, 2) and batch["obs/image/front"].shape == (1, 300, 3, 32, 32)
    assert batch["reward"].shape == (300,) and batch["valid/action"].shape == (3, 300)
    start = 0
    for number, source in enumerate(joined.sources.values()):
        here = batch["source"] == number
        rows = (batch["row"][here] - start).numpy()
        np.testing.assert_array_equal(batch["obs/state"][0][here].numpy(), source._fields["obs/state"][rows])
        np.testing.assert_array_equal(batch["reward"][here].numpy(), source._fields["reward"][rows])
        start += len(source)


@pytest.mark.parametrize(
    "part", [Part("demos", "transition", 40), Part("demos", "sequence", 40, 3, within_episode=True)]
)
def test_transitions_and_sequences_are_joined_along_their_rows(folder, part):
    (batch,) = (b["x"] for b in opened(folder).batches({"x": part}, 1))
    lead = (40,) if part.kind == "transition" else (3, 40)
    assert {tuple(value.shape[: len(lead)]) for value in batch.values()} == {lead}
    assert (batch["source"] == 1).any() and (batch["source"] == 0).any()
    if part.kind == "sequence":
        assert (batch["row"][~batch["valid"]] == -1).all()


def test_what_is_written_finds_its_data_set(folder):
    joined = opened(folder)
    first = len(joined.sources["one"])
    joined.write({"row": torch.tensor([0, first, -1]), "advantage": torch.tensor([1.0, 2.0, 9.0])})
    assert joined.sources["one"]._written["advantage"][0] == 1.0
    assert joined.sources["two"]._written["advantage"][0] == 2.0
    assert joined.sources["one"]._written["advantage"].sum() + joined.sources["two"]._written["advantage"].sum() == 3.0


def test_it_continues_exactly_and_refuses_other_data(folder):
    first = opened(folder)
    list(first.batches(CHUNKS, 2))
    second = opened(folder)
    second.load_state_dict(first.state_dict())
    assert_same(list(first.batches(CHUNKS, 2)), list(second.batches(CHUNKS, 2)))
    made.dataset(folder / "zero", 2, "front")
    with pytest.raises(RobotRLError, match=r"learned from the data sets \['one', 'two'\], here are"):
        opened(folder).load_state_dict(first.state_dict())


def test_wrong_weights_are_told(folder):
    with pytest.raises(RobotRLError, match=r"gives 'on' the weight 2. Did you mean 'one'\?"):
        opened(folder, on=2.0)
    with pytest.raises(RobotRLError, match=r"gives 'one' the weight -1"):
        opened(folder, one=-1.0)
    with pytest.raises(RobotRLError, match=r"All weights in replay.demo_weights are 0"):
        opened(folder, one=0.0, two=0.0)
