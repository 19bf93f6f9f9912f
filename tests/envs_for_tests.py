"""Tiny environments with everything RobotRL asks of one, for tests of what stands on top of environments.

All are deterministic: what an episode holds is drawn from (seed, episode index) alone, so `exact_state` is true. Use a
class directly, or by name: `make_vec("tests.envs_for_tests:Target", num_envs=4)`.
"""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.vector.utils import batch_space

from robotrl.envs.base import VectorEnv, action_spec, array_spec
from robotrl.envs.seeding import episode_rng
from robotrl.types import EnvSpec


class TinyEnv(VectorEnv):
    """Episodes of `length` steps, each with a `secret [length + 1, k]` that observations and rewards are made of.

    Without `copy` the returned observations are the same arrays every time, overwritten: who keeps one must copy it.
    """

    groups: ClassVar[dict[str, gymnasium.Space[Any]]] = {"state": Box(-np.inf, np.inf, (1,), np.float64)}
    actions: ClassVar[gymnasium.Space[Any]] = Box(-1.0, 1.0, (1,), np.float32)
    success = ""

    def __init__(
        self,
        id: str = "",
        *,
        num_envs: int = 1,
        num_threads: int | None = None,
        copy: bool = True,
        length: int = 8,
        ends: str = "truncated",
    ) -> None:
        self.num_envs, self.length, self._ends, self._copy = num_envs, length, ends, copy
        self.single_observation_space, self.single_action_space = Dict(self.groups), self.actions
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.actions, num_envs)
        self.env_spec = EnvSpec(
            id or type(self).__name__,
            {name: array_spec(space) for name, space in self.groups.items()},
            action_spec(self.actions),
            time_limit=length if ends == "truncated" else None,
            success=self.success,
            exact_state=True,
        )
        self._buffers = {k: np.zeros((num_envs, *s.shape), s.dtype) for k, s in self.groups.items()}
        self._seed: int | None = None
        self.steps_made = self.resets_made = 0

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The secret of an episode, `[length + 1, k]`."""
        return rng.uniform(-1.0, 1.0, (self.length + 1, 1))

    def observe(self, now: np.ndarray, step: np.ndarray) -> dict[str, np.ndarray]:
        """Groups `[N, ...]` from the present secrets `[N, k]` and the steps `[N]` made in each episode."""
        return {"state": now}

    def reward(self, now: np.ndarray, step: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Reward `[N]` of `action` taken in the state that was shown."""
        raise NotImplementedError

    def succeeded(self, now: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Success `[N]` at an episode's end."""
        raise NotImplementedError

    def limit(self, episode: int) -> int:
        """Steps of an episode, at most `length`."""
        return self.length

    def reset(self, *, seed=None, options=None):
        if seed is not None or self._seed is None:
            self._seed, self._episode = self.default_seed if seed is None else seed, np.arange(self.num_envs)
        else:
            self._episode = self._episode + self.num_envs
        self.resets_made += 1
        self._step = np.zeros(self.num_envs, np.int64)
        self._secret = np.stack([self._start(i) for i in self._episode])
        return self._shown(), {}

    def _start(self, episode):
        return self.draw(episode_rng(self._seed, int(episode)))

    def _now(self):
        return self._secret[np.arange(self.num_envs), self._step]

    def _shown(self):
        obs = self.observe(self._now(), self._step)
        for name, value in obs.items():
            np.copyto(self._buffers[name], value)
        return {k: v.copy() for k, v in self._buffers.items()} if self._copy else self._buffers

    def step(self, actions):
        self.steps_made += 1
        actions = np.asarray(actions)
        assert actions.shape == self.action_space.shape, actions.shape
        assert self.action_space.contains(actions.astype(self.action_space.dtype)), actions
        now, step = self._now(), self._step
        reward = np.asarray(self.reward(now, step, actions), np.float64)
        self._step = step + 1
        done = self._step >= [self.limit(i) for i in self._episode]
        infos: dict[str, Any] = {}
        if done.any():
            infos = {
                "final_obs": {k: v.copy() for k, v in self.observe(self._now(), self._step).items()},
                "_final_obs": done.copy(),
            }
            if self.success:
                infos |= {"success": self.succeeded(now, actions) & done, "_success": done.copy()}
            self._episode = np.where(done, self._episode + self.num_envs, self._episode)
            self._step = np.where(done, 0, self._step)
            for row in np.flatnonzero(done):
                self._secret[row] = self._start(self._episode[row])
        ended, never = done.copy(), np.zeros(self.num_envs, bool)
        terminated, truncated = (ended, never) if self._ends == "terminated" else (never, ended)
        return self._shown(), reward, terminated, truncated, infos

    def state_dict(self):
        return {"seed": self._seed, "episode": self._episode.copy(), "step": self._step.copy()}

    def load_state_dict(self, state):
        self._seed = state["seed"]
        self._episode, self._step = np.array(state["episode"]), np.array(state["step"])
        self._secret = np.stack([self._start(i) for i in self._episode])

    def render_rows(self, rows, *, height, width, camera=None):
        return np.zeros((len(rows), height, width, 3), np.uint8)


class ConstantReward(TinyEnv):
    """Reward 1 a step and nothing to see: with discount g its value is 1 / (1 - g) if only truncation ends it."""

    def draw(self, rng):
        return np.ones((self.length + 1, 1))

    def reward(self, now, step, action):
        return np.ones(self.num_envs)


class Target(TinyEnv):
    """Match the two numbers that are shown, in units of unequal bounds; 0 is the best return."""

    groups: ClassVar = {"state": Box(-np.inf, np.inf, (2,), np.float64)}
    actions: ClassVar = Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32))

    def draw(self, rng):
        return rng.uniform(self.actions.low, self.actions.high, (self.length + 1, 2))

    def reward(self, now, step, action):
        return -np.square((action - now) / [2.0, 0.5]).sum(-1)


