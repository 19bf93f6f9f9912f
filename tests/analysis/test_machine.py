"""Each check of `robotrl doctor` names what is wrong and the fix."""

import os
from importlib import metadata

import pytest
import torch

from robotrl.analysis import machine


def only(findings):
    (finding,) = findings
    return finding


def test_a_package_in_a_version_that_does_not_fit_fails_with_the_command_to_mend_it(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda _: ["numpy>=99", "torch>=2", 'optuna; extra == "tune"'])
    finding = only(machine._packages())
    assert (finding.subject, finding.status, finding.fix) == ("numpy", "fail", 'pip install "numpy>=99"')


def test_a_package_that_is_missing_fails_with_the_command_to_mend_it(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda _: ["not-there>=1"])
    finding = only(machine._packages())
    assert (finding.status, finding.fix) == ("fail", 'pip install "not-there>=1"')


def test_the_native_envs_step_here():
    finding = only(machine._simulation())
    assert finding.status == "ok"
    assert "env steps/s" in finding.found


def test_more_threads_than_cores_is_a_warning(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    finding = only(machine._threads())
    assert finding.status == "warn"
    assert "OMP_NUM_THREADS=2" in finding.fix


def test_usable_cores_are_no_more_than_the_affinity():
    assert 1 <= machine.usable_cores() <= len(os.sched_getaffinity(0))


def test_the_disk_of_a_folder_that_does_not_exist_yet_is_measured(tmp_path):
    finding = only(machine._disk(tmp_path / "runs" / "new"))
    assert finding.status in ("ok", "warn")
    assert str(tmp_path) in finding.found


def test_a_disk_that_cannot_be_written_fails(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    finding = only(machine._disk(tmp_path))
    assert finding.status == "fail"
    assert "Permission denied" in finding.found
    assert "run_dir=" in finding.fix


def test_a_nearly_full_disk_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "MIN_FREE_GB", 1e9)
    assert only(machine._disk(tmp_path)).status == "warn"


def test_without_opengl_the_debian_packages_are_named(monkeypatch):
    monkeypatch.setattr("robotrl.envs.rendering.software_gl", lambda: None)
    finding = only(machine._opengl())
    assert finding.status == "warn"
    assert "libegl1" in finding.fix
    assert "libosmesa6" in finding.fix


def test_a_check_that_breaks_is_itself_a_finding(monkeypatch, tmp_path):
    def broken():
        raise OSError("no such device")

    for name in ("_packages", "_simulation", "_opengl", "_disk"):
        monkeypatch.setattr(machine, name, lambda *_: [])
    monkeypatch.setattr(machine, "_memory", broken)
    (finding,) = [f for f in machine.examine(tmp_path) if f.subject == "memory"]
    assert finding.status == "fail"
    assert "no such device" in finding.found


@pytest.mark.parametrize("name", ["dm-control", "optuna"])
def test_a_missing_optional_package_comes_with_its_extra(monkeypatch, name):
    def missing(_):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    finding = next(f for f in machine._optional() if f.subject == name)
    assert finding.status == "info"
    assert finding.fix.startswith('pip install "robotrl[')
