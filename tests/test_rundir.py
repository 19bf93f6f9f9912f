"""A run's directory: never two runs in one, and always enough in it to say what happened."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from robotrl import rundir
from robotrl.rundir import RunDir, write_atomic
from robotrl.types import RobotRLError


@dataclass(slots=True)
class Inner:
    clip_ratio: float = 0.2
    sizes: tuple[int, ...] = (64, 64)


@dataclass(slots=True)
class Config:
    learner: Inner = field(default_factory=Inner)
    name: str | None = None
    seed: int = 3


def test_a_new_run_gets_a_directory_by_name_and_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with RunDir.create(None, "ppo-HalfCheetah") as first, RunDir.create(None, "ppo-HalfCheetah") as second:
        assert first.path.parent == second.path.parent == tmp_path / "runs" / "ppo-HalfCheetah"
        assert first.path != second.path


def test_a_directory_with_a_run_is_refused_with_the_command_that_resumes_it(tmp_path):
    with RunDir.create(tmp_path / "x", "n") as run:
        run.save_config(Config())
    message = "The run directory .*/x holds a run already. To continue it: robotrl train resume=.*/x. To start anew"
    with pytest.raises(RobotRLError, match=message):
        RunDir.create(tmp_path / "x", "n")


def test_a_run_of_which_nothing_came_leaves_no_folder_that_was_made_for_it(tmp_path):
    (tmp_path / "mine").mkdir()
    RunDir.create(tmp_path / "mine" / "name" / "time", "n").discard()
    assert list((tmp_path / "mine").iterdir()) == []
    kept = RunDir.create(tmp_path / "mine" / "name" / "first", "n")
    RunDir.create(tmp_path / "mine" / "name" / "second", "n").discard()
    assert list((tmp_path / "mine" / "name").iterdir()) == [kept.path]
    kept.close()


def test_a_directory_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RobotRLError, match=r"is not empty and holds no run. Choose another run_dir="):
        RunDir.create(tmp_path, "n")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RobotRLError, match=r"cannot be made: .*Choose another run_dir="):
        RunDir.create(tmp_path / "file" / "x", "n")


def test_opening_what_is_no_run_names_the_runs_inside(tmp_path):
    with RunDir.create(tmp_path / "name" / "time", "n") as run:
        run.save_config(Config())
    with pytest.raises(
        RobotRLError, match=r"name is not a run directory: it has no config.yaml. Runs inside it: .*name/time"
    ):
        RunDir.open(tmp_path / "name")
    RunDir.open(tmp_path / "name" / "time").close()


def test_a_second_process_is_kept_out_until_the_first_is_gone(tmp_path):
    code = "import sys; from robotrl.rundir import RunDir as R; R.create(sys.argv[1], 'n'); print('locked'); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": "."},
    )
    assert other.stdout.readline() == b"locked\n"
    with pytest.raises(RobotRLError, match=f"Process {other.pid} on .* is training in .*/x right now"):
        RunDir.create(tmp_path / "x", "n")
    other.kill()  # as hard as it gets: the kernel releases the lock
    other.wait()
    other.stdout.close()
    other.stdin.close()
    RunDir.create(tmp_path / "x", "n").close()


def test_one_process_cannot_train_twice_in_one_directory(tmp_path):
    with (
        RunDir.create(tmp_path / "x", "n"),
        pytest.raises(RobotRLError, match=r"This process is training in .*/x already"),
    ):
        RunDir.create(tmp_path / "x", "n")
    RunDir.create(tmp_path / "x", "n").close()


def test_the_config_comes_back_as_plain_values(tmp_path):
    with RunDir.create(tmp_path / "x", "n") as run:
        run.save_config(Config(name="${oc.env:HOME}"))
        assert run.load_config() == {
            "learner": {"clip_ratio": 0.2, "sizes": [64, 64]},
            "name": "${oc.env:HOME}",
            "seed": 3,
        }
        run.config.write_text("a: [")
        with pytest.raises(RobotRLError, match=r"config.yaml cannot be read"):
            run.load_config()


def test_a_config_file_cannot_run_code(tmp_path):
    with RunDir.create(tmp_path / "x", "n") as run:
        run.config.write_text(f"a: !!python/object/apply:os.mkdir ['{tmp_path}/hacked']")
        with pytest.raises(RobotRLError, match=r"config.yaml cannot be read"):
            run.load_config()
    assert not (tmp_path / "hacked").exists()


def test_meta_says_command_versions_hardware_and_threads_of_every_start(tmp_path):
    with RunDir.create(tmp_path / "x", "n") as run:
        run.add_start(["robotrl", "train", "env.options={a: 1}"], 0)
        run.add_start(["robotrl", "train", "resume=x"], 500, overrides=["total_env_steps=9"])
    first, second = json.loads((tmp_path / "x" / "meta.json").read_text())["starts"]
    assert first["command"] == "robotrl train 'env.options={a: 1}'"
    assert first["versions"]["torch"]
    assert first["hardware"]["cores"] >= 1
    assert first["threads"]["torch"] >= 1
    assert (second["env_steps"], second["overrides"]) == (500, ["total_env_steps=9"])


def test_a_start_on_other_versions_warns_that_it_is_not_bit_exact(tmp_path, monkeypatch):
    with RunDir.create(tmp_path / "x", "n") as run:
        run.add_start([], 0)
        monkeypatch.setattr(rundir, "_version", lambda _: "0.0")
        with pytest.warns(UserWarning, match=r"differs from the one that began the run in versions .*not bit for bit"):
            run.add_start([], 1)


def test_metrics_and_evaluations_are_cut_back_to_the_checkpoint(tmp_path):
    with RunDir.create(tmp_path / "x", "n") as run:
        run.metrics.write_bytes(b'{"a": 1}\n{"a": 2}\n{"a"')
        (run.eval / "mixture").mkdir(parents=True)
        for steps in (100, 200):
            (run.eval / f"{steps}.json").write_text("{}")
            (run.eval / "mixture" / f"{steps}.json").write_text("{}")
        run.cut_back(100, 9)
        assert run.metrics.read_bytes() == b'{"a": 1}\n'
        assert sorted(p.name for p in run.eval.iterdir()) == ["100.json", "mixture"]
        assert [p.name for p in (run.eval / "mixture").iterdir()] == ["100.json"]


def test_metrics_shorter_than_at_the_checkpoint_keep_their_whole_lines(tmp_path):
    with RunDir.create(tmp_path / "x", "n") as run:
        run.metrics.write_bytes(b'{"a": 1}\n{"a"')
        with pytest.warns(UserWarning, match=r"shorter than at the checkpoint"):
            run.cut_back(0, 100)
        assert run.metrics.read_bytes() == b'{"a": 1}\n'


def test_a_failed_replacement_leaves_the_old_file(tmp_path, monkeypatch):
    write_atomic(tmp_path / "f", "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rundir.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left"):
        write_atomic(tmp_path / "f", "new")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]
