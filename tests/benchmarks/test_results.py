"""What is published: every committed result is whole, and the page says what the files say."""

import importlib

import pytest

from benchmarks import lib, plots, report, targets

FILES = sorted(lib.RESULTS.glob("*/*.json"))


def ids(path):
    return f"{path.parent.name}/{path.stem}"


def test_the_page_is_what_the_committed_results_give():
    pytest.importorskip("pyarrow")
    current = report.PAGE.read_text(encoding="utf-8") if report.PAGE.exists() else ""
    assert current == report.page(), "run: python -m benchmarks.report"


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_met_is_what_target_and_values_give(path):
    data = lib.read(path)
    assert data["met"] == targets.met(data["target"], lib.values(data["arms"]))


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_target_and_note_are_those_of_the_command_and_it_ran_on_committed_code(path):
    data = lib.read(path)
    module = importlib.import_module(f"benchmarks.{path.parent.name}.{path.stem}")
    assert data["target"] == module.TARGET
    assert data["note"] == module.NOTE
    assert data["command"] == f"python -m {module.__name__}"
    assert "dirty" not in data["commit"]
    assert "unknown" not in data["commit"]


@pytest.mark.parametrize("path", sorted(lib.RESULTS.glob("*/*.parquet")), ids=ids)
def test_every_curve_has_its_picture(path):
    pytest.importorskip("pyarrow")
    for _, name in plots.names(path.parent.name, path.stem, path):
        assert (report.IMAGES / name).exists(), "run: python -m benchmarks.report"


@pytest.mark.parametrize("suite", sorted(report.SUITES))
def test_every_claim_of_a_suite_has_a_command_a_target_and_a_note(suite):
    claims = importlib.import_module(f"benchmarks.{suite}").CLAIMS
    for claim in claims:
        module = importlib.import_module(f"benchmarks.{suite}.{claim}")
        assert targets.outcomes(module.TARGET, {})
        assert module.NOTE
        assert callable(module.main)
    stray = {path.stem for path in (lib.RESULTS / suite).glob("*.json")} - set(claims)
    assert not stray, "results without a claim"
