"""Result files: raw, complete, written in one step, and continued where they stopped."""

import json
from argparse import Namespace

import pytest

from benchmarks import command, lib
from benchmarks.targets import value

TARGET = value("a", ">=", 1.0, n=2)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "spine" / "claim.json"


def result(path):
    return lib.ResultFile(path, "python -m benchmarks.spine.claim", TARGET, "note")


def test_a_file_has_exactly_the_documented_keys(path):
    result(path).record("a", 0, 2.0, unit="s", wall_s=1.5, env_steps=7)
    data = json.loads(path.read_text())
    assert tuple(data) == lib.KEYS
    assert data["claim"] == "claim"
    assert data["arms"]["a"] == {"unit": "s", "seeds": [0], "values": [2.0], "wall_s": [1.5], "env_steps": [7]}


def test_met_is_undecided_until_all_seeds_are_there_and_then_computed(path):
    file = result(path)
    file.record("a", 0, 2.0, unit="s")
    assert json.loads(path.read_text())["met"] is None
    file.record("a", 1, 2.0, unit="s")
    assert json.loads(path.read_text())["met"] is True


def test_a_second_process_continues_and_keeps_what_is_there(path):
    result(path).record("a", 1, 2.0, unit="s")
    file = result(path)
    assert file.has("a", 1)
    assert not file.has("a", 0)
    file.record("a", 0, 1.0, unit="s")
    assert json.loads(path.read_text())["arms"]["a"]["values"] == [1.0, 2.0]  # in the order of the seeds


def test_a_seed_is_recorded_once_unless_its_value_follows_from_others(path):
    file = result(path)
    file.record("a", 0, 1.0, unit="s")
    with pytest.raises(ValueError, match="already"):
        file.record("a", 0, 3.0, unit="s")
    file.record("a", 0, 3.0, unit="s", replace=True)
    assert file.arms["a"].values == [3.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_no_result(path, bad):
    with pytest.raises(ValueError, match="no result"):
        result(path).record("a", 0, bad, unit="s")


def test_values_of_one_arm_share_a_unit(path):
    file = result(path)
    file.record("a", 0, 1.0, unit="s")
    with pytest.raises(ValueError, match="unit"):
        file.record("a", 1, 1.0, unit="env steps/s")


def test_every_commit_that_contributed_is_named(path):
    file = result(path)
    file.record("a", 0, 1.0, unit="s", commit="one")
    file.record("a", 1, 1.0, unit="s", commit="two")
    again = result(path)
    again.record("b", 0, 1.0, unit="s", commit="one")
    assert json.loads(path.read_text())["commit"] == "one, two"


def test_every_processor_that_contributed_is_named(path, monkeypatch):
    for seed, cpu in enumerate(("one", "two", "one")):
        monkeypatch.setattr("benchmarks.provenance._cpu_model", lambda cpu=cpu: cpu)
        result(path).record("a", seed, 1.0, unit="s")
    assert json.loads(path.read_text())["hardware"]["cpu"] == "one, two"


def test_a_write_that_fails_leaves_the_old_file(path, monkeypatch):
    file = result(path)
    file.record("a", 0, 1.0, unit="s")
    before = path.read_text()

    def full(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        file.record("a", 1, 1.0, unit="s")
    assert path.read_text() == before


@pytest.mark.parametrize("damage", ["key", "length"])
def test_a_file_of_another_form_is_refused(path, damage):
    result(path).record("a", 0, 1.0, unit="s")
    data = json.loads(path.read_text())
    if damage == "key":
        del data["note"]
    else:
        data["arms"]["a"]["seeds"].append(1)
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"keys|length"):
        result(path)


def test_curves_keep_other_runs_and_replace_the_same_one(path):
    pytest.importorskip("pyarrow")
    file = result(path)

    def row(seed, value):
        return {"arm": "a", "task": "t", "seed": seed, "env_steps": 1, "return": value}

    file.add_curve([row(0, 1.0)])
    file.add_curve([row(1, 2.0)])
    file.add_curve([row(0, 3.0)])
    assert [r["return"] for r in lib.read_curves(file.curves)] == [3.0, 2.0]


def test_only_the_work_folder_is_ever_emptied(tmp_path):
    with pytest.raises(ValueError, match="not under"):
        command.empty(tmp_path)


def test_a_failing_program_is_reported_with_its_last_lines():
    with pytest.raises(RuntimeError, match="the reason"):
        command.execute(["python3", "-c", "import sys; sys.exit('the reason')"])


def test_arms_are_forgotten_by_the_start_of_their_name(path):
    file = result(path)
    for arm in ("a/Ant", "a/Hopper", "b/Ant"):
        file.record(arm, 0, 1.0, unit="s")
    file.forget("a/Ant")
    assert not file.has("a/Ant", 0)
    assert file.has("a/Hopper", 0)
    assert file.has("b/Ant", 0)


def test_arms_made_anew_lose_the_runs_that_they_had(tmp_path, monkeypatch):
    monkeypatch.setattr(lib, "WORK", tmp_path)
    for run in ("boost-1/walk/seed0", "boost-1/cup/seed0", "dac-1/walk/seed0"):
        (tmp_path / "suite" / "claim" / run).mkdir(parents=True)
    (tmp_path / "suite" / "claim" / "boost-1" / "walk.log").touch()
    left = command.work("suite/claim", Namespace(smoke=False, fresh=False, again=["boost/walk"]))
    assert sorted(str(run.relative_to(left)) for run in left.glob("*/*")) == ["boost-1/cup", "dac-1/walk"]


def test_a_changed_note_reaches_the_file_without_measuring_again(path):
    result(path).record("a", 0, 1.0, unit="s")
    before = json.loads(path.read_text())
    lib.ResultFile(path, "python -m benchmarks.spine.claim", TARGET, "another note").refresh()
    after = json.loads(path.read_text())
    assert after == before | {"note": "another note"}
