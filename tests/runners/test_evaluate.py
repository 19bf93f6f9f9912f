# ruff: noqa: NPY002 - the legacy global generator is what these tests are about
import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robotrl.runners.eval_result import EvalResult
from robotrl.runners.evaluate import evaluate
from robotrl.types import ActionSpec, ArraySpec, EnvSpec, RobotRLError


class Counting:
    """A vector env after the seeding rule: episode i of seed s starts at a number drawn from (s, i) alone and lasts
    `lengths[i % len]` steps; every step pays the action times the start. Short episodes come first."""

    def __init__(self, num_envs, lengths=(3, 9, 5, 20), success=True, endless=False):
        self.num_envs, self._lengths, self._endless = num_envs, lengths, endless
        self.env_spec = EnvSpec(
            "Counting", {"state": ArraySpec((2,), "float64")}, ActionSpec("continuous", (1,), (-9.0,), (9.0,)),
            success="the start is above one half" if success else "",
        )  # fmt: skip
        self.starts: dict[int, float] = {}

    def reset(self, *, seed=None, options=None):
        self._seed = seed
        self._episode = np.arange(self.num_envs)
        self._step = np.zeros(self.num_envs, dtype=int)
        self._start = np.array([self._draw(i) for i in self._episode])
        return self._obs(), {}

    def _draw(self, episode):
        self.starts[int(episode)] = np.random.default_rng([self._seed, int(episode)]).random()
        return self.starts[int(episode)]

    def _obs(self):
        return {"state": np.stack([self._start, self._step], axis=1)}

    def step(self, actions):
        self._step += 1
        reward = actions[:, 0].astype(np.float64) * self._start
        limit = np.array([self._lengths[i % len(self._lengths)] for i in self._episode])
        terminated = (self._step >= limit) & (not self._endless)
        infos = {}
        if terminated.any():
            infos = {
                "success": self._start > 0.5,
                "_success": terminated,
                "final_obs": self._obs(),
                "_final_obs": terminated,
            }
            self._episode[terminated] += self.num_envs
            self._step[terminated] = 0
            for row in np.flatnonzero(terminated):
                self._start[row] = self._draw(self._episode[row])
        return self._obs(), reward, terminated, np.zeros(self.num_envs, bool), infos


class Recurrent(torch.nn.Module):
    """Acts with the number of steps it has seen in this episode (its state), plus noise when exploring."""

    obs_groups = ("state",)

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.modes = []

    def initial_state(self, num_envs):
        return {"seen": torch.zeros(num_envs, 1)}

    def reset_state(self, state, done):
        return {"seen": torch.where(done[:, None], 0.0, state["seen"])}

    def act(self, obs, state, *, explore):
        assert obs["state"].dtype == torch.float32
        assert not torch.is_grad_enabled()
        self.modes.append(self.training)
        random.random()
        np.random.rand()
        noise = torch.randn_like(state["seen"]) if explore else 0.0
        seen = state["seen"] + 1
        return seen + noise, {}, {"seen": seen}


def expected(lengths, starts):
    return [sum(range(1, lengths[i % len(lengths)] + 1)) * starts[i] for i in sorted(starts)]


@pytest.mark.parametrize("num_envs", [1, 4, 10, 16])
def test_the_same_episodes_are_played_for_any_number_of_envs(num_envs):
    env = Counting(num_envs)
    result = evaluate(Recurrent(), env, episodes=10, seed=7)
    starts = {i: np.random.default_rng([7, i]).random() for i in range(10)}
    assert {i: env.starts[i] for i in range(10)} == starts
    assert result.lengths == [(3, 9, 5, 20)[i % 4] for i in range(10)]  # never the first ten to finish
    np.testing.assert_allclose(result.returns, expected((3, 9, 5, 20), starts), rtol=1e-6)
    assert result.successes == [bool(starts[i] > 0.5) for i in range(10)]
    assert result.n == 10


def test_another_seed_plays_other_episodes_and_the_same_seed_the_same():
    first, again, other = (evaluate(Recurrent(), Counting(2), episodes=4, seed=s) for s in (0, 0, 1))
    assert first.returns == again.returns
    assert first.returns != other.returns


