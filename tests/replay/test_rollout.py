import pytest
import torch

from robotrl.replay import RolloutBuffer
from robotrl.replay.config import ReplayConfig
from robotrl.types import ActionSpec, EnvSpec, Part, RobotRLError
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


def configured(parts):
    spec = EnvSpec("e", {}, ActionSpec("discrete", num_actions=2))
    return RolloutBuffer.from_config(ReplayConfig(), spec, parts, num_envs=2, seed=0, device="cpu", env_steps=100)


@pytest.mark.parametrize(("length", "held"), [(4, [4, 8, 12, 12, 12]), (12, [12, 12, 12]), (5, [5, 10, 15, 15])])
def test_a_learner_that_asks_for_the_newest_steps_gets_the_whole_rollouts_that_hold_them(length, held):
    stream, parts = Stream(2), {"online": Part(kind="rollout", newest_steps=12)}
    buffer = configured(parts)
    for added, steps in enumerate(held, 1):
        buffer.add(stream.rollout(length))
        batch = next(buffer.batches(parts, 1))["online"]
        assert len(batch["reward"]) == steps
        assert int(batch["row"][-1, -1]) == 2 * length * added - 1
        assert stream.same(batch, keys=FIELDS)


def test_a_learner_that_asks_for_nothing_gets_the_newest_rollout_alone():
    stream, buffer = Stream(2), configured(SPEC)
    for _ in range(3):
        buffer.add(stream.rollout(4))
    assert len(served(buffer)["reward"]) == 4


def test_parts_that_ask_one_buffer_for_different_steps_are_refused():
    with pytest.raises(RobotRLError, match=r"the newest \[0, 8\] steps"):
        configured({"a": Part(newest_steps=8), "b": Part()})


def test_what_was_served_stays_when_more_is_added():
    stream, buffer = Stream(2), RolloutBuffer(2)
    buffer.add(stream.rollout(4))
    kept = served(buffer)
    before = {key: value.clone() for key, value in kept.items()}
    for _ in range(3):
        buffer.add(stream.rollout(4))
    assert all(torch.equal(kept[key], before[key]) for key in before)
