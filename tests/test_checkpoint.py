"""Whatever happens to a disk or a process, the newest valid checkpoint is the old or the new one."""

import contextlib
import errno
import hashlib
import json
import os
import random
import shutil
import subprocess
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from robotrl import checkpoint
from robotrl.checkpoint import load_latest, save_checkpoint
from robotrl.types import RobotRLError

LARGE = 1024


@pytest.fixture(autouse=True)
def four_kilobytes_are_large(monkeypatch):
    monkeypatch.setattr(checkpoint, "LARGE_BYTES", 4 * LARGE)


def tree(mark: int, large: float | None = None) -> dict:
    rest = {} if large is None else {"replay": [torch.full((LARGE,), large), torch.zeros(LARGE)]}
    return {"mark": mark, "weight": torch.full((5,), float(mark)), "rng": {"state": 2**90 + mark}, **rest}


def newest(directory: Path) -> tuple[int, int]:
    """(mark, step) of what loads, once its parts have been checked against each other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state, step = load_latest(directory)
    assert torch.equal(state["weight"], torch.full((5,), float(state["mark"])))
    assert state["rng"]["state"] == 2**90 + state["mark"]
    return state["mark"], step


def test_the_newest_of_several_is_loaded_and_the_oldest_are_removed(tmp_path):
    assert load_latest(tmp_path / "none") is None
    for step in range(100, 600, 100):
        save_checkpoint(tmp_path, tree(step), step=step, keep=3)
        assert newest(tmp_path) == (step, step)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{s:012d}" for s in (300, 400, 500)]
    save_checkpoint(tmp_path, tree(600), step=600, keep=0)
    assert len(list(tmp_path.iterdir())) == 2, "never fewer than two"


def test_a_step_saved_twice_keeps_both_and_loads_the_later(tmp_path):
    save_checkpoint(tmp_path, tree(1), step=100)
    save_checkpoint(tmp_path, tree(2), step=100)
    assert newest(tmp_path) == (2, 100)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000000000100", "000000000100.1"]


def test_tied_tensors_can_be_saved(tmp_path):
    weight = torch.arange(4.0)
    save_checkpoint(tmp_path, {"a": weight, "b": weight.view(2, 2)}, step=1)
    state, _ = load_latest(tmp_path)
    assert torch.equal(state["a"], weight)
    assert torch.equal(state["b"].flatten(), weight)


def test_an_unchanged_large_tensor_is_shared_with_the_checkpoint_before(tmp_path):
    first = save_checkpoint(tmp_path, tree(1, large=1.0), step=1)
    second = save_checkpoint(tmp_path, tree(2, large=2.0), step=2)
    links = {p.name: p.stat().st_nlink for p in second.glob("large-*")}
    assert sorted(links.values()) == [1, 2]
    shared = next(p for p in first.glob("large-*") if p.stat().st_nlink == 2)
    shutil.rmtree(second)
    assert newest(tmp_path) == (1, 1)
    data = bytearray(shared.read_bytes())
    data[-1] ^= 1
    shared.write_bytes(data)
    third = save_checkpoint(tmp_path, tree(3, large=1.0), step=3)
    assert (third / shared.name).stat().st_nlink == 1, "damage in an old checkpoint is not carried along"
    assert newest(tmp_path) == (3, 3)


def test_leftovers_of_a_killed_process_go_at_the_next_save(tmp_path):
    (tmp_path / ".tmp-000000000100-4242").mkdir(parents=True)
    (tmp_path / ".tmp-000000000100-4242" / "tree.json").write_text("{")
    save_checkpoint(tmp_path, tree(1), step=200)
    assert [p.name for p in tmp_path.iterdir()] == ["000000000200"]


def two_checkpoints(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path, tree(1, large=1.0), step=100)
    return save_checkpoint(tmp_path, tree(2, large=2.0), step=200)


def damage_missing(path: Path) -> str:
    (path / "manifest.json").unlink()
    return "manifest.json is missing"


def damage_torn(path: Path) -> str:
    os.truncate(path / "tree.json", 100)
    return r"tree.json has 100 bytes instead of \d+"


def damage_lost_file(path: Path) -> str:
    (path / "small.safetensors").unlink()
    return "small.safetensors is missing"


def damage_empty_manifest(path: Path) -> str:
    os.truncate(path / "manifest.json", 0)
    return "manifest.json is damaged or foreign"


def damage_foreign(path: Path) -> str:
    body = json.dumps({"model": "something else"})
    (path / "manifest.json").write_text(f"{body}\n{hashlib.sha256(body.encode()).hexdigest()}\n")
    return "manifest.json is not a RobotRL manifest"


def rewrite(path: Path, change) -> None:
    """A manifest that is right about itself, as an attacker or a newer program would write it."""
    body = json.loads((path / "manifest.json").read_text().splitlines()[0])
    change(body)
    text = json.dumps(body)
    (path / "manifest.json").write_text(f"{text}\n{hashlib.sha256(text.encode()).hexdigest()}\n")


def replace_file(path: Path, name: str, data: bytes) -> None:
    (path / name).write_bytes(data)
    entry = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    rewrite(path, lambda m: m["files"].update({name: entry}))


def damage_future(path: Path) -> str:
    rewrite(path, lambda m: m.update(format_version=99))
    return "format version is 99, this RobotRL reads 1; update RobotRL"


def damage_escape(path: Path) -> str:
    rewrite(path, lambda m: m["files"].update({"../../secret": {"size": 1, "sha256": ""}}))
    return "bad entry '../../secret'"


def damage_header(path: Path) -> str:
    replace_file(path, "small.safetensors", (2**60).to_bytes(8, "little") + b"{}")
    return r"small.safetensors has a header of 1152921504606846976 bytes"


def damage_shape(path: Path) -> str:
    """A tensor that claims a terabyte within a file of a few bytes."""
    header = json.dumps({"weight": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    replace_file(path, "small.safetensors", len(header).to_bytes(8, "little") + header + b"1234")
    return "."


def damage_deep(path: Path) -> str:
    replace_file(path, "tree.json", b"[" * 200_000)
    return "."


def damage_kind(path: Path) -> str:
    body = json.loads((path / "tree.json").read_text())
    body["tree"]["mark"] = {"$": "call", "name": "os.system"}
    replace_file(path, "tree.json", json.dumps(body).encode())
    return "unknown kind of value 'call'"


def damage_reference(path: Path) -> str:
    body = json.loads((path / "tree.json").read_text())
    body["tree"]["weight"]["name"] = "nowhere"
    replace_file(path, "tree.json", json.dumps(body).encode())
    return "it lacks 'nowhere'"


DAMAGES = [f for name, f in sorted(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__.removeprefix("damage_"))
def test_a_damaged_checkpoint_is_skipped_with_its_name_and_the_reason(tmp_path, damage):
    path = two_checkpoints(tmp_path)
    reason = damage(path)
    with pytest.warns(UserWarning, match=rf"(?s)Skipped the checkpoint .*{path.name}: .*{reason}"):
        state, step = load_latest(tmp_path)
    assert (state["mark"], step) == (1, 100)


def test_no_valid_checkpoint_is_an_error_that_lists_all_of_them(tmp_path):
    two_checkpoints(tmp_path)
    for path in tmp_path.iterdir():
        damage_missing(path)
    with (
        pytest.warns(UserWarning, match="Skipped"),
        pytest.raises(RobotRLError, match=r"(?s)None of the checkpoints.*0200: .*0100: .*init_from="),
    ):
        load_latest(tmp_path)


def test_every_flipped_bit_is_detected(tmp_path):
    path = two_checkpoints(tmp_path)
    rng = random.Random(0)
    for file in sorted(path.iterdir()):
        intact = file.read_bytes()
        places = range(len(intact) * 8) if len(intact) < 100 else [rng.randrange(len(intact) * 8) for _ in range(120)]
        if file.name == "manifest.json":  # the one file that only vouches for itself: also its first and last bytes
            places = [*places, *range(64), *range(len(intact) * 8 - 600, len(intact) * 8)]
        if "large" in file.name:
            if file.stat().st_nlink > 1:
                continue  # shared with the checkpoint before: see the next test
            places = places[:8]
        for bit in places:
            data = bytearray(intact)
            data[bit // 8] ^= 1 << bit % 8
            file.write_bytes(data)
            assert newest(tmp_path) == (1, 100), f"bit {bit} of {file.name}"
        file.write_bytes(intact)
    assert newest(tmp_path) == (2, 200)


def test_damage_to_a_shared_file_is_detected_in_every_checkpoint_that_shares_it(tmp_path):
    path = two_checkpoints(tmp_path)
    shared = next(p for p in path.glob("large-*") if p.stat().st_nlink > 1)
    data = bytearray(shared.read_bytes())
    data[-1] ^= 1
    shared.write_bytes(data)
    with (
        pytest.warns(UserWarning, match="Skipped"),
        pytest.raises(RobotRLError, match=r"(?s)0200: large.*SHA-256.*0100: large.*SHA-256"),
    ):
        load_latest(tmp_path)


class RecordingOs:
    """Stands for `os` in the module under test and keeps the order of everything that reaches the disk."""

    def __init__(self, root: Path):
        self.root, self.log, self.open_files = root, [], {}

    def __getattr__(self, name):
        return getattr(os, name)

    def relative(self, path) -> str:
        return str(Path(path).relative_to(self.root))

    def mkdir(self, path):
        os.mkdir(path)
        self.log.append(("mkdir", self.relative(path)))

    def open(self, path, flags, mode=0o777):
        descriptor = os.open(path, flags, mode)
        self.open_files[descriptor] = self.relative(path)
        if flags & os.O_CREAT:
            self.log.append(("write", self.relative(path), b""))
        return descriptor

    def write(self, descriptor, data):
        done = os.write(descriptor, data[: max(1, len(data) // 2)])  # a short write, as a disk may answer
        self.log.append(("write", self.open_files[descriptor], bytes(data[:done])))
        return done

    def fsync(self, descriptor):
        self.log.append(("fsync", self.open_files[descriptor]))

    def rename(self, old, new):
        os.rename(old, new)
        self.log.append(("rename", self.relative(old), self.relative(new)))

    def link(self, old, new):
        os.link(old, new)
        self.log.append(("link", self.relative(old), self.relative(new)))


def disk_after(log: list, start: Path, into: Path, *, lose_data: bool, lose_names: bool) -> None:
    """The disk after the operations in `log`: a kill keeps them all, a power cut may lose what was not fsynced."""
    shutil.copytree(start, into)
    dirty, lost = set(), set()
    for number, (kind, *args) in enumerate(log):
        if kind == "rename" and lose_names and ("fsync", ".") not in log[number:]:
            lost.add(args[1])
        elif args[0] in lost:
            continue
        elif kind == "mkdir":
            (into / args[0]).mkdir()
        elif kind == "write":
            with (into / args[0]).open("ab") as file:
                file.write(args[1])
            dirty.add(args[0])
        elif kind == "fsync":
            dirty.discard(args[0])
        elif kind == "rename":
            (into / args[0]).rename(into / args[1])
            dirty = {name.replace(args[0], args[1], 1) for name in dirty}
        elif kind == "link":
            os.link(into / args[0], into / args[1])
        elif kind == "rmtree":
            shutil.rmtree(into / args[0])
    for name in dirty if lose_data else ():
        if (into / name).is_file():
            os.truncate(into / name, (into / name).stat().st_size // 2)


@pytest.mark.parametrize("cut", ["kill", "data", "names", "both"])
def test_a_cut_after_any_operation_leaves_the_old_or_the_new_checkpoint(tmp_path, monkeypatch, cut):
    start, work = tmp_path / "start", tmp_path / "work"
    for step in (100, 200):
        save_checkpoint(start, tree(step, large=1.0), step=step)
    shutil.copytree(start, work)
    recording = RecordingOs(work)
    monkeypatch.setattr(checkpoint, "os", recording)
    remove = shutil.rmtree
    monkeypatch.setattr(
        checkpoint.shutil, "rmtree", lambda p, **_: recording.log.append(("rmtree", recording.relative(p))) or remove(p)
    )
    save_checkpoint(work, tree(300, large=3.0), step=300, keep=2)
    monkeypatch.undo()
    kinds = {kind for kind, *_ in recording.log}
    assert kinds == {"mkdir", "write", "fsync", "rename", "link", "rmtree"}, "the test follows every kind of operation"

    seen = []
    for count in range(len(recording.log) + 1):
        disk = tmp_path / f"cut{count}"
        disk_after(
            recording.log[:count], start, disk, lose_data=cut in ("data", "both"), lose_names=cut in ("names", "both")
        )
        seen.append(newest(disk)[0])
        save_checkpoint(disk, tree(400), step=400)  # and training goes on from there
        assert newest(disk) == (400, 400)
        assert not list(disk.glob(".tmp-*"))
        shutil.rmtree(disk)
    assert seen == sorted(seen), "old until the new one is there, then always new"
    assert set(seen) == {200, 300}
    assert seen[-1] == 300, "what save_checkpoint returned from survives a power cut"


def full_disk_message(path: Path) -> str:
    said = r"The checkpoint at 200 env steps could not be saved: it needs about [\d.]+ [kM]B"
    return rf"{said}, and the disk of .*{path.name} has .* free"


@pytest.mark.parametrize("call", ["mkdir", "open", "write", "fsync", "rename"])
def test_a_disk_that_fills_at_any_call_is_told_and_loses_nothing(tmp_path, monkeypatch, call):
    save_checkpoint(tmp_path, tree(1), step=100)

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "os", SimpleNamespace(**{**vars(os), call: full}))
        with pytest.raises(RobotRLError, match=full_disk_message(tmp_path)):
            save_checkpoint(tmp_path, tree(2), step=200)
    assert [p.name for p in tmp_path.iterdir()] == ["000000000100"]
    assert newest(tmp_path) == (1, 100)
    save_checkpoint(tmp_path, tree(2), step=200)
    assert newest(tmp_path) == (2, 200)


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 6 MB, where the user may mount one."""
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", mount], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting a small file system needs root")
    yield mount
    subprocess.run(["umount", "-l", mount], check=False)


def test_a_really_full_disk_is_told_and_loses_nothing(small_disk):
    save_checkpoint(small_disk, tree(1, large=1.0), step=100)
    big = {**tree(2), "replay": torch.randn(1_000_000), "more": torch.randn(1_000_000)}
    with pytest.raises(RobotRLError, match=full_disk_message(small_disk)):
        save_checkpoint(small_disk, big, step=200)
    assert not list(small_disk.glob(".tmp-*"))
    assert newest(small_disk) == (1, 100)
    save_checkpoint(small_disk, tree(2, large=1.0), step=200)
    assert newest(small_disk) == (2, 200)


def test_a_directory_that_cannot_be_written_gives_the_reason(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RobotRLError, match=r"could not be saved in .*Not a directory"):
        save_checkpoint(tmp_path / "file" / "checkpoints", tree(1), step=1)


def test_a_value_that_no_checkpoint_can_hold_leaves_nothing_behind(tmp_path):
    with contextlib.suppress(TypeError):
        save_checkpoint(tmp_path, {"odd": object()}, step=1)
    assert list(tmp_path.iterdir()) == []
