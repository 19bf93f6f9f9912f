import builtins

import pytest

from robotrl.runners.tuning import Range, Search, read_space, split_words
from robotrl.types import RobotRLError

TINY = (
    "tune env=Hopper-v5 total_env_steps=192 num_envs=2 schedule.rollout_steps=16 learner.num_epochs=1 eval_every=64 "
    "eval_episodes=2 policy.hidden=[8] run_dir=s"
)
RATE = "'learner.learning_rate=loguniform(1e-4,1e-2)'"


def test_ranges_are_told_from_values():
    words = ["env=Hopper-v5", "learner.gamma=uniform(0.9, 1)", "num_envs=logint(8,64)", "policy.kind=choice(mlp, gru)"]
    fixed, space = split_words(words)
    assert fixed == ["env=Hopper-v5"]
    assert {key: str(searched) for key, searched in space.items()} == {
        "learner.gamma": "uniform(0.9,1)", "num_envs": "logint(8,64)", "policy.kind": "choice(mlp,gru)",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["uniform(1,0)", "loguniform(0,1)", "uniform(a,b)", "int(4)", "choice()"])
def test_a_range_that_makes_no_sense_is_refused(text):
    with pytest.raises(RobotRLError, match=r"Cannot search in '.*': write it like"):
        Range.parse(text)


def test_a_search_space_is_read_from_yaml(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("learner.gamma: uniform(0.9,0.999)\npolicy.activation: [tanh, relu]\n")
    assert {key: str(value) for key, value in read_space(path).items()} == {
        "learner.gamma": "uniform(0.9,0.999)", "policy.activation": "choice(tanh,relu)",
    }  # fmt: skip
    path.write_text("learner.gamma: 0.9\n")
    with pytest.raises(RobotRLError, match=r"space\.yaml: learner\.gamma is 0\.9; write a list of choices or a range"):
        read_space(path)
    path.write_text("- a")
    with pytest.raises(RobotRLError, match="holds no keys"):
        read_space(path)
    with pytest.raises(RobotRLError, match="Cannot read the search space"):
        read_space(tmp_path / "missing.yaml")


def test_a_search_finds_its_best_and_continues_where_it_was(program):
    status, out, _ = program(f"{TINY} {RATE} trials=2")
    assert status == 0
    assert out.count("return") >= 3
    assert "best of 2 trials: return" in out
    assert "n = 2, seed 0; 95 % bootstrap over episodes" in out
    assert "robotrl train env=Hopper-v5" in out.splitlines()[-2] + out.splitlines()[-3] + out.splitlines()[-1]
    status, out, _ = program(f"{TINY} {RATE} trials=2")
    assert "trial" not in out.replace("trials", "")
    status, out, _ = program(f"{TINY} {RATE} trials=3")
    assert "trial 3 of 3" in out
    assert "best of 3 trials" in out
    status, _, err = program(f"{TINY} learner.gae_lambda=0.9 {RATE} trials=3")
    assert status == 2
    assert "s holds another search: " in err


def test_a_trial_that_a_kill_left_continues_in_its_own_directory(tmp_path, capsys):
    words = [w for w in TINY.split()[1:] if not w.startswith("run_dir=")]
    space = {"learner.gamma": Range("uniform", ("0.9", "0.99"))}
    make = lambda: Search(tmp_path, words, space, seeds=2, prune=True, say=print)  # noqa: E731
    killed = make()
    trial = killed.study.ask()
    gamma = space["learner.gamma"].suggest(trial, "learner.gamma")
    trial.set_user_attr("home", "trial-0000")
    killed._train(None, [*words, f"learner.gamma={gamma}", "seed=0"], tmp_path / "trial-0000" / "seed-0")
    capsys.readouterr()
    search = make()
    assert search.run(1) == 0
    out = capsys.readouterr().out
    assert f"learner.gamma={gamma}" in out
    assert "Written to" in out
    assert "seed-1" in out
    assert "seed-0" not in out  # was finished already
    assert not (tmp_path / "trial-0001").exists()
    assert "seeds 0..1; 95 % bootstrap over seeds" in search.best()


def test_a_lagging_trial_is_pruned(tmp_path, monkeypatch, capsys):
    words = [w for w in TINY.split()[1:] if not w.startswith("run_dir=")]
    search = Search(
        tmp_path, words, {"learner.gamma": Range("uniform", ("0.9", "0.99"))}, seeds=1, prune=True, say=print
    )
    monkeypatch.setattr("optuna.trial.Trial.should_prune", lambda self: self.number == 1)
    assert search.run(2) == 0
    assert "  pruned" in capsys.readouterr().out
    assert [t.state.name for t in search.study.trials] == ["COMPLETE", "PRUNED"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trials=2 run_dir=s", "A search needs run_dir=, a range"),
        (f"{RATE} trials=2", "A search needs run_dir=, a range"),
        (f"{RATE} run_dir=s seed=3", "sets the seed itself"),
        (f"{RATE} run_dir=s trial=3", "Unknown key 'trial'"),
        (f"{RATE} run_dir=s env=Hoper-v5", "Unknown env 'Hoper-v5'"),
        ("'learner.learning_rat=uniform(0,1)' run_dir=s", "Did you mean 'learner.learning_rate'"),
        ("'learner.gamma=uniform(2,3)' run_dir=s", "learner.gamma is 2.0"),
    ],
)
def test_mistakes_are_told_before_anything_runs(program, tmp_path, words, message):
    status, _, err = program(f"tune {words}")
    assert (status, message in err) == (2, True), err
    assert list(tmp_path.iterdir()) == []


def test_without_optuna_the_install_command_is_given(program, monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "optuna":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    status, _, err = program(f"{TINY} {RATE}")
    assert status == 2
    assert 'Install it with: pip install "robotrl[tune]"' in err