def test_exploring_repeats_with_its_seed_and_differs_from_acting_best():
    sampled, again = (evaluate(Recurrent(), Counting(2), episodes=4, seed=0, explore=True) for _ in range(2))
    assert sampled.returns == again.returns
    assert sampled.returns != evaluate(Recurrent(), Counting(2), episodes=4, seed=0).returns


def test_evaluation_disturbs_neither_generators_nor_training_flags():
    policy = Recurrent()
    policy.layer.eval()
    torch.manual_seed(3)
    np.random.seed(3)
    python_before = random.getstate()
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), np.random.get_state()[2]
    evaluate(policy, Counting(2), episodes=4, explore=True)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert np.random.get_state()[2] == before[2]
    assert random.getstate() == python_before
    assert set(policy.modes) == {False}
    assert policy.training
    assert not policy.layer.training


def test_progress_counts_up_to_the_number_of_episodes():
    seen = []
    evaluate(Recurrent(), Counting(4), episodes=6, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (6, 6)


def test_an_env_without_success_reports_none():
    result = evaluate(Recurrent(), Counting(2, success=False), episodes=3)
    assert result.successes is None
    assert result.success_interval is None
    assert "success" not in str(result)


def test_an_episode_that_never_ends_is_an_error_that_says_what_to_set(monkeypatch):
    monkeypatch.setattr("robotrl.runners.evaluate.MAX_EPISODE_STEPS", 50)
    with pytest.raises(RobotRLError, match=r"Counting has not ended after 50 steps.*env\.time_limit="):
        evaluate(Recurrent(), Counting(2, endless=True), episodes=2)


def test_a_policy_on_other_observations_is_refused_before_the_first_step():
    def refuse(spec):
        raise RobotRLError("groups differ")

    policy = SimpleNamespace(check_env=refuse)
    with pytest.raises(RobotRLError, match="groups differ"):
        evaluate(policy, Counting(2), episodes=2)
    with pytest.raises(RobotRLError, match="at least 1, got 0"):
        evaluate(policy, Counting(2), episodes=0)


def test_a_result_prints_n_seeds_and_intervals():
    result = EvalResult("X-v0", 3, [1.0, 2.0, 3.0, 4.0], [5, 5, 5, 5], [True, True, False, True])
    text = str(result)
    assert text.splitlines()[0] == "X-v0: n = 4 episodes, starts (seed 3, 0..3), deterministic actions"
    assert "return, mean" in text
    assert "return, IQM" in text
    assert "2.50" in text
    assert "3/4 = 0.75" in text
    assert "(Wilson)" in text
    assert "unknown from one episode" in str(EvalResult("X-v0", 0, [1.0], [5]))


def test_a_result_survives_json(tmp_path):
    result = EvalResult("X-v0", 3, [1.0, 2.0], [5, 6], [True, False], meta={"policy_dir": "p"})
    path = result.save(tmp_path / "deep" / "eval.json")
    assert EvalResult.load(path) == result
    assert json.loads(path.read_text())["summary"]["eval/return"] == 1.5
    assert EvalResult.from_json(EvalResult("X", 0, [1.0], [1]).to_json()).successes is None


def test_a_foreign_or_newer_or_torn_file_is_named(tmp_path):
    path = tmp_path / "e.json"
    with pytest.raises(RobotRLError, match="Cannot read the evaluation"):
        EvalResult.load(path)
    path.write_text('{"kind": "evaluation", "format_')
    with pytest.raises(RobotRLError, match=r"Cannot read the evaluation .*e\.json"):
        EvalResult.load(path)
    path.write_text("[]")
    with pytest.raises(RobotRLError, match=r"e\.json: This is not an evaluation"):
        EvalResult.load(path)
    path.write_text('{"kind": "evaluation", "format_version": 99}')
    with pytest.raises(RobotRLError, match="format 99"):
        EvalResult.load(path)
    path.write_text('{"kind": "evaluation", "format_version": 1, "seed": 1}')
    with pytest.raises(RobotRLError, match="no env_id, lengths, returns"):
        EvalResult.load(path)
