"""When a hook acts, and that trouble in one never stops a run."""

import json
import math

import pytest
import torch

from robotrl.logging import MetricsLog
from robotrl.rundir import RunDir
from robotrl.runners.hooks import CheckpointHook, EvaluationHook, Every, LoggingHook
from robotrl.runners.progress import ProgressHook
from robotrl.types import Progress, RobotRLError


def moments(every: int, step: int, total: int, start: int = 0) -> list[int]:
    progress = Progress(total, env_steps=start)
    clock, due = Every(every, progress), []
    while progress.env_steps < total:
        progress.env_steps += step
        if clock.due():
            due.append(progress.env_steps)
    return due


def test_something_is_due_whenever_a_multiple_is_passed_and_at_the_end():
    assert moments(100, 30, 300) == [120, 210, 300]
    assert moments(100, 250, 1000) == [250, 500, 750, 1000], "once, also when two multiples are passed"
    assert moments(0, 30, 100) == [120], "0: only at the end"


def test_a_resumed_run_acts_at_the_same_moments():
    assert moments(100, 30, 600)[1:] == moments(100, 30, 600, start=120)


def test_a_failed_checkpoint_is_a_warning_and_the_next_is_tried():
    progress, saved = Progress(1000), []

    def save():
        if progress.env_steps == 100:
            raise RobotRLError("The checkpoint at 100 env steps could not be saved: it needs 3.0 MB.")
        saved.append(progress.env_steps)

    hook = CheckpointHook(save, progress, every=100)
    progress.env_steps = 100
    with pytest.warns(UserWarning, match=r"it needs 3.0 MB. Training goes on; the next checkpoint is due as usual"):
        hook(1, {})
    progress.env_steps = 200
    hook(2, {})
    hook.save()
    assert saved == [200], "a moment is saved once"


class Policy:
    def initial_state(self, num_envs):
        return {}


class Learner:
    policy = Policy()


class Result:
    def __init__(self, mean):
        self.mean, self.meta = mean, {}

    def metrics(self):
        return {"eval/return": self.mean, "eval/return_low": math.nan}

    def save(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.mean))


class Env:
    closed = False

    def close(self):
        self.closed = True


@pytest.fixture
def evaluations(tmp_path, monkeypatch):
    """An evaluation hook whose evaluations find the returns in a list, and the policies it kept."""
    from robotrl.runners import hooks

    returns, kept = [], []
    monkeypatch.setattr(hooks, "evaluate", lambda *_, **__: Result(returns.pop(0)))
    monkeypatch.setattr(
        hooks, "save_policy", lambda _, path, meta, beside: kept.append((path.name, meta["eval"]["eval/return"]))
    )
    with RunDir.create(tmp_path / "x", "n") as directory:
        progress = Progress(1000)
        yield (
            EvaluationHook(Learner(), Env, directory, progress, every=100, episodes=2, origin={"seed": 3}),
            progress,
            returns,
            kept,
        )


def test_the_best_policy_is_replaced_only_by_a_better_one(evaluations):
    hook, progress, returns, kept = evaluations
    returns += [1.0, -5.0, 3.0, 3.0, math.nan]
    for iteration in range(5):
        progress.env_steps += 100
        metrics = {}
        hook(iteration, metrics)
        assert set(metrics) == {"eval/return"}, "an unknown interval is left out, a return never"
    assert kept == [("best", 1.0), ("best", 3.0)]
    other = hook.state_dict()
    assert (other["best"], other["best_file"]) == (3.0, "300.json")


def test_other_policies_of_the_learner_play_too_and_are_kept_apart(evaluations, tmp_path):
    hook, progress, returns, kept = evaluations
    hook._learner = type("Two", (Learner,), {"other_policies": {"mixture": Policy()}})()
    returns += [1.0, 7.0]
    progress.env_steps = 100
    metrics = {}
    hook(1, metrics)
    assert {name: value.item() for name, value in metrics.items()} == {"eval/return": 1.0, "eval/mixture/return": 7.0}
    assert json.loads((tmp_path / "x" / "eval" / "100.json").read_text()) == 1.0
    assert json.loads((tmp_path / "x" / "eval" / "mixture" / "100.json").read_text()) == 7.0
    assert kept == [("best", 1.0)], "best is of the policy itself"