class Ragged(Target):
    """As `Target`, with episodes of different lengths, 1 to `length`, so that rows fall out of step."""

    def limit(self, episode):
        return 1 + (3 * int(episode)) % self.length


class Pick(TinyEnv):
    """Choose the one of four that is shown; the best return is `length`."""

    groups: ClassVar = {"state": Box(0.0, 1.0, (4,), np.float32)}
    actions: ClassVar = Discrete(4)

    def draw(self, rng):
        return np.eye(4)[rng.integers(0, 4, self.length + 1)]

    def reward(self, now, step, action):
        return now[np.arange(self.num_envs), action]


class Memory(TinyEnv):
    """The first observation says which of two actions will be right at the last step; nothing is shown in between.

    Return 1 at the best, 0 on average for who forgets, -1 at the worst. Observed: cue, whether it is the last step.
    """

    groups: ClassVar = {"state": Box(-1.0, 1.0, (2,), np.float32)}
    actions: ClassVar = Discrete(2)
    success = "the last action is the one that the cue asked for"

    def draw(self, rng):
        return np.full((self.length + 1, 1), rng.choice([-1.0, 1.0]))

    def observe(self, now, step):
        return {"state": np.stack([now[:, 0] * (step == 0), step == self.length - 1], -1)}

    def reward(self, now, step, action):
        return np.where(step == self.length - 1, now[:, 0] * (2 * action - 1), 0.0)

    def succeeded(self, now, action):
        return now[:, 0] * (2 * action - 1) > 0


class MemoryContinuous(TinyEnv):
    """As `Memory`, with a continuous action that should equal the cue at the last step; the best return is 0."""

    groups: ClassVar = {"state": Box(-1.0, 1.0, (2,), np.float32)}

    def draw(self, rng):
        return np.full((self.length + 1, 1), rng.choice([-0.8, 0.8]))

    def observe(self, now, step):
        return {"state": np.stack([now[:, 0] * (step == 0), step == self.length - 1], -1)}

    def reward(self, now, step, action):
        return np.where(step == self.length - 1, -np.square(action[:, 0] - now[:, 0]), 0.0)


