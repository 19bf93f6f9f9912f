"""The only caller of `env.step` in training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from robotrl.envs.guard import StepGuard
from robotrl.types import Batch, EnvSpec, Metrics, Obs, Policy, RobotRLError, State, StateDict, ungroup

_DTYPES = {"uint8": torch.uint8, "int64": torch.int64, "int32": torch.int64, "bool": torch.bool}


@dataclass(frozen=True, slots=True)
class Finished:
    """An episode that ended; `success` is None where the env does not say."""

    episode: int
    total_reward: float
    length: int
    success: bool | None


class Collector:
    """Steps a vector env with a policy and returns time-major rollouts.

    Observations are cast to float32 (images and integers keep their type) and copied once, into the rollout.
    `next_obs` is the observation before any auto-reset. The env, the current observation, the policy state and the
    running episode's sums carry over from one `collect` to the next, and through `state_dict`.

    Args:
        env: a RobotRL vector env (SAME_STEP auto-reset, `env_spec`).
        seed: of the first reset; episode i of the run starts from (seed, i).
        device: where rollouts are kept and the policy runs.
        dump_dir: where the env's state is written if it returns what is not finite or of another shape.
    """

    def __init__(
        self, env: VectorEnv[Any, Any, Any], *, seed: int = 0, device: str = "cpu", dump_dir: str | Path = "."
    ) -> None:
        self.env, self.spec, self.device = env, _spec(env), device
        self.num_envs = env.num_envs
        self._seed: int | None = seed
        self._guard = StepGuard(env, dump_dir)
        self._obs: Obs | None = None
        self._state: State = {}
        self._is_first = torch.ones(self.num_envs, dtype=torch.bool)
        self._episode: NDArray[np.int64] = np.arange(self.num_envs, dtype=np.int64)
        self._step: NDArray[np.int64] = np.zeros(self.num_envs, dtype=np.int64)
        self._return: NDArray[np.float64] = np.zeros(self.num_envs)
        self._finished: list[Finished] = []

    @property
    def playing(self) -> NDArray[np.int64]:
        """The index of the episode that each env plays, `[N]`."""
        return self._episode.copy()

    def collect(self, policy: Policy, steps: int) -> Batch:
        """Act for `steps` steps in every env; returns the rollout `[steps, N, ...]`."""
        n, obs_now, finals = self.num_envs, self.begin(policy), []
        rollout: Batch = {
            f"obs/{key}": torch.empty((steps + 1, *value.shape), dtype=value.dtype, device=self.device)
            for key, value in obs_now.items()
        }
        rollout.update(ungroup({key: value.unsqueeze(0).clone() for key, value in self._state.items()}, "state"))
        reward, episode = np.empty((steps, n), np.float32), np.empty((steps, n), np.int64)
        terminated, truncated = np.empty((steps, n), np.bool_), np.empty((steps, n), np.bool_)
        is_first, step = torch.empty((steps, n), dtype=torch.bool), np.empty((steps, n), np.int64)
        for key, value in obs_now.items():
            rollout[f"obs/{key}"][0] = value
        for t in range(steps):
            obs_t = {key: rollout[f"obs/{key}"][t] for key in obs_now}
            action, extras, self._state = policy.act(obs_t, self._state, explore=True)
            extras["action"] = action
            if t == 0:
                names = extras.keys()
                for key, value in extras.items():
                    rollout[key] = torch.empty((steps, *value.shape), dtype=value.dtype, device=self.device)
            elif extras.keys() != names:
                raise RobotRLError(
                    f"The policy's extras were {sorted(names)} at one step and {sorted(extras)} at another. `act` must "
                    "return the same ones at every step; put zeros where there is nothing to say."
                )
            for key, value in extras.items():
                rollout[key][t] = value
            episode[t], step[t], is_first[t] = self._episode, self._step, self._is_first
            command = action.cpu().numpy()
            obs, reward[t], terminated[t], truncated[t], infos = self.env.step(command)
            self._guard.check(obs, reward[t], infos, command)
            if "executed_action" in infos:  # an env with a delay ran another action than it was given
                rollout["action"][t] = torch.from_numpy(infos["executed_action"])
            for key in obs_now:
                rollout[f"obs/{key}"][t + 1] = torch.from_numpy(obs[key])
            done = terminated[t] | truncated[t]
            self._account(reward[t], done, infos)
            if done.any():
                done_rows = torch.from_numpy(done)
                finals.append((t, done_rows, {k: self._tensor(k, v[done]) for k, v in infos["final_obs"].items()}))
                self._state = policy.reset_state(self._state, done_rows.to(self.device))
                self._is_first = done_rows
            elif t == 0 or self._is_first.any():
                self._is_first = torch.zeros(n, dtype=torch.bool)
        self._obs = {key: rollout[f"obs/{key}"][steps].clone() for key in obs_now}
        for key in obs_now:
            rollout[f"obs/{key}"], rollout[f"next_obs/{key}"] = _split(
                rollout[f"obs/{key}"], [(t, rows, final[key]) for t, rows, final in finals]
            )
        arrays = {"reward": reward, "terminated": terminated, "truncated": truncated, "episode": episode, "step": step}
        rollout.update({key: torch.from_numpy(value).to(self.device) for key, value in arrays.items()})
        rollout["is_first"] = is_first.to(self.device)
        return rollout

    def begin(self, policy: Policy) -> Obs:
        """The current observation; resets the env the first time. `collect` does it where nobody did before."""
        if self._obs is None:
            obs, _ = self.env.reset(seed=self._seed)  # None after a resume: the env goes on with its next episodes
            self._guard.check(obs)
            self._obs = {key: self._tensor(key, value) for key, value in obs.items()}
            self._state = policy.initial_state(self.num_envs)
        return self._obs

    def _tensor(self, key: str, value: NDArray[Any]) -> Tensor:
        dtype = _DTYPES.get(self.spec.obs[key].dtype, torch.float32)
        return torch.as_tensor(value).to(device=self.device, dtype=dtype, copy=True)

    def _account(self, reward: NDArray[np.float32], done: NDArray[np.bool_], infos: dict[str, Any]) -> None:
        self._return += reward
        self._step += 1
        if done.any():
            success = infos.get("success")
            for i in np.flatnonzero(done):
                succeeded = None if success is None else bool(success[i])
                ended = Finished(int(self._episode[i]), float(self._return[i]), int(self._step[i]), succeeded)
                self._finished.append(ended)
            self._return[done], self._step[done] = 0.0, 0
            self._episode[done] += self.num_envs

    def finished(self) -> list[Finished]:
        """The episodes that ended since the last call of this or of `stats`, in the order in which they did."""
        ended, self._finished = self._finished, []
        return ended

    def stats(self) -> Metrics:
        """Means over the episodes finished since the last call: `train/return|length|success`, and `train/episodes`."""
        ended = self.finished()
        metrics = {"train/episodes": torch.tensor(float(len(ended)))}
        if ended:
            metrics["train/return"] = torch.tensor(np.mean([e.total_reward for e in ended]))
            metrics["train/length"] = torch.tensor(np.mean([float(e.length) for e in ended]))
            if all(e.success is not None for e in ended):
                metrics["train/success"] = torch.tensor(np.mean([float(e.success or 0) for e in ended]))
        return metrics

    def state_dict(self) -> StateDict:
        """Env, observation, policy state and episode sums."""
        return {
            "env": self.env.state_dict() if self._obs is not None else None,  # type: ignore[attr-defined]  # RobotRL envs have it
            "obs": self._obs,
            "policy_state": self._state,
            "is_first": self._is_first,
            "episode": self._episode.copy(),
            "step": self._step.copy(),
            "return": self._return.copy(),
            "guarded_steps": self._guard.steps,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly; an env that cannot save its state exactly starts new episodes instead."""
        if state["env"] is None:
            return
        self._guard.steps = int(state["guarded_steps"])
        self.env.load_state_dict(state["env"])  # type: ignore[attr-defined]  # RobotRL envs have it
        if not self.spec.exact_state:
            self._seed, self._episode = None, np.array(state["episode"]) + self.num_envs
            return
        self._obs = {key: value.to(self.device) for key, value in state["obs"].items()}
        self._state = {key: value.to(self.device) for key, value in state["policy_state"].items()}
        self._is_first = state["is_first"]
        self._episode, self._step = np.array(state["episode"]), np.array(state["step"])
        self._return = np.array(state["return"])


def _split(obs: Tensor, finals: list[tuple[int, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """`[T + 1, N, ...]` into obs and next_obs, in which final observations stand in place of resets."""
    following = obs[1:].clone() if finals else obs[1:]
    for t, rows, final in finals:
        following[t, rows] = final
    return obs[:-1], following


def _spec(env: VectorEnv[Any, Any, Any]) -> EnvSpec:
    spec = getattr(env, "env_spec", None)
    if not isinstance(spec, EnvSpec):
        raise RobotRLError(
            f"{type(env).__name__} has no env_spec, so it is not a RobotRL env. Make it with robotrl.make_vec, or use "
            "'gym/<id>' for a Gymnasium env."
        )
    return spec
