import json
import shutil
import subprocess
import sys

import pytest

from robotrl.runners import sweep as module
from robotrl.runners.sweep import Job, plan, table
from tests.house.tree import ROOT

TINY = "total_env_steps=64 num_envs=2 schedule.rollout_steps=16 learner.num_epochs=1 eval_episodes=2 video=false"


@pytest.fixture(autouse=True)
def children_find_the_package(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_a_plan_is_every_combination_in_a_directory_that_the_words_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["env=Hopper-v5,Walker2d-v5", "seed=range(0,3)", "learner.gamma=choice(0.9,0.99)", "num_envs=2"]
    root, jobs = plan(words)
    assert root.parts[0] == "multirun"
    assert plan(words) == (root, jobs)
    assert plan([*words[:-1], "num_envs=4"])[0] != root
    assert len(jobs) == len({job.path for job in jobs}) == 12
    assert jobs[0].words == ("num_envs=2", "env=Hopper-v5", "seed=0", "learner.gamma=0.9")
    assert jobs[0].path.name == "env=Hopper-v5,seed=0,learner.gamma=0.9"
    assert (
        plan(["env=dmc/cheetah-run,gym/CartPole-v1", "run_dir=out"])[1][0].path.as_posix() == "out/env=dmc_cheetah-run"
    )
    assert [job.name for job in plan(["seed=3"])[1]] == [""]


def test_a_mistake_in_any_run_is_told_before_the_first_starts(program, tmp_path):
    for words, message in {
        "env=Hopper-v5,Hoper-v5": "Unknown env 'Hoper-v5'. Did you mean 'Hopper-v5'",
        "learner.gama=0.9,0.99": "Unknown key 'learner.gama'. Did you mean 'learner.gamma'",
        "num_envs=4,x": "num_envs is 'x'; it must be a whole number",
        "seed=0,1 --jobs 0": "--jobs is '0'",
        "seed=0,1 resume=x": "call the same --multirun command again",
    }.items():
        status, _, err = program(f"train --multirun {words}")
        assert (status, message in err) == (2, True), err
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_skips_what_is_finished_resumes_what_is_not_and_goes_on_after_a_failure(program, trained, tmp_path):
    for seed in (0, 1):
        shutil.copytree(trained, tmp_path / "sw" / f"seed={seed}")
    (tmp_path / "sw" / "seed=1" / "meta.json").write_text("{}")  # as a kill would leave it: begun, not finished
    (tmp_path / "sw" / "seed=2").mkdir()
    (tmp_path / "sw" / "seed=2" / "mine.txt").write_text("not a run")
    status, out, _ = program(f"train --multirun {TINY} env=Hopper-v5 seed=range(0,4) run_dir=sw --jobs 2")
    assert status == 1
    assert "sweep of 4 runs in sw: 1 finished, 3 to do" in out
    assert "Resuming" in (tmp_path / "sw" / "seed=1.log").read_text()
    assert "seed=2: failed, see sw/seed=2.log: robotrl train: The run directory sw/seed=2 is not empty" in out
    assert "Done: 64 env steps" in (tmp_path / "sw" / "seed=3.log").read_text()
    assert (tmp_path / "sw" / "seed=3" / "policy" / "final" / "policy.json").is_file()
    assert out.count(": finished") == 2
    assert "Finished runs, bootstrap over seeds" in out
    assert "To continue: the same command again." in out
    names = [f"seed={seed}" for seed in range(4)]
    assert json.loads((tmp_path / "sw" / "sweep.json").read_text())["runs"] == names


def test_a_stopped_sweep_says_so(program, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 130))
    status, out, _ = program(f"train --multirun {TINY} env=Hopper-v5 seed=0,1")
    assert status == 130
    assert "seed=0: stopped" in out
    assert "To continue" in out


def test_a_child_gets_its_share_of_the_cores(tmp_path, monkeypatch):
    seen = {}

    def fake(command, *, stdout, stderr, env, check):
        seen.update(command=command, env=env)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(module.subprocess, "run", fake)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert module.run_job(Job((), ("seed=1",), tmp_path / "a"), 2) == 0
    assert seen["env"]["OMP_NUM_THREADS"] == "4"
    assert seen["command"] == [sys.executable, "-m", "robotrl.cli", "train", "seed=1", f"run_dir={tmp_path / 'a'}"]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.yaml").touch()
    module.run_job(Job((), ("learner=mine:Learner", "seed=1"), tmp_path / "b"), 1)
    assert seen["command"][3:] == ["train", f"resume={tmp_path / 'b'}", "learner=mine:Learner"]


def test_the_table_groups_by_everything_but_the_seed(tmp_path):
    text = table([Job((("env", "A"), ("seed", str(s))), (), tmp_path / f"{s}") for s in range(2)])
    assert text.count("not started") == 2
    assert "bootstrap over seeds" in text
