import subprocess
import sys

import pytest

import robotrl
from robotrl.registry import learners
from robotrl.types import RobotRLError

TINY = {
    "env": {"id": "Hopper-v5", "time_limit": 50},
    "policy.hidden": [8],
    "learner": {"num_epochs": 1},
    "schedule.rollout_steps": 16,
    "num_envs": 4,
    "total_env_steps": 256,
    "eval_every": 128,
    "eval_episodes": 2,
    "video": False,
}


def test_train_load_evaluate_and_read_back_with_the_stable_names(tmp_path):
    run = robotrl.train(
        learner="ppo", seed=0, run_dir=tmp_path / "x", **{k: v for k, v in TINY.items() if k != "learner"}
    )
    assert run.finished
    assert run.env_steps == 256
    assert run.evaluation.n == 2
    assert "Hopper-v5: n = 2 episodes" in repr(run)
    policy = robotrl.load_policy(tmp_path / "x")
    env = robotrl.make_vec("Hopper-v5", num_envs=2, seed=0)
    result = robotrl.evaluate(policy, env, episodes=3, seed=1)
    assert result.n == 3
    assert robotrl.load_run(tmp_path / "x").finished
    assert (tmp_path / "x" / "plots" / "learning_curve.png").is_file()
    with pytest.raises(RobotRLError, match="holds a run already"):
        robotrl.train(run_dir=tmp_path / "x", **TINY)
    more = robotrl.train(resume=tmp_path / "x", total_env_steps=384)
    assert (more.env_steps, more.finished) == (384, True)
    assert list(more.data.evaluations) == [128, 256, 384]


def test_keyword_mistakes_are_told_like_on_the_command_line(tmp_path):
    with pytest.raises(RobotRLError, match=r"Unknown key 'learner\.gama'\. Did you mean 'learner\.gamma'"):
        robotrl.train(learner={"gama": 0.9})
    with pytest.raises(RobotRLError, match="Unknown env 'Hoper-v5'"):
        robotrl.train(env="Hoper-v5")
    with pytest.raises(RobotRLError, match=r"num_envs is \[1\]; it must be a whole number"):
        robotrl.train(num_envs=[1])


def test_the_package_lists_its_names_and_says_when_there_is_no_such_one():
    assert {"make_vec", "train", "load_policy", "evaluate", "load_run"} <= set(dir(robotrl))
    with pytest.raises(AttributeError, match=r"module 'robotrl' has no attribute 'trian'"):
        _ = robotrl.trian


def test_importing_the_package_imports_none_of_its_names():
    code = "import sys, robotrl; print([m for m in sys.modules if m.startswith('robotrl.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_import_that_fails_inside_a_components_module_is_told_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import os\nos.no_such_thing\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AttributeError, match="no_such_thing"):
        learners.get("half_installed:Learner")
