"""Native tasks against Gymnasium's own environments, over 1,000 random steps from the same states."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import scipy.stats

from robotrl.envs import make_vec

STEPS = 1000
ENVS = 2

# Observations and terminations are equal to the bit in all of them; rewards and infos are unless listed in ROUNDED.
CASES: list[tuple[str, dict[str, Any]]] = [
    ("HalfCheetah-v5", {}),
    ("HalfCheetah-v5", {"exclude_current_positions_from_observation": False, "forward_reward_weight": 2.5}),
    ("HalfCheetah-v5", {"frame_skip": 2, "ctrl_cost_weight": 0.7, "reset_noise_scale": 0.3}),
    ("Hopper-v5", {}),
    ("Hopper-v5", {"terminate_when_unhealthy": False, "healthy_reward": 2.0}),
    ("Hopper-v5", {"healthy_state_range": (-1.0, 1.0), "healthy_z_range": (0.0, 1.3), "frame_skip": 2}),
    ("Hopper-v5", {"exclude_current_positions_from_observation": False, "healthy_angle_range": (-0.05, 1.0)}),
    ("Walker2d-v5", {}),
    ("Walker2d-v5", {"healthy_z_range": (1.0, 1.5), "healthy_angle_range": (-0.3, 0.3)}),
    ("Walker2d-v5", {"exclude_current_positions_from_observation": False, "terminate_when_unhealthy": False}),
    ("Swimmer-v5", {}),
    ("Swimmer-v5", {"exclude_current_positions_from_observation": False, "ctrl_cost_weight": 0.3}),
    ("Ant-v5", {}),
    ("Ant-v5", {"contact_cost_weight": 0.1, "contact_force_range": (-30.0, 50.0), "healthy_z_range": (0.4, 0.8)}),
    ("Ant-v5", {"include_cfrc_ext_in_observation": False, "main_body": 4, "terminate_when_unhealthy": False}),
    ("Ant-v5", {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0, "main_body": "torso"}),
    ("Ant-v5", {"exclude_current_positions_from_observation": False, "frame_skip": 1}),
    ("Humanoid-v5", {}),
    (
        "Humanoid-v5",
        {"terminate_when_unhealthy": False, "contact_cost_weight": 1e-3, "contact_cost_range": (0.5, 40.0)},
    ),
    ("Humanoid-v5", {"include_cinert_in_observation": False, "include_cfrc_ext_in_observation": False}),
    (
        "Humanoid-v5",
        {
            "include_cvel_in_observation": False,
            "include_qfrc_actuator_in_observation": False,
            "healthy_z_range": (0.9, 1.5),
        },
    ),
    ("HumanoidStandup-v5", {}),
    (
        "HumanoidStandup-v5",
        {"impact_cost_weight": 1e-4, "impact_cost_range": (1.0, 8.0), "include_cvel_in_observation": False},
    ),
    (
        "HumanoidStandup-v5",
        {"exclude_current_positions_from_observation": False, "include_cfrc_ext_in_observation": False},
    ),
    ("Reacher-v5", {}),
    ("Reacher-v5", {"reward_dist_weight": 3.0, "reward_control_weight": 0.3, "frame_skip": 4}),
    ("Pusher-v5", {}),
    ("Pusher-v5", {"reward_near_weight": 0.1, "reward_dist_weight": 2.5, "reward_control_weight": 1.0}),
    ("InvertedPendulum-v5", {}),
    ("InvertedPendulum-v5", {"reset_noise_scale": 0.15, "frame_skip": 1}),
    ("InvertedDoublePendulum-v5", {}),
    ("InvertedDoublePendulum-v5", {"healthy_reward": 3.0, "reset_noise_scale": 0.02, "frame_skip": 2}),
]

# Gymnasium squares single numbers with `**`, which NumPy computes as pow(): one unit in the last place off at times.
ROUNDED = {"InvertedDoublePendulum-v5": 1e-10}


def _ids(case: tuple[str, dict[str, Any]]) -> str:
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
    case: tuple[str, dict[str, Any]], dtype: type[np.floating[Any]]
) -> None:
    env_id, options = case
    tolerance = ROUNDED.get(env_id, 0.0)
    native = make_vec(env_id, num_envs=ENVS, num_threads=1, max_episode_steps=200, **options)
    peers = Peers(env_id, options)
    rng = np.random.default_rng(0)
    low, high = native.single_action_space.low, native.single_action_space.high
    obs, _ = native.reset(seed=1)
    for row in range(ENVS):
        _same(obs["state"][row], peers.start(row, native), 0.0, "reset observation")
    ends, largest_force = 0, 0.0
    steps = STEPS // (1 if not options else ENVS) // (1 if dtype is np.float32 else 5)
    for step in range(steps):
        # 1.5 times the control range: Gymnasium pays for the action as given, MuJoCo clips what is applied
        actions = (1.5 * rng.uniform(low, high, (ENVS, len(low)))).astype(dtype)
        obs, reward, terminated, truncated, infos = native.step(actions)
        for row, peer in enumerate(peers.envs):
            want_obs, want_reward, want_terminated, _, want_infos = peer.step(actions[row])
            largest_force = max(largest_force, float(np.abs(peer.unwrapped.data.cfrc_ext).max()))
            done = terminated[row] or truncated[row]
            got_obs = infos["final_obs"]["state"][row] if done else obs["state"][row]
            _same(got_obs, want_obs, 0.0, f"observation {row} of step {step}")
            _same(reward[row], want_reward, tolerance, f"reward {row} of step {step}")
            assert terminated[row] == want_terminated
            for name, value in want_infos.items():
                _same(infos[name][row], value, tolerance, f"{name} {row} of step {step}")
            if done:
                assert infos["_final_obs"][row]
                _same(obs["state"][row], peers.start(row, native), 0.0, "reset observation")
                ends += 1
    assert ends > 0 or dtype is np.float64
    assert largest_force > 50.0 or not env_id.startswith(("Ant", "Humanoid")), "the steps must include contacts"


@pytest.mark.parametrize("env_id", sorted({case[0] for case in CASES}))
def test_episodes_start_from_gymnasiums_distribution(env_id: str) -> None:
    count = 400
    native: Any = make_vec(env_id, num_envs=count)
    native.reset(seed=0)
    peer: Any = gymnasium.make(env_id).unwrapped
    theirs = np.empty((count, peer.model.nq + peer.model.nv))
    for i in range(count):
        peer.reset(seed=i)
        theirs[i] = peer.state_vector()
    for ours, column in zip(native.task.coords.T, theirs.T, strict=True):
        if np.ptp(column) == 0:
            assert np.array_equal(ours, column)
        else:
            assert scipy.stats.ks_2samp(ours, column).pvalue > 1e-5
