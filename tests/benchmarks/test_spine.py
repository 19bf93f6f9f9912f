"""The parts of the spine's measurements that can be wrong without anyone noticing."""

import json
import shutil

import numpy as np
import pytest

from benchmarks import command, lib
from benchmarks.spine import env_worker, ppo_return_1m, ppo_vs_sb3_time_to_3000, training
from benchmarks.targets import value


def points(*means):
    return [training.Point(1000 * (i + 1), [m - 1, m + 1], 10.0 * (i + 1)) for i, m in enumerate(means)]


def test_the_first_evaluation_at_or_above_the_threshold_counts():
    curve = training.Curve(points(1.0, 3000.0, 10.0, 5000.0))
    assert curve.first_at(3000.0).env_steps == 2000
    assert curve.best.env_steps == 4000


@pytest.mark.parametrize(("means", "seconds"), [((3000.0,), 10.0), ((1.0, 2.0), 900.0)])
def test_a_run_that_never_gets_there_counts_fifteen_minutes(tmp_path, means, seconds):
    pytest.importorskip("pyarrow")
    file = lib.ResultFile(tmp_path / "claim.json", "command", value("robotrl", ">=", 0.0), "note")
    ppo_vs_sb3_time_to_3000.record(file, "robotrl", 0, training.Curve(points(*means), "commit"))
    assert file.arms["robotrl"].values == [seconds]


def test_a_recorded_curve_comes_back(tmp_path):
    """A claim may measure against the runs of another, of which the result files are all that is sure to be there."""
    pytest.importorskip("pyarrow")
    file = lib.ResultFile(tmp_path / "claim.json", "command", value("arm/task", ">=", 0.0), "note")
    for seed, commit in ((0, "first"), (1, "second")):
        curve = training.Curve(points(*(float(10 * seed + i) for i in range(11))), commit)
        file.add_curve(curve.rows("arm", "task", seed))
        file.record("arm/task", seed, curve.points[-1].mean, unit="return", commit=commit)
    found = training.recorded(file, "arm", "task", 1)
    assert found.points == points(*(float(10 + i) for i in range(11)))
    assert found.commit == "first, second"
    file.record("arm/task", 2, 1.0, unit="return", commit=found.commit)
    assert file.commit == "first, second", "a commit is named once"


def test_the_peak_is_where_the_mean_over_seeds_is_highest_not_each_seeds_own(tmp_path):
    pytest.importorskip("pyarrow")
    file = lib.ResultFile(tmp_path / "claim.json", "command", value("a", ">=", 0.0), "note")
    for seed, means in enumerate(((100.0, 60.0, 0.0), (0.0, 60.0, 90.0))):
        ppo_return_1m.record(file, "a", "Ant", seed, training.Curve(points(*means), "commit"))
    ppo_return_1m.record_peak(file, "a", "Ant", (0, 1))
    assert file.arms["a/Ant/peak"].values == [60.0, 60.0]
    assert file.arms["a/Ant/best"].values == [100.0, 90.0]
    assert file.arms["a/Ant/final"].values == [0.0, 90.0]


def test_training_time_leaves_out_evaluations(tmp_path):
    rows = [{"env_steps": 64, "time/elapsed": 5.0, "time/evaluation": 2.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "64.json").write_text(json.dumps({"meta": {"env_steps": 64}, "returns": [1.0, 2.0]}))
    (point,) = training.robotrl_points(tmp_path)
    assert point.train_s == 3.0
    assert point.mean == 1.5


def test_training_returns_are_gathered_by_env_steps(tmp_path):
    told = {100: 1.0, 150: None, 200: 3.0, 201: 5.0, 601: 7.0}  # env steps to the return of what finished there
    rows = [
        {"env_steps": at, "time/elapsed": 2.0 * at, "time/evaluation": 1.0 * at}
        | ({} if mean is None else {"train/return": mean})
        for at, mean in told.items()
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = training.training_points(tmp_path, 200)
    assert [(p.env_steps, p.returns, p.train_s) for p in found] == [
        (200, [1.0, 3.0], 200.0), (400, [5.0], 201.0), (800, [7.0], 601.0),
    ]  # fmt: skip


@pytest.mark.parametrize("task", ["HalfCheetah", "Hopper", "Ant"])
def test_raw_stepping_simulates_what_the_native_environment_does(task):
    actions = env_worker.random_actions(task, 4, seed=0)
    setting = env_worker.Setting(task, num_envs=4, threads=1, steps=60, actions=actions)
    step, _ = env_worker.raw(setting)
    assert sum(step(k) for k in range(60)) == 240  # the last step compares the states, and raises


def test_envpools_resets_are_not_counted_as_steps():
    pytest.importorskip("envpool")
    actions = env_worker.random_actions("Hopper", 4, seed=0)
    step, _ = env_worker.envpool(env_worker.Setting("Hopper", num_envs=4, threads=1, steps=100, actions=actions))
    made = sum(step(k) for k in range(100))
    assert 0.9 * 400 < made < 400


def test_all_arms_are_given_the_same_actions_within_the_tasks_bounds():
    first, second = (env_worker.random_actions("Humanoid", 3, seed=5) for _ in range(2))
    assert np.array_equal(first, second)
    assert np.abs(first).max() <= 0.4


@pytest.mark.parametrize("changed", [False, True])
def test_a_run_that_was_stopped_goes_on_unless_its_settings_changed(tmp_path, monkeypatch, changed):
    run, calls = lib.WORK / "tests" / tmp_path.name / "run", []

    def stopped(arguments, **_):
        calls.append(arguments[-1])
        (run / "checkpoints" / "1").mkdir(parents=True, exist_ok=True)
        raise RuntimeError("stopped")

    monkeypatch.setattr(command, "execute", stopped)
    for seed in (0, int(changed)):
        with pytest.raises(RuntimeError, match="stopped"):
            training.robotrl(run, {"seed": seed}, threads=1)
    assert calls == [f"run_dir={run}", f"run_dir={run}" if changed else f"resume={run}"]
    shutil.rmtree(run.parent)


def test_a_run_that_outlived_its_benchmark_is_not_made_again(tmp_path, monkeypatch):
    run = lib.WORK / "tests" / tmp_path.name / "run"
    calls = []

    def killed(arguments, **_):
        calls.append(arguments)
        run.mkdir(parents=True, exist_ok=True)
        (run / "meta.json").write_text('{"finished_env_steps": 8}')
        (run / "metrics.jsonl").write_text("")
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "execute", killed)
    with pytest.raises(KeyboardInterrupt):
        training.robotrl(run, {"seed": 0}, threads=1)
    assert training.robotrl(run, {"seed": 0}, threads=1).points == []
    assert len(calls) == 1
    shutil.rmtree(run.parent)
