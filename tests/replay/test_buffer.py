import numpy as np
import pytest
import torch

from robotrl.checkpoint import load_latest, save_checkpoint
from robotrl.replay import ReplayBuffer
from robotrl.replay.storage import RingStorage
from robotrl.statetree import flatten, unflatten
from robotrl.types import Part, RobotRLError
from tests.replay.stream import Stream

FIELDS = {
    "obs/state", "obs/pixels", "action", "reward", "next_obs/state", "next_obs/pixels", "terminated", "truncated",
    "is_first", "step", "weight",
}  # fmt: skip


def one(buffer, **part):
    return next(buffer.batches({"p": Part(**part)}, 1))["p"]


def saved(owner):
    """The owner's state as a checkpoint would give it back: written, copied, read."""
    nodes, tensors = flatten(owner.state_dict())
    tensors = {key: value.clone() for key, value in tensors.items()}
    return unflatten(nodes, lambda name: tensors[name].clone())


@pytest.mark.parametrize("steps", [1, 3, 7, 16, 40])
@pytest.mark.parametrize("end", [0.0, 0.2, 1.0])
def test_every_row_comes_back_as_it_was_added_whatever_the_rollouts_and_the_wrap(steps, end):
    stream, buffer = Stream(3, end=end), ReplayBuffer(3 * 16, 3)
    for _ in range(max(4, 60 // steps)):
        buffer.add(stream.rollout(steps))
        here = len(stream.rows) - len(buffer)
        assert len(buffer) == min(len(stream.rows), 48)
        storage = buffer._storage
        batch = storage.take(np.arange(here, len(stream.rows)))
        assert batch.keys() == FIELDS
        batch["row"] = torch.arange(here, len(stream.rows))
        assert stream.same(batch)


def test_transitions_are_uniform_over_what_is_stored():
    stream, buffer = Stream(2), ReplayBuffer(40, 2, seed=3)
    buffer.add(stream.rollout(50))
    batch = one(buffer, kind="transition", batch_size=20_000)
    assert batch["obs/state"].shape == (20_000, 2)
    assert batch["obs/pixels"].dtype == torch.uint8
    counts = np.bincount(batch["row"].numpy(), minlength=100)
    assert (counts[:60] == 0).all()
    assert counts[60:].min() > 400
    assert counts[60:].max() < 600
    assert stream.same(one(buffer, kind="transition", batch_size=100))


def test_next_obs_is_the_final_one_where_an_interruption_left_no_mark():
    stream, buffer = Stream(2, end=0.1), ReplayBuffer(60, 2)
    for steps in (5, 1, 8, 2):
        buffer.add(stream.rollout(steps))
        stream.interrupt()
    batch = buffer._storage.take(np.arange(32))
    assert stream.same({**batch, "row": torch.arange(32)})


def test_observations_are_stored_once():
    stream, buffer = Stream(8, end=0.01), ReplayBuffer(8 * 1000, 8)
    buffer.add(stream.rollout(2000))
    stored = sum(f.nbytes for k, f in buffer._storage.fields.items() if k.startswith("obs/"))
    apart = sum(f.nbytes for f in buffer._storage._apart._fields.values())
    assert apart < 0.1 * stored


@pytest.mark.parametrize("steps", [1, 5])
def test_sequences_are_windows_of_one_env_that_never_cross_the_write_head(steps):
    stream, buffer = Stream(3), ReplayBuffer(3 * 12, 3)
    for _ in range(40 // steps):
        buffer.add(stream.rollout(steps))
        if len(buffer) < 3 * 6:
            continue
        batch = one(buffer, kind="sequence", batch_size=32, length=6)
        assert batch["obs/state"].shape == (6, 32, 2)
        assert (batch["row"].diff(dim=0) == 3).all()
        assert int(batch["row"].min()) >= len(stream.rows) - 36
        assert stream.same(batch)
    starts = one(buffer, kind="sequence", batch_size=2000, length=6)["row"][0].unique()
    assert len(starts) == (12 - 6 + 1) * 3


def test_sequences_may_cross_episode_ends_and_is_first_marks_them():
    stream, buffer = Stream(2, end=0.3), ReplayBuffer(200, 2)
    buffer.add(stream.rollout(100))
    batch = one(buffer, kind="sequence", batch_size=50, length=8)
    done = batch["terminated"] | batch["truncated"]
    assert batch["is_first"][1:].any()
    assert torch.equal(batch["is_first"][1:], done[:-1])
    assert "valid" not in batch


def test_within_an_episode_the_rest_is_masked_and_repeats_the_last_step():
    stream, buffer = Stream(2, end=0.3), ReplayBuffer(200, 2)
    buffer.add(stream.rollout(60))
    batch = one(buffer, kind="sequence", batch_size=300, length=6, within_episode=True)
    for b in range(300):
        row, expected = int(batch["row"][0, b]), [True]
        for _ in range(5):
            ended = stream.rows[row]["terminated"] or stream.rows[row]["truncated"]
            expected.append(expected[-1] and not ended and row + 2 < 120)
            row = min(row + 2, 119)
        assert batch["valid"][:, b].tolist() == expected
        count = sum(expected)
        assert (batch["row"][count:, b] == -1).all()
        for key in ("obs/state", "action", "next_obs/state"):
            assert (batch[key][count:, b] == batch[key][count - 1, b]).all()
    kept = {k: v[batch["valid"]] for k, v in batch.items()}
    assert stream.same(kept)
    starts = one(buffer, kind="sequence", batch_size=3000, length=6, within_episode=True)["row"][0]
    assert len(starts.unique()) == 120  # the very last steps are starts as well


def marked(buffer, mark):
    """The rows of the buffer with an integer field `mark`."""
    buffer.write({"row": torch.arange(len(buffer)), "mark": mark})
    return buffer


def test_rows_of_a_value_share_what_the_value_has_however_many_they_are():
    buffer = ReplayBuffer(600, 3, seed=4)
    buffer.add(Stream(3).rollout(200))
    mark = torch.full((600,), -1)
    mark[:300], mark[300:310], mark[310:500] = 0, 1, 3  # 100 rows have no member, 2 has no rows
    marked(buffer, mark)
    shares = (0.2, 0.7, 5.0, 0.1)
    batch = one(buffer, kind="transition", batch_size=60_000, stratify_by="mark", shares=shares)
    found = torch.bincount(batch["mark"], minlength=4) / 60_000
    torch.testing.assert_close(found, torch.tensor([0.2, 0.7, 0.0, 0.1]), atol=0.01, rtol=0)
    rows = torch.bincount(batch["row"][batch["mark"] == 1] - 300, minlength=10) / (0.7 * 60_000)
    torch.testing.assert_close(rows, torch.full((10,), 0.1), atol=0.01, rtol=0)


def test_a_value_beyond_the_shares_is_left_out():
    buffer = ReplayBuffer(30, 3)
    buffer.add(Stream(3).rollout(10))
    marked(buffer, torch.arange(30) % 3)
    batch = one(buffer, kind="transition", batch_size=500, stratify_by="mark", shares=(0.0, 1.0))
    assert batch["mark"].unique().tolist() == [1]


def test_shares_that_name_nothing_present_are_refused():
    buffer = ReplayBuffer(30, 3)
    buffer.add(Stream(3).rollout(10))
    marked(buffer, torch.arange(30) % 3)
    with pytest.raises(RobotRLError, match=r"No row has a value of 'mark' with a share: the values are \[0, 1, 2\]"):
        one(buffer, kind="transition", batch_size=4, stratify_by="mark", shares=(0.0, 0.0, 0.0, 1.0))
    with pytest.raises(RobotRLError, match="finite and not negative"):
        one(buffer, kind="transition", batch_size=4, stratify_by="mark", shares=(1.0, -1.0))
    with pytest.raises(RobotRLError, match="needs stratify_by"):
        one(buffer, kind="transition", batch_size=4, shares=(1.0,))


def test_stratified_batches_give_every_value_an_equal_share_ordered_by_value():
    stream, buffer = Stream(4, end=0.3), ReplayBuffer(2000, 4)
    buffer.add(stream.rollout(300))
    values = np.unique([r["step"] for r in stream.rows])
    share = 7
    batch = one(buffer, kind="transition", batch_size=share * len(values), stratify_by="step")
    assert batch["step"].tolist() == np.repeat(values, share).tolist()
    assert stream.same(batch)
    uneven = one(buffer, kind="transition", batch_size=share * len(values) + 2, stratify_by="step")
    counts = np.unique(uneven["step"].numpy(), return_counts=True)[1]
    assert sorted(counts.tolist()) == [share] * (len(values) - 2) + [share + 1] * 2
    buffer.add(stream.rollout(300))
    fresh = one(buffer, kind="transition", batch_size=2000, stratify_by="step")
    assert int(fresh["row"].max()) >= 1200  # the new steps are found


def test_weighted_batches_are_drawn_in_proportion_to_the_column_as_it_is_now():
    stream, buffer = Stream(2), ReplayBuffer(20, 2, seed=1)
    buffer.add(stream.rollout(14))
    part = {"kind": "transition", "batch_size": 40_000, "weight_by": "weight"}

    def shares():
        counts = np.bincount(one(buffer, **part)["row"].numpy(), minlength=28)[8:]
        return counts / counts.sum()

    weights = np.array([r["weight"] for r in stream.rows])[8:]
    np.testing.assert_allclose(shares(), weights / weights.sum(), atol=0.01)
    assert (shares()[weights == 0] == 0).all()
    weights[:] = 0
    weights[[3, 7]] = 1, 3
    buffer.write({"row": torch.arange(8, 28), "weight": torch.from_numpy(weights)})
    np.testing.assert_allclose(shares(), weights / 4, atol=0.01)


def test_written_fields_come_back_and_rows_overwritten_meanwhile_are_ignored():
    stream, buffer = Stream(2), ReplayBuffer(2 * 10, 2)
    buffer.add(stream.rollout(10))
    batch = one(buffer, kind="sequence", batch_size=16, length=4)
    buffer.add(stream.rollout(5))
    latent = batch["row"].float().unsqueeze(-1) * torch.ones(3)
    buffer.write({"row": batch["row"], "latent": latent, "reward": -batch["row"].float()})
    after = one(buffer, kind="transition", batch_size=2000)
    written = torch.isin(after["row"], batch["row"])
    assert written.any()
    assert not written.all()
    assert torch.equal(after["latent"][written], after["row"][written].float().unsqueeze(-1) * torch.ones(3))
    assert (after["latent"][~written] == 0).all()
    assert torch.equal(after["reward"][written], -after["row"][written].float())
    assert stream.same(after, keys=FIELDS - {"reward"})
    buffer.add(stream.rollout(8))  # fresh steps have no latent yet
    newest = one(buffer, kind="transition", batch_size=2000)
    assert (newest["latent"][newest["row"] >= 30] == 0).all()
    buffer.write({"row": torch.tensor([-1, -1]), "reward": torch.tensor([9.0, 9.0])})
    assert (one(buffer, kind="transition", batch_size=500)["reward"] != 9.0).all()


def test_a_row_written_twice_keeps_the_last_value():
    stream, buffer = Stream(1), ReplayBuffer(8, 1)
    buffer.add(stream.rollout(8))
    buffer.write({"row": torch.tensor([5, 5, 5]), "reward": torch.tensor([1.0, 2.0, 3.0])})
    batch = one(buffer, kind="transition", batch_size=100)
    assert set(batch["reward"][batch["row"] == 5].tolist()) == {3.0}


@pytest.mark.parametrize("before", [0, 4, 23])
def test_a_saved_replay_goes_on_with_the_same_samples(before):
    spec = {
        "t": Part(kind="transition", batch_size=9),
        "s": Part(kind="sequence", batch_size=4, length=3, within_episode=True),
        "w": Part(kind="transition", batch_size=9, weight_by="weight"),
        "k": Part(kind="transition", batch_size=9, stratify_by="step"),
    }
    stream, buffer = Stream(3), ReplayBuffer(3 * 10, 3, seed=5)
    for _ in range(before):
        buffer.add(stream.rollout(2))
    if before:
        list(buffer.batches(spec, 2))
        buffer.write({"row": torch.arange(6), "extra": torch.ones(6)})
    other = ReplayBuffer(3 * 10, 3, seed=99)
    other.load_state_dict(saved(buffer))
    for _ in range(6):
        fresh = stream.rollout(3)
        for replay in (buffer, other):
            replay.add(fresh)
        for left, right in zip(buffer.batches(spec, 2), other.batches(spec, 2), strict=True):
            for part in spec:
                assert left[part].keys() == right[part].keys()
                assert all(torch.equal(left[part][k], right[part][k]) for k in left[part])


def test_saved_pieces_that_did_not_change_have_the_same_bytes(monkeypatch):
    monkeypatch.setattr("robotrl.replay.apart.SEGMENT_BYTES", 256)
    stream, buffer = Stream(2), ReplayBuffer(2 * 64, 2)
    buffer.add(stream.rollout(32))
    first = [piece.copy() for piece in buffer.state_dict()["storage"]["fields"]["obs/state"]]
    buffer.add(stream.rollout(8))
    second = buffer.state_dict()["storage"]["fields"]["obs/state"]
    assert len(first) > 1
    assert all((a == b).all() for a, b in zip(first, second[: len(first)], strict=True))


def test_left_out_fields_are_neither_stored_nor_served():
    stream, buffer = Stream(2), ReplayBuffer(40, 2, omit=("next_obs", "weight"))
    buffer.add(stream.rollout(5))
    batch = one(buffer, kind="transition", batch_size=8)
    assert batch.keys() - {"row"} == FIELDS - {"next_obs/state", "next_obs/pixels", "weight"}


def test_mistakes_are_named():
    stream, buffer = Stream(2), ReplayBuffer(40, 2)
    with pytest.raises(RobotRLError, match="capacity 3 cannot hold one step of 4 envs"):
        ReplayBuffer(3, 4)
    with pytest.raises(RobotRLError, match=r"needs 1 steps of each env, but the replay holds 0.*warmup_env_steps"):
        one(buffer, kind="transition", batch_size=4)
    rollout = stream.rollout(5)
    buffer.add(rollout)
    with pytest.raises(RobotRLError, match=r"'p' needs 6 steps of each env, but the replay holds 5"):
        one(buffer, kind="sequence", batch_size=4, length=6)
    with pytest.raises(RobotRLError, match="'p' asks for a rollout"):
        one(buffer)
    with pytest.raises(RobotRLError, match="'p' asks for windows, which only recorded episodes have"):
        one(buffer, kind="sequence", batch_size=1, windows={"obs": (0,)})
    with pytest.raises(RobotRLError, match="'p' needs a batch_size"):
        one(buffer, kind="transition")
    with pytest.raises(RobotRLError, match=r"no field 'age'. It holds \['action'"):
        one(buffer, kind="transition", batch_size=4, weight_by="age")
    with pytest.raises(RobotRLError, match="integer a step, but 'reward' is float32"):
        one(buffer, kind="transition", batch_size=4, stratify_by="reward")
    with pytest.raises(RobotRLError, match=r"none negative and some positive, but 'reward'"):
        one(buffer, kind="transition", batch_size=4, weight_by="reward")
    with pytest.raises(RobotRLError, match="not both"):
        one(buffer, kind="transition", batch_size=4, weight_by="weight", stratify_by="step")
    with pytest.raises(RobotRLError, match=r"sources \['demos', 'online'\], but the replay is a single one"):
        next(buffer.batches({"a": Part("online", "transition", 1), "b": Part("demos", "transition", 1)}, 1))
    with pytest.raises(RobotRLError, match=r"3 envs, but this replay was made for 2"):
        buffer.add(Stream(3).rollout(1))
    with pytest.raises(RobotRLError, match=r"missing fields \['weight'\], new fields \['mass'\]"):
        buffer.add({**{k: v for k, v in rollout.items() if k != "weight"}, "mass": rollout["weight"]})
    with pytest.raises(
        RobotRLError, match=r"'weight' is float64\[5, 2\] in this rollout; this replay needs float32\[5, 2\]"
    ):
        buffer.add({**rollout, "weight": rollout["weight"].double()})
    with pytest.raises(RobotRLError, match="The row 10 is not from this replay"):
        buffer.write({"row": torch.tensor([10]), "reward": torch.zeros(1)})
    with pytest.raises(RobotRLError, match=r"'reward' was written as float64"):
        buffer.write({"row": torch.tensor([1]), "reward": torch.zeros(1, dtype=torch.float64)})
    with pytest.raises(RobotRLError, match="'obs/state' cannot be written"):
        buffer.write({"row": torch.tensor([1]), "obs/state": torch.zeros(1, 2)})
    with pytest.raises(RobotRLError, match=r"saved replay holds 20 steps of 2 envs, this one 10 of 2"):
        ReplayBuffer(20, 2).load_state_dict(buffer.state_dict())


def test_a_refused_rollout_leaves_the_replay_as_it_was():
    stream, storage = Stream(2), RingStorage(10, 2)
    rollout = stream.rollout(5)
    storage.add(rollout)
    with pytest.raises(RobotRLError):
        storage.add({**rollout, "weight": rollout["weight"].double()})
    storage.add(stream.rollout(3))
    assert stream.same({**storage.take(np.arange(16)), "row": torch.arange(16)})


def test_a_checkpoint_of_a_large_replay_writes_only_what_changed(tmp_path, monkeypatch):
    monkeypatch.setattr("robotrl.replay.apart.SEGMENT_BYTES", 2_200_000)

    def rollout(steps):
        obs = torch.randint(0, 256, (steps + 1, 2, 3, 32, 32), dtype=torch.uint8)
        return {"obs/image": obs[:-1], "next_obs/image": obs[1:], "reward": torch.randn(steps, 2)}

    buffer = ReplayBuffer(4000, 2)
    buffer.add(rollout(1700))
    save_checkpoint(tmp_path, {"replay": buffer.state_dict()}, step=1)
    buffer.add(rollout(10))
    second = save_checkpoint(tmp_path, {"replay": buffer.state_dict()}, step=2)
    sizes = {True: 0, False: 0}
    for file in second.glob("large-*"):
        sizes[file.stat().st_nlink > 1] += file.stat().st_size
    assert sizes[True] > 3 * sizes[False] > 0
    tree, step = load_latest(tmp_path)
    assert step == 2
    other = ReplayBuffer(4000, 2)
    other.load_state_dict(tree["replay"])
    part = {"p": Part(kind="transition", batch_size=64)}
    for left, right in zip(buffer.batches(part, 3), other.batches(part, 3), strict=True):
        assert all(torch.equal(left["p"][k], right["p"][k]) for k in left["p"])


def test_each_new_stretch_is_served_once_before_any_other():
    replay = ReplayBuffer(100, 2, seed=0)
    spec = {"online": Part(kind="sequence", batch_size=3, length=4, newest_first=True)}

    def starts():
        (batch,) = replay.batches(spec, 1)
        return [(int(row) // 2, int(row) % 2) for row in batch["online"]["row"][0]]

    replay.add(Stream(2).rollout(8))
    assert starts() == [(0, 0), (0, 1), (3, 0)], "stretches overlap in the one step that begins the next"
    saved = replay.state_dict()
    assert starts()[0] == (3, 1)
    again = ReplayBuffer(100, 2, seed=0)
    again.load_state_dict(saved)
    (batch,) = again.batches(spec, 1)
    assert int(batch["online"]["row"][0, 0]) == 3 * 2 + 1


def test_a_part_that_needs_every_value_refuses_others():
    from robotrl.replay.sampling import RowSampler
    from robotrl.types import Part

    values = np.array([0, 1, 2, 2, 1, 0])
    sampler = RowSampler(0, lambda key, rows: values[rows])
    part = Part("online", "transition", 6, stratify_by="step", strata=3)
    assert values[sampler.draw(part, 0, 6, 0)].tolist() == [0, 0, 1, 1, 2, 2]
    for strata in (2, 4):
        with pytest.raises(RobotRLError, match="from 0 to"):
            sampler.draw(Part("online", "transition", 6, stratify_by="step", strata=strata), 0, 6, 0)
