"""A made-up stream of vector-env steps that remembers everything, to compare replays with."""

import numpy as np
import torch


class Stream:
    """Rollouts whose every value names its step: env n's observation number k is `[n, k]`, episodes end at random.

    `rows[i]` is the step whose row id is i, as a dictionary of arrays.
    """

    def __init__(self, num_envs, seed=0, end=0.2):
        self.num_envs, self._end = num_envs, end
        self.rng = np.random.default_rng(seed)
        self.rows = []
        self._count = np.zeros(num_envs, np.int64)
        self._obs = self._fresh(np.ones(num_envs, bool), None)
        self._first = np.ones(num_envs, bool)
        self._step = np.zeros(num_envs, np.int64)

    def _fresh(self, rows, obs):
        new = np.stack([np.arange(self.num_envs), self._count], 1).astype(np.float32)
        self._count += rows
        return new if obs is None else np.where(rows[:, None], new, obs)

    def rollout(self, steps):
        fields = []
        for _ in range(steps):
            every = np.ones(self.num_envs, bool)
            following = self._fresh(every, self._obs)
            done = self.rng.random(self.num_envs) < self._end
            terminated = done & (self.rng.random(self.num_envs) < 0.5)
            row = {
                "obs/state": self._obs,
                "obs/pixels": (self._obs[:, 1:, None] % 251).astype(np.uint8) * np.ones((1, 3, 2), np.uint8),
                "action": self.rng.normal(size=(self.num_envs, 2)).astype(np.float32),
                "reward": self.rng.normal(size=self.num_envs).astype(np.float32),
                "next_obs/state": following,
                "next_obs/pixels": (following[:, 1:, None] % 251).astype(np.uint8) * np.ones((1, 3, 2), np.uint8),
                "terminated": terminated,
                "truncated": done & ~terminated,
                "is_first": self._first,
                "step": self._step.copy(),
                "weight": self.rng.integers(0, 4, self.num_envs).astype(np.float32),
            }
            fields.append(row)
            self.rows += [{k: v[n] for k, v in row.items()} for n in range(self.num_envs)]
            self._obs = self._fresh(done, following) if done.any() else following
            self._step = np.where(done, 0, self._step + 1)
            self._first = done
        batch = {k: torch.from_numpy(np.stack([f[k] for f in fields])) for k in fields[0]}
        batch["state/hidden"] = torch.zeros(1, self.num_envs, 4)
        return batch

    def interrupt(self):
        """Start new episodes everywhere although no step ended one, as after a resume of an inexact env."""
        every = np.ones(self.num_envs, bool)
        self._obs, self._first, self._step = self._fresh(every, None), every, np.zeros(self.num_envs, np.int64)

    def same(self, batch, keys=None):
        """Whether every row of a sampled batch is, field by field, the step that its id names."""
        ids = batch["row"].numpy()
        steps = [self.rows[i] for i in ids.reshape(-1)]
        for key in keys or steps[0]:
            expected = np.stack([step[key] for step in steps]).reshape(*ids.shape, *np.shape(steps[0][key]))
            np.testing.assert_array_equal(batch[key].numpy(), expected, err_msg=key)
        return True
