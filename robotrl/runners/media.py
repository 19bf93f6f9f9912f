"""Films of a policy at work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robotrl.envs.config import EnvConfig, build_env, for_evaluation
from robotrl.types import Obs, Policy, RobotRLError

CODECS = (("libx264", "yuv420p"), ("h264", "yuv420p"), ("mpeg4", "yuv420p"))


def write_video(path: Path, frames: Iterable[NDArray[np.uint8]], fps: float) -> Path:
    """Encode frames `[H, W, 3]` (uint8 RGB, even height and width) as H.264, or MPEG-4 where that is missing.

    Raises:
        RobotRLError: there are no frames, or they cannot be encoded or written.
    """
    from fractions import Fraction

    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    codec, pixels = next((c for c in CODECS if c[0] in av.codecs_available), CODECS[-1])
    draft = path.with_name(f".{path.name}")
    try:
        with av.open(str(draft), "w", format="mp4") as container:
            stream: Any = None
            for frame in frames:
                if stream is None:
                    stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
                    stream.height, stream.width, stream.pix_fmt = frame.shape[0], frame.shape[1], pixels
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            if stream is None:
                raise RobotRLError(f"There are no frames to write to {path}.")
            container.mux(stream.encode(None))
        draft.replace(path)
    except (OSError, ValueError, av.error.FFmpegError) as error:
        raise RobotRLError(f"The video {path} could not be written with {codec}: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return path


@torch.no_grad()
def film(
    policy: Policy, env: Any, *, seed: int = 0, seconds: float = 10.0, height: int = 360, width: int = 480
) -> Iterator[NDArray[np.uint8]]:
    """Frames of the first row of `env`, from the start of an episode to its end or for `seconds` of simulated time.

    Args:
        policy: acts without exploration.
        env: a RobotRL vector env with one row; its `render_rows` draws the frames.
        seed: of the episode.
        seconds: of simulated time (of 30 steps each where the env has no clock).
        height: of the frames, even.
        width: of the frames, even.

    Raises:
        RobotRLError: the env cannot be rendered here.
    """
    device = next(policy.parameters()).device if isinstance(policy, torch.nn.Module) else torch.device("cpu")
    hz, stride = _clock(env)
    obs, _ = env.reset(seed=seed)
    state = policy.initial_state(1)
    for step in range(max(1, round(seconds * hz))):
        if step % stride == 0:
            yield env.render_rows([0], height=height, width=width)[0]
        action, _, state = policy.act(tensors(obs, device), state, explore=False)
        obs, _, terminated, truncated, _ = env.step(action.cpu().numpy())
        if terminated[0] or truncated[0]:
            return


def film_saved(path: str | Path, policy: Policy, env: EnvConfig, *, seed: int = 0) -> Path:
    """Play an episode of `env` as evaluations do and write its film to `path`; see `film` and `write_video`."""
    played = build_env(for_evaluation(env), num_envs=1, seed=seed, num_threads=1)
    try:
        return write_video(Path(path), film(policy, played, seed=seed), frames_per_second(played))
    finally:
        played.close()


def frames_per_second(env: Any) -> float:
    """How fast the frames of `film` are shown, so that it runs in simulated time; about 30 at most."""
    hz, stride = _clock(env)
    return hz / stride


def _clock(env: Any) -> tuple[float, int]:
    """Control frequency, and of how many steps one is drawn: 30 frames a second are enough for the eye."""
    hz = float(env.env_spec.control_hz) or 30.0
    return hz, max(1, round(hz / 30.0))


def tensors(obs: dict[str, NDArray[Any]], device: torch.device) -> Obs:
    """Copies of an env's observations as a policy takes them: floating-point numbers as float32."""
    return {
        k: torch.tensor(v, dtype=torch.float32 if v.dtype.kind == "f" else None, device=device) for k, v in obs.items()
    }


__all__ = ["film", "film_saved", "frames_per_second", "tensors", "write_video"]
