"""Films run in simulated time, from the start of an episode, and can be played."""

import numpy as np
import pytest

from robotrl.runners.media import film, frames_per_second, write_video
from robotrl.types import ActionSpec, ArraySpec, EnvSpec, RobotRLError


class Policy:
    def initial_state(self, num_envs):
        return {}

    def act(self, obs, state, *, explore):
        assert not explore
        return obs["state"][:, :1], {}, state


class Env:
    """Shows its step number as brightness; an episode takes `length` steps."""

    def __init__(self, hz=50.0, length=1000):
        self.length = length
        obs = {"state": ArraySpec((2,))}
        self.env_spec = EnvSpec("Fake", obs, ActionSpec("continuous", (1,), (-1.0,), (1.0,)), control_hz=hz)

    def reset(self, *, seed):
        self.step_number, self.seed = 0, seed
        return {"state": np.zeros((1, 2))}, {}

    def step(self, action):
        assert action.shape == (1, 1)
        self.step_number += 1
        done = np.array([self.step_number >= self.length])
        return {"state": np.zeros((1, 2))}, np.zeros(1), done, np.array([False]), {}

    def render_rows(self, rows, *, height, width):
        assert rows == [0]
        return np.full((1, height, width, 3), self.step_number, np.uint8)


def test_frames_come_at_the_control_rate_up_to_about_thirty_a_second():
    for hz, fps in ((20.0, 20.0), (50.0, 25.0), (125.0, 31.25), (0.0, 30.0)):
        env = Env(hz)
        assert frames_per_second(env) == pytest.approx(fps)
        frames = list(film(Policy(), env, seconds=2.0, height=4, width=4))
        assert len(frames) == pytest.approx(2 * fps, abs=1)
        assert frames[1][0, 0, 0] - frames[0][0, 0, 0] == max(1, round((hz or 30.0) / fps))


def test_a_film_ends_with_its_episode():
    assert len(list(film(Policy(), Env(20.0, length=7), seconds=10.0, height=4, width=4))) == 7


def test_a_video_can_be_played_and_holds_every_frame(tmp_path):
    import av

    frames = [np.full((32, 48, 3), 8 * i, np.uint8) for i in range(30)]
    path = write_video(tmp_path / "videos" / "x.mp4", frames, 31.25)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.format.name) in {("h264", "yuv420p"), ("mpeg4", "yuv420p")}
        assert float(stream.average_rate) == pytest.approx(31.25)
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(shown) == 30
    assert all(abs(int(a.mean()) - int(b.mean())) < 8 for a, b in zip(shown, frames, strict=True))
    assert [p.name for p in path.parent.iterdir()] == ["x.mp4"]


def test_a_video_without_frames_or_that_fails_leaves_nothing(tmp_path):
    def broken():
        yield np.zeros((32, 48, 3), np.uint8)
        raise RobotRLError("Images cannot be rendered")

    with pytest.raises(RobotRLError, match="no frames"):
        write_video(tmp_path / "x.mp4", [], 20.0)
    with pytest.raises(RobotRLError, match="Images cannot be rendered"):
        write_video(tmp_path / "x.mp4", broken(), 20.0)
    assert list(tmp_path.iterdir()) == []
