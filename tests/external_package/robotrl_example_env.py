"""An environment in a package of its own: `robotrl train env=external/point` finds it once the package is installed."""

import gymnasium
import numpy as np

from robotrl.envs.gymnasium_adapter import vectorize


class Point(gymnasium.Env):
    """Push a point to the origin of a plane within 30 steps."""

    metadata = {"render_modes": [], "render_fps": 10}  # noqa: RUF012

    def __init__(self, speed=0.1):
        self.speed = speed
        self.observation_space = gymnasium.spaces.Box(-3, 3, (2,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-1, 1, 2)
        return self.position.copy(), {}

    def step(self, action):
        self.position = np.clip(self.position + self.speed * action, -3, 3)
        distance = float(np.linalg.norm(self.position))
        return self.position.copy(), -distance, distance < 0.05, False, {"success": distance < 0.05}


def make(id, *, num_envs=1, num_threads=None, copy=True, max_episode_steps=30, **options):
    return vectorize(
        lambda: Point(**options),
        id=id,
        num_envs=num_envs,
        copy=copy,
        max_episode_steps=max_episode_steps,
        success="the point is within 5 cm of the origin",
    )
