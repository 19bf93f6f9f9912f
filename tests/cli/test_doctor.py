"""`robotrl doctor` prints every finding and ends with status 1 only where training cannot work."""

import pytest

from robotrl.analysis import machine
from robotrl.analysis.machine import Finding
from robotrl.cli import doctor
from robotrl.types import RobotRLError


def with_findings(monkeypatch, *findings):
    monkeypatch.setattr(machine, "examine", lambda folder: iter(findings))


def test_warnings_and_missing_extras_leave_the_status_at_0(monkeypatch, capsys):
    fix = 'pip install "robotrl[dmc]"'
    with_findings(monkeypatch, Finding("OpenGL", "warn", "none"), Finding("dm-control", "info", "not installed", fix))
    assert doctor.run([]) == 0
    printed = capsys.readouterr().out
    assert fix in printed, "brackets are not taken for markup"
    assert "This machine can train." in printed


def test_something_core_that_is_broken_gives_status_1_and_is_named(monkeypatch, capsys):
    with_findings(
        monkeypatch, Finding("Python", "ok", "3.12"), Finding("torch", "fail", "ImportError", "pip install torch")
    )
    assert doctor.run([]) == 1
    printed = capsys.readouterr().out
    assert "Training cannot work here: torch." in printed
    assert "pip install torch" in printed


def test_the_run_directory_is_the_one_that_is_measured(monkeypatch):
    seen = []
    monkeypatch.setattr(machine, "examine", lambda folder: iter(seen.append(str(folder)) or []))
    doctor.run(["run_dir=/somewhere/else"])
    assert seen == ["/somewhere/else"]


@pytest.mark.parametrize("word", ["rundir=x", "run_dir", "run_dir=", "env=Ant-v5"])
def test_a_key_it_does_not_know_is_refused_with_the_one_it_knows(word):
    with pytest.raises(RobotRLError, match=r"Its only key is run_dir=PATH"):
        doctor.run([word])
