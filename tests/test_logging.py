"""Numbers reach `metrics.jsonl` whatever the side writers and the numbers do."""

import json
import math
import time
import warnings

import pytest
import torch

from robotrl.logging import MetricsLog, TensorBoardWriter, side_writers, to_numbers


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_metrics_become_numbers_in_their_order_and_to_the_last_bit():
    third = 1 / 3
    metrics = {
        "a": torch.tensor(third, dtype=torch.float64),
        "n": 3,
        "b": torch.tensor([0.1]),
        "t": 0.5,
        "flag": torch.tensor(True),
    }
    row = to_numbers(metrics)
    assert list(row) == list(metrics)
    assert row == {"a": third, "n": 3, "b": torch.tensor(0.1).item(), "t": 0.5, "flag": 1.0}


def test_a_metric_that_is_no_single_number_is_refused_by_name():
    with pytest.raises(ValueError, match=r"the metric 'loss/policy' has shape \[2\]"):
        to_numbers({"loss/policy": torch.zeros(2)})


def test_non_finite_values_are_null_counted_and_named_once(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl", nonfinite=2)
    with pytest.warns(UserWarning, match="The metric loss/policy is nan at env step 10; it is written as null"):
        log.write({"env_steps": 10, "loss/policy": math.nan})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log.write({"env_steps": 20, "loss/policy": math.inf})
        log.write({"env_steps": 30, "loss/policy": 1.0})
    log.close()
    assert [(row["loss/policy"], row["nonfinite_metrics"]) for row in lines(tmp_path / "m.jsonl")] == [
        (None, 3),
        (None, 4),
        (1.0, 4),
    ]


def write_three_and_close(log):
    for steps in (1, 2, 3):
        log.write({"env_steps": steps})
    log.close()


class Fails:
    def __init__(self):
        self.rows = []

    def write(self, row):
        self.rows.append(row)
        raise ConnectionError("no network")

    def close(self):
        raise ConnectionError("still no network")


def test_a_side_writer_that_fails_is_dropped_with_one_warning(tmp_path):
    fails = Fails()
    log = MetricsLog(tmp_path / "m.jsonl", {"Weights & Biases": fails})
    with pytest.warns(UserWarning, match="Weights & Biases stopped taking metrics .*no network") as seen:
        write_three_and_close(log)
    assert len(seen) == len(fails.rows) == 1
    assert len(lines(tmp_path / "m.jsonl")) == 3


def test_a_missing_wandb_is_one_warning(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.warns(UserWarning, match="Weights & Biases is not installed"):
        assert side_writers(tmp_path, tensorboard=False, wandb=True, config={}) == {}


def test_a_full_disk_costs_lines_and_not_the_run(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl")
    log.write({"env_steps": 1})
    log._file = FullFile(log._file)
    with pytest.warns(UserWarning, match=r"could not be written: .*No space left.*Training goes on"):
        log.write({"env_steps": 2})
    log._file = FullFile(log._file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log.write({"env_steps": 3})
    log.write({"env_steps": 4})
    log.close()
    assert [row["env_steps"] for row in lines(tmp_path / "m.jsonl")] == [1, 4]


class FullFile:
    """Takes half of what it is given, then has no room."""

    def __init__(self, file):
        self._file = file

    def write(self, data):
        self._file.write(data[: len(data) // 2])

    def flush(self):
        self._file.flush()
        raise OSError(28, "No space left on device")

    def __getattr__(self, name):
        return getattr(self._file, name)


def test_a_resumed_run_hides_the_events_after_its_checkpoint(tmp_path):
    first = TensorBoardWriter(tmp_path)
    for steps in (10, 20, 30):
        first.write({"env_steps": steps, "eval/return": float(steps)})
    first.close()
    time.sleep(1.1)  # event files are read in the order of the seconds in their names
    second = TensorBoardWriter(tmp_path, purge_after=20)
    second.write({"env_steps": 30, "eval/return": 300.0})
    second.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path)).Reload().Scalars("eval/return")
    assert [(e.step, e.value) for e in events] == [(10, 10.0), (20, 20.0), (30, 300.0)]


def test_sync_tells_where_a_resumed_run_cuts(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl")
    log.write({"env_steps": 1})
    assert log.sync() == (tmp_path / "m.jsonl").stat().st_size > 0
    log.close()
