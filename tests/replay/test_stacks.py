"""Stacked pictures are stored once and come back as they were, whatever the stream did."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from robotrl.checkpoint import load_latest, save_checkpoint
from robotrl.collect import Collector
from robotrl.envs.config import EnvConfig, build_env
from robotrl.policies.random import RandomPolicy
from robotrl.replay import ReplayBuffer
from robotrl.replay.config import ReplayConfig, bytes_per_step, check_memory
from robotrl.types import ActionSpec, ArraySpec, EnvSpec, Part, RobotRLError

FRAMES = 3


class Pictures:
    """A stream of stacks `[N, FRAMES * 2, 2, 2]` as a frame-stacking env makes them; `rows[i]` is the step of row i.

    With few `colours` different steps often look alike, so that no comparison can be right by luck.
    """

    def __init__(self, num_envs, seed, colours, end=0.15):
        self.num_envs, self._colours, self._end = num_envs, colours, end
        self._rng = np.random.default_rng(seed)
        self.rows = []
        self.restart()

    def _picture(self):
        return self._rng.integers(0, self._colours, (self.num_envs, 2, 2, 2)).astype(np.uint8)

    def restart(self):
        """New episodes everywhere, as after a resume."""
        self._now = np.concatenate([self._picture()] * FRAMES, 1)

    def skip(self):
        """A step that is lost: what follows is not what came before."""
        self._now = np.concatenate([self._now[:, 2:], self._picture()], 1)

    def rollout(self, steps):
        fields = []
        for _ in range(steps):
            after = np.concatenate([self._now[:, 2:], self._picture()], 1)
            done = self._rng.random(self.num_envs) < self._end
            row = {"obs/image/top": self._now, "next_obs/image/top": after, "terminated": done}
            self.rows += [{key: value[n] for key, value in row.items()} for n in range(self.num_envs)]
            fields.append(row)
            start = np.concatenate([self._picture()] * FRAMES, 1)
            self._now = np.where(done[:, None, None, None], start, after)
        return {key: torch.from_numpy(np.stack([f[key] for f in fields])) for key in fields[0]}

    def assert_same(self, storage):
        rows = np.arange(storage.first_row, storage.end_row)
        batch = storage.take(rows)
        for key in ("obs/image/top", "next_obs/image/top"):
            np.testing.assert_array_equal(batch[key].numpy(), np.stack([self.rows[i][key] for i in rows]), key)


def buffer_of(num_envs, steps):
    return ReplayBuffer(num_envs * steps, num_envs, frames={"image/top": FRAMES, "state": 1})


@pytest.mark.parametrize("colours", [2, 256])
@pytest.mark.parametrize("seed", range(4))
def test_every_stack_comes_back_through_ends_gaps_restarts_and_the_rings_end(seed, colours):
    rng = np.random.default_rng(seed)
    stream, buffer = Pictures(3, seed, colours), buffer_of(3, 12)
    for _ in range(25):
        buffer.add(stream.rollout(int(rng.integers(1, 16))))
        stream.assert_same(buffer._storage)
        happens = rng.random()
        if happens < 0.2:
            stream.skip()
        elif happens < 0.4:
            stream.restart()


def test_a_stack_is_stored_once_and_nothing_is_kept_whole_in_an_unbroken_stream():
    stream, buffer = Pictures(2, 0, 256), buffer_of(2, 200)
    buffer.add(stream.rollout(150))
    storage = buffer._storage
    assert storage.fields["obs/image/top"].shape == (2 * 200 + 2, 2, 2, 2)
    assert len(storage._stacks["obs/image/top"]._whole) == 0
    stream.skip()
    buffer.add(stream.rollout(10))
    assert len(storage._stacks["obs/image/top"]._whole) > 0
    stream.assert_same(storage)
    for _ in range(4):
        buffer.add(stream.rollout(100))
    assert len(storage._stacks["obs/image/top"]._whole) == 0  # they went with their rows


def test_the_oldest_steps_serve_only_as_the_past_of_those_after_them():
    stream, buffer = Pictures(2, 0, 256), buffer_of(2, 10)
    buffer.add(stream.rollout(10))
    assert len(buffer) == 20
    buffer.add(stream.rollout(1))
    assert len(buffer) == 2 * (10 - FRAMES + 1)


def test_samples_and_windows_hold_whole_stacks():
    stream, buffer = Pictures(2, 0, 256), buffer_of(2, 40)
    buffer.add(stream.rollout(30))
    for part in (Part(kind="transition", batch_size=16), Part(kind="sequence", batch_size=4, length=5)):
        (batch,) = buffer.batches({"p": part}, 1)
        rows = batch["p"]["row"].numpy()
        expected = np.stack([stream.rows[i]["obs/image/top"] for i in rows.reshape(-1)])
        found = batch["p"]["obs/image/top"]
        np.testing.assert_array_equal(found.numpy().reshape(expected.shape), expected)


def test_a_saved_replay_of_stacks_continues_as_it_would_have(tmp_path):
    stream, buffer = Pictures(2, 0, 4), buffer_of(2, 20)
    buffer.add(stream.rollout(13))
    stream.skip()
    buffer.add(stream.rollout(12))
    save_checkpoint(tmp_path, {"replay": buffer.state_dict()}, step=1)
    other = buffer_of(2, 20)
    other.load_state_dict(load_latest(tmp_path)[0]["replay"])
    stream.assert_same(other._storage)
    for _ in range(5):
        fresh = stream.rollout(6)
        for replay in (buffer, other):
            replay.add(fresh)
            stream.assert_same(replay._storage)


def test_an_envs_frame_stack_is_declared_and_stored_once():
    config = EnvConfig("tests.envs_for_tests:Spot", frame_stack=FRAMES)
    env = build_env(config, num_envs=2, seed=0, copy=False)
    spec = env.env_spec
    assert spec.obs["image/front"] == ArraySpec((3, 12, 12), "uint8", frames=FRAMES)
    assert EnvSpec.from_json(spec.to_json()) == spec
    frames = {name: array.frames for name, array in spec.obs.items()}
    buffer, plain = (ReplayBuffer(80, 2, seed=1, frames=f) for f in (frames, None))
    rollout = Collector(env, seed=0).collect(RandomPolicy(None, spec), 30)
    for replay in (buffer, plain):
        replay.add(rollout)
    part = {"p": Part(kind="transition", batch_size=50)}
    for one, other in zip(buffer.batches(part, 3), plain.batches(part, 3), strict=True):
        assert all(torch.equal(one["p"][key], other["p"][key]) for key in other["p"])
    assert buffer._storage.fields["obs/image/front"].shape[1:] == (1, 12, 12)
    of_run = ReplayBuffer.from_config(ReplayConfig(50), spec, part, num_envs=2, seed=0, device="cpu", env_steps=50)
    assert of_run._storage._frames == {"image/front": FRAMES}
    env.close()


def test_the_memory_of_pictures_is_counted_once_and_refused_with_the_number():
    action = ActionSpec("continuous", (2,), (-1.0, -1.0), (1.0, 1.0))
    stacked = ArraySpec((9, 64, 64), "uint8", frames=3)
    spec = EnvSpec("pictures", {"image/pixels": stacked}, action)
    alone = replace(spec, obs={"image/pixels": ArraySpec((9, 64, 64), "uint8")})
    assert bytes_per_step(alone) - bytes_per_step(spec) == 2 * 3 * 64 * 64 - 8
    with pytest.raises(RobotRLError, match=r"1,000,000,000 steps of pictures takes 11,4\d\d.\d GiB \(12,3\d\d bytes"):
        check_memory(1_000_000_000, spec)


def test_a_ring_shorter_than_a_stack_is_refused():
    with pytest.raises(RobotRLError, match="2 steps of each env cannot hold stacks of 3 pictures"):
        buffer_of(2, 2)