def test_an_evaluation_leaves_the_random_streams_alone(evaluations):
    hook, progress, returns, _ = evaluations
    returns.append(0.0)
    hook._make_env = lambda: (torch.rand(3), Env())[1]
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    progress.env_steps = 100
    hook(1, {})
    assert torch.equal(torch.rand(2), expected)


def test_an_evaluation_that_cannot_be_written_is_a_warning(evaluations, monkeypatch):
    hook, progress, returns, _ = evaluations
    returns.append(0.0)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Result, "save", full)
    progress.env_steps = 100
    with pytest.warns(UserWarning, match="The evaluation at 100 env steps could not be written: .*No space"):
        hook(1, {})


@pytest.fixture
def logged(tmp_path, evaluations):
    log = MetricsLog(tmp_path / "m.jsonl")
    yield LoggingHook(log, evaluations[1], evaluations[0]), evaluations[1], log
    log.close()


def test_a_row_holds_clocks_metrics_and_times(tmp_path, logged):
    hook, progress, _ = logged
    progress.env_steps, progress.updates = 64, 2
    hook(1, {"loss/policy": torch.tensor(0.5)})
    row = json.loads((tmp_path / "m.jsonl").read_text())
    clocks = ["iteration", "env_steps", "episodes", "updates", "grad_steps"]
    assert list(row) == [*clocks, "loss/policy", "time/elapsed", "time/evaluation"]
    assert (row["iteration"], row["env_steps"], row["loss/policy"]) == (1, 64, 0.5)


def test_the_clock_of_a_resumed_run_goes_on(logged):
    hook, _, log = logged
    hook.load_state_dict({"elapsed": 1000.0, "nonfinite": 7, "bytes": 0})
    assert 1000.0 < hook.elapsed < 1100.0
    assert log.nonfinite == 7


def bar(logged, **terminal) -> ProgressHook:
    from rich.console import Console

    hook = ProgressHook(logged[1], logged[0])
    hook._console = Console(stderr=True, width=120, **terminal)
    hook.start()
    return hook


def test_without_a_terminal_a_plain_line_tells_rate_return_and_time_left(logged, capsys):
    hook = bar(logged)
    hook._marks[0] = (hook._marks[0][0] - 10.0, 0)
    hook._said_at -= 11.0
    logged[1].env_steps = 500
    logged[0].row = {"env_steps": 500, "train/return": 12.34, "eval/return": 5.0, "grad_norm/nonfinite": 2.0}
    hook(1, {})
    hook(2, {})
    said = capsys.readouterr().err
    assert said.count("\n") == 1, "a line every ten seconds"
    assert said.startswith("500 of 1,000 env steps (50%)  50 env steps/s  return 12.3  eval 5.0  ETA 0:00:10")
    assert "2 non-finite gradients" in said


def test_the_last_line_is_always_told(logged, capsys):
    hook = bar(logged)
    logged[1].env_steps = 1000
    hook(1, {})
    assert "1,000 of 1,000 env steps (100%)" in capsys.readouterr().err


def test_a_terminal_shows_a_live_bar(logged, capsys):
    hook = bar(logged, force_terminal=True)
    logged[1].env_steps = 500
    logged[0].row = {"train/return": 12.3}
    hook(1, {})
    hook.stop()
    said = capsys.readouterr().err
    assert "50%" in said
    assert "return 12.3" in said
    assert "ETA" in said


def test_the_bar_draws_nothing_from_python_random_stream(logged):
    import random

    random.seed(0)
    before = random.getstate()
    hook = bar(logged, force_terminal=True)
    hook(1, {})
    hook.stop()
    assert random.getstate() == before
