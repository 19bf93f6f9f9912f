import pytest
import torch

from robotrl.replay import MixedReplay, ReplayBuffer, RolloutBuffer
from robotrl.types import Part, RobotRLError
from tests.replay.stream import Stream
from tests.replay.test_buffer import saved


def make(seed=0):
    """A replay of online and demonstration data, and the streams they come from."""
    streams = Stream(3, seed=1), Stream(2, seed=2)
    replay = MixedReplay({"online": ReplayBuffer(60, 3, seed=seed), "demos": ReplayBuffer(40, 2, seed=seed + 1)})
    replay.add(streams[0].rollout(15))
    replay.sources["demos"].add(streams[1].rollout(20))
    return replay, streams


SPEC = {
    "demos": Part("demos", "transition", batch_size=8),
    "online": Part("online", "transition", batch_size=8),
    "windows": Part("demos", "sequence", batch_size=3, length=4, within_episode=True),
}


def local(part):
    return {**part, "row": part["row"] & ((1 << 48) - 1)}


def test_each_part_comes_from_its_source_in_the_order_of_the_spec():
    replay, (online, demos) = make()
    for batch in replay.batches(SPEC, 3):
        assert list(batch) == list(SPEC)
        assert online.same(local(batch["online"]))
        assert demos.same(local(batch["demos"]))
        windows = {k: v[batch["windows"]["valid"]] for k, v in batch["windows"].items()}
        assert demos.same(local(windows))


def test_what_is_written_goes_to_the_store_that_served_the_row():
    replay, _ = make()
    batch = next(replay.batches(SPEC, 1))
    rows = torch.cat([part["row"].flatten() for part in batch.values()])
    replay.write({"row": rows, "mark": torch.ones(len(rows), 2), "reward": torch.full((len(rows),), 5.0)})
    for name, parts in (("online", ["online"]), ("demos", ["demos", "windows"])):
        ids = torch.cat([batch[p]["row"].flatten() for p in parts])
        expected = {int(row) & ((1 << 48) - 1) for row in ids if row >= 0}  # -1: steps that a window repeats
        fields = replay.sources[name]._storage.fields
        size = replay.sources[name]._storage.size
        assert {int(i) for i in fields["mark"][:size, 0].nonzero()[0]} == expected
        assert {int(i) for i in (fields["reward"] == 5.0).nonzero()[0]} == expected


def test_a_rollout_beside_stratified_samples():
    stream, offline = Stream(2), Stream(2, seed=5)
    replay = MixedReplay({"offline": ReplayBuffer(80, 2), "online": RolloutBuffer()})
    replay.sources["offline"].add(offline.rollout(40))
    replay.add(stream.rollout(4))
    spec = {"online": Part(), "offline": Part("offline", "transition", 16, stratify_by="step")}
    batch = next(replay.batches(spec, 1))
    assert batch["online"]["reward"].shape == (4, 2)
    replay.write({"row": batch["online"]["row"], "mark": torch.ones(4, 2)})
    assert (next(replay.batches(spec, 1))["online"]["mark"] == 1).all()
    assert "mark" not in replay.sources["offline"]._storage.fields


def test_a_saved_one_goes_on_with_the_same_samples():
    replay, (online, _) = make()
    list(replay.batches(SPEC, 2))
    other, _ = make(seed=50)
    other.load_state_dict(saved(replay))
    fresh = online.rollout(2)
    for r in (replay, other):
        r.add(fresh)
    for left, right in zip(replay.batches(SPEC, 3), other.batches(SPEC, 3), strict=True):
        for part in SPEC:
            assert all(torch.equal(left[part][k], right[part][k]) for k in left[part])


def test_mistakes_are_named():
    replay, (online, _) = make()
    with pytest.raises(RobotRLError, match=r"no source 'expert', only \['demos', 'online'\]"):
        next(replay.batches({"x": Part("expert", "transition", 1)}, 1))
    with pytest.raises(RobotRLError, match=r"no source 'online', only \['demos'\]"):
        MixedReplay({"demos": ReplayBuffer(10, 1)}).add(online.rollout(1))
    with pytest.raises(
        RobotRLError, match=r"saved replay has the sources \['demos', 'online'\], this one \['online'\]"
    ):
        MixedReplay({"online": ReplayBuffer(60, 3)}).load_state_dict(replay.state_dict())