class Spot(TinyEnv):
    """A bright square in one of three columns of a picture; choose the column. The best return is `length`."""

    groups: ClassVar = {
        "image/front": Box(0, 255, (1, 12, 12), np.uint8),
        "state": Box(-1.0, 1.0, (1,), np.float32),
    }
    actions: ClassVar = Discrete(3)

    def draw(self, rng):
        return np.stack([rng.integers(0, 3, self.length + 1), rng.integers(0, 9, self.length + 1)], -1)

    def observe(self, now, step):
        column, height = now.astype(np.int64).T
        rows, columns = np.arange(12)[None, :, None], np.arange(12)[None, None, :]
        lit = (columns // 4 == column[:, None, None]) & (rows // 3 == height[:, None, None] // 3)
        picture = np.where(lit, 220, 10).astype(np.uint8)[:, None]
        return {"image/front": picture, "state": np.zeros((len(now), 1))}

    def reward(self, now, step, action):
        return (action == now[:, 0]).astype(np.float64)


class SpotContinuous(Spot):
    """As `Spot`, with a continuous action: -0.8, 0 or 0.8 for the columns; the best return is 0."""

    actions: ClassVar = Box(-1.0, 1.0, (1,), np.float32)

    def reward(self, now, step, action):
        return -np.square(action[:, 0] - 0.8 * (now[:, 0] - 1.0))


class SpotColour(SpotContinuous):
    """As `SpotContinuous`, with a colour picture, as data sets keep them."""

    groups: ClassVar = {
        "image/front": Box(0, 255, (3, 16, 16), np.uint8),
        "state": Box(-1.0, 1.0, (1,), np.float32),
    }

    def observe(self, now, step):
        seen = super().observe(now, step)
        grey = np.pad(seen["image/front"], ((0, 0), (0, 0), (2, 2), (2, 2)))
        return {**seen, "image/front": np.concatenate([grey, grey // 2, 255 - grey], 1)}


class Told(TinyEnv):
    """A red and a blue spot in columns of a picture, and the word of one: the action is to be that column's.

    Nothing changes within an episode, so a chunk of actions can be told from its start. As `Spot` otherwise.
    """

    groups: ClassVar = {
        "image/front": Box(0, 255, (3, 16, 16), np.uint8),
        "state": Box(-1.0, 1.0, (1,), np.float32),
        "instruction": Box(0, 100, (3,), np.int64),
    }
    actions: ClassVar = Box(-1.0, 1.0, (1,), np.float32)
    RED, BLUE, PRESS = 2, 4, 69

    def draw(self, rng):
        red, blue = rng.permutation(3)[:2]
        return np.tile([float(red), float(blue), float(rng.integers(2))], (self.length + 1, 1))

    def observe(self, now, step):
        picture = np.full((len(now), 3, 16, 16), 40, np.uint8)
        for row, (red, blue, _) in enumerate(now.astype(int)):
            picture[row, 0, 4:12, 1 + 5 * red : 5 + 5 * red] = 250
            picture[row, 2, 4:12, 1 + 5 * blue : 5 + 5 * blue] = 250
        words = np.where(now[:, 2] > 0.5, self.BLUE, self.RED)
        told = np.stack([np.full_like(words, self.PRESS), words, np.zeros_like(words)], -1)
        return {"image/front": picture, "state": np.zeros((len(now), 1)), "instruction": told}

    def wanted(self, now):
        """The right action `[N]`."""
        return 0.8 * (np.where(now[:, 2] > 0.5, now[:, 1], now[:, 0]) - 1.0)

    def reward(self, now, step, action):
        return -np.square(action[:, 0] - self.wanted(now))


class Slide(TinyEnv):
    """A bead on a wire: actions move it, and it should be in the middle. What comes follows from what was done."""

    actions: ClassVar = Box(-1.0, 1.0, (1,), np.float32)

    def _start(self, episode):
        secret = super()._start(episode)
        secret[1:] = np.nan  # not known yet
        return secret

    def step(self, actions):
        push = self.push(np.asarray(actions))
        place = np.clip(self._now()[:, 0] + push, -1.0, 1.0)
        self._secret[np.arange(self.num_envs), self._step + 1, 0] = place
        return super().step(actions)

    def push(self, actions):
        """How far the bead moves, `[N]`."""
        return 0.5 * actions[:, 0]

    def reward(self, now, step, action):
        return 1.0 - 2.0 * np.abs(now[:, 0])

    def state_dict(self):
        return {**super().state_dict(), "secret": self._secret.copy()}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self._secret = np.array(state["secret"])


class SlideDiscrete(Slide):
    """Pushed to one side, not at all, or to the other."""

    actions: ClassVar = Discrete(3)

    def push(self, actions):
        return 0.5 * (actions - 1.0)


class Clock(ConstantReward):
    """Shows the number of the episode in its row, and the step."""

    groups: ClassVar = {"state": Box(-np.inf, np.inf, (2,), np.float64)}

    def observe(self, now, step):
        return {"state": np.stack([self._episode, step], -1)}
