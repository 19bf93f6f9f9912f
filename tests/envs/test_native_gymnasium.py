"""Native tasks against Gymnasium's own environments, over 1,000 random steps from the same states."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from robotrl.envs import make_vec

STEPS = 1000
ENVS = 2

# (task, options, largest difference): 0 means equal to the bit
CASES: list[tuple[str, dict[str, Any], float]] = [
    ("HalfCheetah-v5", {}, 0.0),
    ("HalfCheetah-v5", {"exclude_current_positions_from_observation": False, "forward_reward_weight": 2.5}, 0.0),
    ("HalfCheetah-v5", {"frame_skip": 2, "ctrl_cost_weight": 0.7, "reset_noise_scale": 0.3}, 0.0),
    ("Hopper-v5", {}, 0.0),
    ("Hopper-v5", {"terminate_when_unhealthy": False, "healthy_reward": 2.0}, 0.0),
    ("Hopper-v5", {"healthy_state_range": (-1.0, 1.0), "healthy_z_range": (0.0, 1.3), "frame_skip": 2}, 0.0),
    ("Hopper-v5", {"exclude_current_positions_from_observation": False, "healthy_angle_range": (-0.05, 1.0)}, 0.0),
    ("Walker2d-v5", {}, 0.0),
    ("Walker2d-v5", {"healthy_z_range": (1.0, 1.5), "healthy_angle_range": (-0.3, 0.3)}, 0.0),
    ("Walker2d-v5", {"exclude_current_positions_from_observation": False, "terminate_when_unhealthy": False}, 0.0),
]


def _ids(case: tuple[str, dict[str, Any], float]) -> str:
    return "-".join([case[0], *map(str, case[1])])


class Peers:
    """One Gymnasium environment a row, set to the native env's states."""

    def __init__(self, env_id: str, options: dict[str, Any]) -> None:
        self.envs = [gymnasium.make(env_id, **options).unwrapped for _ in range(ENVS)]

    def start(self, row: int, native: Any) -> np.ndarray:
        env: Any = self.envs[row]
        env.reset(seed=0)
        env.set_state(native.task.qpos[row].copy(), native.task.qvel[row].copy())
        return env._get_obs()  # type: ignore[no-any-return]


def _same(got: Any, want: Any, tolerance: float, what: str) -> None:
    got, want = np.asarray(got), np.asarray(want)
    equal = np.array_equal(got, want) if tolerance == 0 else bool(np.all(np.abs(got - want) <= tolerance))
    assert equal, f"{what}: differs by {np.max(np.abs(got - want))}"


@pytest.mark.parametrize("case", CASES, ids=_ids)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_observations_rewards_terminations_and_infos_are_gymnasiums(
    case: tuple[str, dict[str, Any], float], dtype: type[np.floating[Any]]
) -> None:
    env_id, options, tolerance = case
    native = make_vec(env_id, num_envs=ENVS, num_threads=1, max_episode_steps=200, **options)
    peers = Peers(env_id, options)
    rng = np.random.default_rng(0)
    low, high = native.single_action_space.low, native.single_action_space.high
    obs, _ = native.reset(seed=1)
    for row in range(ENVS):
        _same(obs["state"][row], peers.start(row, native), tolerance, "reset observation")
    ends = 0
    for step in range(STEPS if dtype is np.float32 else STEPS // 5):
        # 1.5 times the control range: Gymnasium pays for the action as given, MuJoCo clips what is applied
        actions = (1.5 * rng.uniform(low, high, (ENVS, len(low)))).astype(dtype)
        obs, reward, terminated, truncated, infos = native.step(actions)
        for row, peer in enumerate(peers.envs):
            want_obs, want_reward, want_terminated, _, want_infos = peer.step(actions[row])
            done = terminated[row] or truncated[row]
            got_obs = infos["final_obs"]["state"][row] if done else obs["state"][row]
            _same(got_obs, want_obs, tolerance, f"observation {row} of step {step}")
            _same(reward[row], want_reward, tolerance, f"reward {row} of step {step}")
            assert terminated[row] == want_terminated
            for name, value in want_infos.items():
                _same(infos[name][row], value, tolerance, f"{name} {row} of step {step}")
            if done:
                assert infos["_final_obs"][row]
                _same(obs["state"][row], peers.start(row, native), tolerance, "reset observation")
                ends += 1
    assert ends > 0 or dtype is np.float64
