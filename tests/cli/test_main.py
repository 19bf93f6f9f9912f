import importlib
import shlex
import tomllib

import pytest

import robotrl
from robotrl.cli import VERBS, main
from robotrl.types import RobotRLError
from tests.house.tree import ROOT

SMALLER = {
    "train": "total_env_steps=512 schedule.rollout_steps=16 learner.num_epochs=1 eval_episodes=2 env.time_limit=30",
    "eval": "episodes=2 env.time_limit=30",
    "compare": "episodes=2",
    "tune": "total_env_steps=256 schedule.rollout_steps=16 eval_every=128 eval_episodes=2 trials=2",
    "collect": "episodes=2 env.time_limit=30",
    "teleop": "",
    "data": "",
    "play": "width=64 height=64",
    "list": "",
    "doctor": "",
    "preflight": "env.time_limit=30",
    "convert": "",
}
"""What makes an example take a second; the later of two values for a key counts."""


def test_help_names_every_verb_and_every_verb_has_help_with_an_example(program):
    status, out, _ = program("--help")
    assert status == 0
    for verb, text in VERBS.items():
        assert f"  {verb}" in out
        assert text in out
        status, help_text, _ = program(f"{verb} --help")
        assert status == 0
        assert f"robotrl {verb}" in help_text.split("Example:")[1]


def test_the_examples_of_help_run_one_after_the_other(program):
    assert set(SMALLER) == set(VERBS)
    for verb in (
        "train",
        "eval",
        "compare",
        "tune",
        "collect",
        "data",
        "play",
        "list",
        "preflight",
        "convert",
    ):  # doctor's and teleop's are about this machine and its keyboard; tests of their own run them
        example = importlib.import_module(f"robotrl.cli.{verb}").EXAMPLE
        words = shlex.split(example)
        assert words[:2] == ["robotrl", verb]
        status, out, err = program(" ".join(map(shlex.quote, words[1:])), *SMALLER[verb].split())
        assert (status, err if status else "") == (0, "")
        assert out


def test_an_unknown_verb_is_answered_with_the_nearest(program):
    status, _, err = program("trian env=Hopper-v5")
    assert status == 2
    assert err == "robotrl: Unknown verb 'trian'. Did you mean 'train'? All verbs: " + ", ".join(VERBS) + ".\n"


def test_a_mistake_gives_one_message_and_with_debug_the_traceback(program):
    status, out, err = program("train env=Hoper-v5")
    assert status == 2
    assert out == ""
    assert err.startswith("robotrl train: Unknown env 'Hoper-v5'. Did you mean 'Hopper-v5'")
    assert err.count("\n") == 1
    with pytest.raises(RobotRLError, match="Unknown env"):
        main(["train", "--debug", "env=Hoper-v5"])


def test_the_version_is_the_one_of_the_package(program):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert robotrl.__version__ == project["version"]
    assert program("--version")[1] == f"robotrl {project['version']}\n"


def test_lists_name_what_is_registered(program):
    assert "HalfCheetah-v5\n" in program("list envs")[1]
    assert {"ppo", "sac"} <= set(program("list learners")[1].split())
    assert "gru\n" in program("list policies")[1]
    assert "ppo/shared\n" in program("list presets")[1]
    assert "presets:\n  " in program("list")[1]
    assert program("list env")[2] == (
        "robotrl list: Unknown list 'env'. Did you mean 'envs'? "
        "There are: envs, tasks, learners, policies, presets, runs.\n"
    )
    assert "There are no runs in" in program("list runs")[1]


def test_runs_are_listed_with_their_last_score_even_beside_a_damaged_one(program, trained, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.yaml").write_text("- a list")
    (tmp_path / "good").symlink_to(trained)
    _, out, _ = program("list runs", tmp_path / "bad")
    assert "damaged" in out
    _, out, _ = program("list runs", trained)
    assert "ppo on Hopper-v5, seed 0" in out
    assert "finished" in out
