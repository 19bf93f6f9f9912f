"""Draws docs/images/tabletop/<task>.jpg: the start, the middle and the end of one episode of each task's expert.

python tools/tabletop_pictures.py
"""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import torch
from matplotlib import image
from numpy.typing import NDArray

from robotrl.envs import make_vec
from robotrl.envs.rendering import OffscreenRenderer
from robotrl.envs.tabletop.experts import Expert
from robotrl.envs.tabletop.tasks import TASKS
from robotrl.envs.tabletop.vector_env import TabletopVectorEnv

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images" / "tabletop"
HEIGHT, WIDTH, SEED = 240, 320, 3


def moments(task: str) -> list[NDArray[np.uint8]]:
    """Pictures `[HEIGHT, WIDTH, 3]` of an episode: four moments, and what both cameras see at the end."""
    env = make_vec(f"tabletop/{task}", num_envs=1, num_threads=1)
    assert isinstance(env, TabletopVectorEnv)
    env.disable_autoreset()
    expert = Expert(None, env.env_spec)
    obs, _ = env.reset(seed=SEED)
    state, states = expert.initial_state(1), [env.batch.state[0].copy()]
    done = False
    while not done:
        tensors = {name: torch.as_tensor(value) for name, value in obs.items()}
        action, _, state = expert.act(tensors, state, explore=False)
        obs, _, terminated, truncated, _ = env.step(action.numpy())
        states.append(env.batch.state[0].copy())
        done = bool(terminated[0] or truncated[0])
    view = mujoco.MjvCamera()
    for name, value in env.view.items():
        setattr(view, name, value)
    model, data = env.batch.get_model(0), env.new_data()
    pictures = []
    with OffscreenRenderer(model, HEIGHT, WIDTH, shadows=True) as renderer:
        for share, camera in ((0.0, view), (0.35, view), (0.7, view), (1.0, view), (1.0, "front"), (1.0, "wrist")):
            row = states[round(share * (len(states) - 1))]
            mujoco.mj_setState(model, data, row, mujoco.mjtState.mjSTATE_INTEGRATION.value)
            mujoco.mj_forward(model, data)
            pictures.append(renderer.render(data, camera))
    env.close()
    return pictures


def main() -> None:
    """Write one file a task."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for task in TASKS:
        pictures = moments(task)
        rows = [np.concatenate(pictures[k : k + 3], axis=1) for k in (0, 3)]
        path = FOLDER / f"{task}.jpg"
        image.imsave(path, np.concatenate(rows), pil_kwargs={"quality": 82, "optimize": True})
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
