import shlex

import pytest

from robotrl.cli import main

TINY = (
    "env=Hopper-v5 total_env_steps=1024 num_envs=4 schedule.rollout_steps=64 policy.hidden=[8] learner.num_epochs=1 "
    "eval_every=512 eval_episodes=2 video=false num_threads=1"
)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The directory of a tiny finished run, trained by the program."""
    run_dir = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", *TINY.split(), f"run_dir={run_dir}"]) == 0
    return run_dir


@pytest.fixture
def program(capsys, tmp_path, monkeypatch):
    """Runs a command line in an empty folder; returns exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(line, *words):
        capsys.readouterr()
        status = main([*shlex.split(line), *map(str, words)])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return status, captured.out, captured.err

    return call
