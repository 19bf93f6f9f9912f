import pytest
import torch

from robotrl.replay import RolloutBuffer
from robotrl.types import Part, RobotRLError
from tests.replay.stream import Stream
from tests.replay.test_buffer import FIELDS, saved

SPEC = {"online": Part(kind="rollout")}


def served(buffer):
    return next(buffer.batches(SPEC, 1))["online"]


@pytest.mark.parametrize("keep", [1, 3])
def test_the_newest_rollouts_are_served_joined_in_time_with_their_row_numbers(keep):
    stream, buffer = Stream(2), RolloutBuffer(keep)
    for added in range(1, 6):
        fresh = stream.rollout(4)
        buffer.add(fresh)
        batch = served(buffer)
        steps = 4 * min(added, keep)
        assert batch.keys() == FIELDS | {"state/hidden", "row"}
        assert batch["row"].shape == (steps, 2)
        assert int(batch["row"][-1, -1]) == 8 * added - 1
        assert stream.same(batch, keys=FIELDS)
        assert batch["state/hidden"].shape == (1, 2, 4)


def test_the_policy_state_is_the_one_before_the_oldest_rollout():
    stream, buffer = Stream(2), RolloutBuffer(2)
    for i in range(3):
        buffer.add({**stream.rollout(4), "state/hidden": torch.full((1, 2, 4), float(i))})
    assert (served(buffer)["state/hidden"] == 1.0).all()


def test_every_part_gets_the_same_rollout_as_often_as_asked():
    buffer = RolloutBuffer()
    buffer.add(Stream(2).rollout(4))
    batches = list(buffer.batches({"a": Part(), "b": Part()}, 3))
    assert len(batches) == 3
    assert all(torch.equal(b["a"]["reward"], b["b"]["reward"]) for b in batches)


def test_written_fields_stand_beside_their_rows_and_new_ones_are_zero_elsewhere():
    stream, buffer = Stream(2), RolloutBuffer(2)
    for _ in range(2):
        buffer.add(stream.rollout(3))
    batch = served(buffer)
    buffer.write({"row": batch["row"][2:4], "mark": torch.ones(2, 2, 5), "reward": torch.full((2, 2), 7.0)})
    again = served(buffer)
    assert torch.equal(again["mark"].sum(-1), torch.tensor([[0.0], [0], [5], [5], [0], [0]]).expand(6, 2))
    assert (again["reward"][2:4] == 7.0).all()
    assert not (again["reward"][[0, 1, 4, 5]] == 7.0).any()


def test_a_saved_buffer_goes_on_with_what_was_written():
    stream, buffer = Stream(2), RolloutBuffer(3)
    for _ in range(4):
        buffer.add(stream.rollout(3))
    buffer.write({"row": served(buffer)["row"][:4], "mark": torch.ones(4, 2)})
    other = RolloutBuffer(3)
    other.load_state_dict(saved(buffer))
    fresh = stream.rollout(3)
    for replay in (buffer, other):
        replay.add(fresh)
    left, right = served(buffer), served(other)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[k], right[k]) for k in left)


def test_mistakes_are_named():
    buffer = RolloutBuffer()
    with pytest.raises(RobotRLError, match="empty: collect before updating"):
        served(buffer)
    buffer.add(Stream(2).rollout(4))
    with pytest.raises(RobotRLError, match="'x' asks for a transition"):
        next(buffer.batches({"x": Part(kind="transition", batch_size=2)}, 1))
    with pytest.raises(RobotRLError, match="Give it a MixedReplay"):
        next(buffer.batches({"x": Part("online"), "y": Part("offline")}, 1))
