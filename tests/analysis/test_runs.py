import math

import pytest

import robotrl
from robotrl.analysis.runs import find_runs, load_run
from robotrl.types import RobotRLError


def test_a_run_is_read_back_with_metrics_evaluations_and_policies(write_run):
    run = robotrl.load_run(write_run("a", seed=3))
    assert run.env_steps == 200_000
    assert len(run.metrics) == 100
    assert math.isnan(run.metrics["loss/value"][3])
    assert list(run.evaluations) == [25_000 * i for i in range(1, 9)]
    assert run.evaluations[200_000].n == 10
    assert run.policies["final"].name == "final"
    assert run.finished
    text = repr(run)
    assert text.startswith("ppo on HalfCheetah-v5, seed 3")
    assert "n = 10, at 200,000 env steps" in text
    assert "final" in text


def test_evaluations_of_a_learners_other_policies_are_read_by_name(write_run):
    root = write_run("a")
    (root / "eval" / "mixture").mkdir()
    (root / "eval" / "mixture" / "50.json").write_bytes((root / "eval" / "25000.json").read_bytes())
    run = load_run(root)
    assert list(run.evaluations_of("mixture")) == [50]
    assert 50 not in run.evaluations


def test_a_run_that_is_still_writing_can_be_read(write_run):
    root = write_run("a", broken_tail=True)
    assert len(load_run(root).metrics) == 100
    lines = (root / "metrics.jsonl").read_text().splitlines()
    (root / "metrics.jsonl").write_text("\n".join([lines[0], "{broken", lines[1]]))
    with pytest.raises(RobotRLError, match=r"metrics\.jsonl, line 2 is damaged"):
        _ = load_run(root).metrics


def test_a_new_run_without_metrics_has_a_readable_description(tmp_path):
    (tmp_path / "config.yaml").write_text("env: {id: Hopper-v5}\nlearner_name: ppo\nseed: 1\ntotal_env_steps: 10\n")
    run = load_run(tmp_path)
    assert "0 of 10" in repr(run)
    assert "none yet" in repr(run)
    assert not run.finished


def test_a_directory_without_a_run_names_the_runs_below_it(write_run, tmp_path):
    root = write_run("group/a")
    with pytest.raises(RobotRLError, match=rf"There is no run in {tmp_path}\. Runs below it: {root}"):
        load_run(tmp_path)
    with pytest.raises(RobotRLError, match=r"Give the directory that holds config\.yaml"):
        load_run(tmp_path / "missing")
    write_run("group/b")
    assert [run.path.name for run in find_runs(tmp_path)] == ["a", "b"]
