"""The page is computed from result files alone."""

import pytest

from benchmarks import lib, plots, report
from benchmarks.spine import training
from benchmarks.targets import value


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(lib, "RESULTS", tmp_path)
    monkeypatch.setattr(report, "SUITES", {"spine": "The spine"})
    monkeypatch.setattr("benchmarks.spine.CLAIMS", {"memory": "Memory", "import_time": "Time"})
    return tmp_path / "spine"


def test_a_claim_without_a_file_is_said_to_be_unmeasured(results):
    assert report.page().count("| not measured |") == 2


def test_a_miss_is_printed_as_a_miss_with_n_and_interval(results):
    file = lib.ResultFile(results / "memory.json", "command", value("robotrl", "<=", 1.5, n=3), "a note")
    for seed, peak in enumerate((1.0, 2.0, 3.0)):
        file.record("robotrl", seed, peak, unit="GB")
    page = report.page()
    assert "**missed**" in page
    assert "| `robotrl` | GB | 3 | 0, 1, 2 | 2.000 [1.000, 3.000] | 2.000 |" in page
    assert "a note" in page


def test_pictures_are_drawn_for_every_task_of_a_curve(results, tmp_path):
    pytest.importorskip("pyarrow")
    curve = training.Curve([training.Point(step, [1.0, 3.0], 0.5) for step in (1000, 2000)])
    file = lib.ResultFile(results / "memory.json", "command", value("robotrl", "<=", 1.5), "a note")
    for seed in (0, 1):
        file.add_curve(curve.rows("robotrl", "Hopper", seed))
    pictures = plots.draw("spine", "memory", file.curves, tmp_path)
    assert [p.name for p in pictures] == ["spine-memory-Hopper.png"]
    assert pictures[0].stat().st_size > 1000
