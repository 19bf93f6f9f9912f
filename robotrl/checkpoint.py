"""Checkpoints that survive a kill, a power cut, a full disk and a flipped bit.

A checkpoint is a directory `<env steps, 12 digits>` with `tree.json` (structure and numbers), `small.safetensors`, one
`large-<hash>.safetensors` for every tensor of 1 MiB or more, and `manifest.json` (size and SHA-256 of each file, and of
itself), written last. All of it is written beside the others under a temporary name, every file and the directory are
fsynced, and one rename makes it visible: whatever the moment of a crash, the newest valid one is the old or the new.
A large tensor that did not change since the last checkpoint is a hard link to its file there (checked again before it
is linked), so a replay that hands out its storage in segments pays only for the segments that changed. The price:
damage to such a file, once linked, is damage to every checkpoint that shares it. Weights change, so it is data only.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as decode_tensors
from safetensors.torch import save as encode_tensors
from torch import Tensor

from robotrl.statetree import flatten, unflatten
from robotrl.types import RobotRLError, StateDict

FORMAT = "robotrl-checkpoint"
FORMAT_VERSION = 1
LARGE_BYTES = 1 << 20
MANIFEST, TREE, SMALL = "manifest.json", "tree.json", "small.safetensors"
MAX_MANIFEST_BYTES, MAX_TREE_BYTES, MAX_HEADER_BYTES = 1 << 24, 1 << 28, 1 << 26

_NAME = re.compile(r"^(\d{12,})(?:\.(\d+))?$")
_FILE_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*$")
_TEMPORARY = ".tmp-"
_BROKEN = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, MemoryError, SafetensorError)


def save_checkpoint(directory: Path, tree: StateDict, *, step: int, keep: int = 3) -> Path:
    """Write `tree` as the newest checkpoint in `directory`, then remove all but the `keep` newest (at least 2).

    One process at a time may save into a directory (`RunDir` holds a lock). Temporary directories that a killed
    process left behind are removed first.

    Args:
        directory: holds the checkpoints of one run; made when missing.
        tree: nested dictionaries, lists and tuples of tensors, NumPy arrays, numbers, strings and None.
        step: environment steps of the run so far; names and orders the checkpoints.
        keep: how many stay, this one included.

    Returns:
        The directory of the new checkpoint.

    Raises:
        RobotRLError: it could not be written, for example on a full disk. Older checkpoints are as they were and
            nothing of the new one is left, so training may go on and save later.
        TypeError: the tree holds something that no checkpoint can; the message names its path.
    """
    nodes, tensors = flatten(tree)
    temporary = directory / f"{_TEMPORARY}{step:012d}-{os.getpid()}"
    needed = sum(t.nbytes for t in tensors.values())
    try:
        os.makedirs(directory, exist_ok=True)
        _remove_leftovers(directory)
        previous = [path for _, path in _entries(directory)][:1]
        os.mkdir(temporary)
        _write_all(temporary, nodes, tensors, step, previous[0] if previous else None)
        target = _free_name(directory, step)
        os.rename(temporary, target)
        _sync_directory(directory)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise RobotRLError(_write_failed(directory, step, needed, error)) from error
    _prune(directory, step, max(2, keep))
    return target


def load_latest(directory: Path) -> tuple[StateDict, int] | None:
    """The newest valid checkpoint: its tree (tensors on the CPU) and step; None when there is no checkpoint at all.

    A torn, altered or foreign one, or one of a newer format, is skipped with a warning that names it and says why.

    Raises:
        RobotRLError: there are checkpoints and none of them is valid.
    """
    failures = []
    for step, path in _entries(directory):
        try:
            return _read(path), step
        except _BROKEN as error:
            failures.append(f"{path}: {_reason(error)}")
            warnings.warn(f"Skipped the checkpoint {failures[-1]}. Trying the one before it.", stacklevel=2)
    if not failures:
        return None
    listed = "\n  ".join(failures)
    raise RobotRLError(
        f"None of the checkpoints in {directory} can be read:\n  {listed}\n"
        f"Restore one from a backup, or start a new run (init_from=<policy directory> starts from saved weights)."
    )


def _entries(directory: Path) -> list[tuple[int, Path]]:
    """(step, path) of everything that is named like a checkpoint, newest first."""
    found = []
    for path in directory.iterdir() if directory.is_dir() else ():
        match = _NAME.match(path.name)
        if match:
            found.append((int(match[1]), int(match[2] or 0), path))
    return [(step, path) for step, _, path in sorted(found, reverse=True)]


def _free_name(directory: Path, step: int) -> Path:
    """A step can be saved twice, after a damaged checkpoint was skipped or with a new goal: the later one gets `.1`."""
    path, number = directory / f"{step:012d}", 0
    while path.exists():
        number += 1
        path = directory / f"{step:012d}.{number}"
    return path


def _write_all(into: Path, nodes: Any, tensors: dict[str, Tensor], step: int, previous: Path | None) -> None:
    small = {name: t for name, t in tensors.items() if t.nbytes < LARGE_BYTES}
    files: dict[str, dict[str, Any]] = {}
    place: dict[str, str] = {}
    for name, tensor in tensors.items():
        if name in small:
            continue
        data = encode_tensors({"tensor": tensor})
        digest = hashlib.sha256(data).hexdigest()
        place[name] = f"large-{digest[:32]}.safetensors"
        if place[name] not in files:
            files[place[name]] = {"size": len(data), "sha256": digest}
            if previous is None or not _link(previous / place[name], into / place[name], digest):
                _write_file(into / place[name], data)
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "step": step}
    # Aliased tensors (tied weights) are refused by the encoder unless each has memory of its own.
    small_data = encode_tensors({name: t.clone() for name, t in small.items()})
    for file, data in ((SMALL, small_data), (TREE, json.dumps({**head, "large": place, "tree": nodes}).encode())):
        files[file] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        _write_file(into / file, data)
    body = json.dumps({**head, "files": files})
    _write_file(into / MANIFEST, f"{body}\n{hashlib.sha256(body.encode()).hexdigest()}\n".encode())
    _sync_directory(into)


def _write_file(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(existing: Path, new: Path, digest: str) -> bool:
    """Share an unchanged file. Its bytes are read again, so that damage in an old checkpoint is not carried along."""
    try:
        if _digest(existing) != digest:
            return False
        os.link(existing, new)
    except OSError:  # the previous checkpoint lacks it, or the file system has no links: write it anew
        return False
    return True


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove_leftovers(directory: Path) -> None:
    for path in directory.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)


def _prune(directory: Path, step: int, keep: int) -> None:
    """Remove all but the newest `keep` complete checkpoints up to `step`; what is not ours to judge stays."""
    kept = 0
    for found, path in _entries(directory):
        if found > step:  # left by a timeline that could not be read; load_latest skips it again
            continue
        try:
            manifest = _read_manifest(path)
            for name, entry in manifest["files"].items():
                _check_size(path / name, entry["size"])
        except _BROKEN:
            continue
        kept += 1
        if kept > keep:
            _remove(path)


def _remove(path: Path) -> None:
    """Renamed first: a half-deleted directory never looks like a checkpoint."""
    doomed = path.with_name(f"{_TEMPORARY}old-{path.name}")
    try:
        os.rename(path, doomed)
    except OSError:  # a checkpoint too many does no harm
        return
    shutil.rmtree(doomed, ignore_errors=True)


def _read(path: Path) -> StateDict:
    """The tree of one checkpoint; raises one of `_BROKEN` when anything about it is not as it was written."""
    manifest = _read_manifest(path)
    files: dict[str, dict[str, Any]] = manifest["files"]
    if TREE not in files or SMALL not in files:
        raise ValueError(f"{MANIFEST} does not name {TREE} and {SMALL}")
    if files[TREE]["size"] > MAX_TREE_BYTES:
        raise ValueError(f"{TREE} has {files[TREE]['size']} bytes, more than {MAX_TREE_BYTES}")
    for name, entry in files.items():  # all sizes before any large read
        _check_size(path / name, entry["size"])
    tree = json.loads(_read_file(path, TREE, files[TREE]))
    small = _decode(SMALL, _read_file(path, SMALL, files[SMALL]))
    place: dict[str, str] = tree["large"]
    for name in files.keys() - {TREE, SMALL} - set(place.values()):  # damage that nothing refers to is damage too
        raise ValueError(f"{TREE} does not refer to {name}")

    def tensor(name: str) -> Tensor:
        if name not in place:
            return small[name]
        return _decode(place[name], _read_file(path, place[name], files[place[name]]))["tensor"]

    state: StateDict = unflatten(tree["tree"], tensor)
    return state


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    if not file.is_file():
        raise ValueError(f"{MANIFEST} is missing, so it was never completed")
    if file.stat().st_size > MAX_MANIFEST_BYTES:
        raise ValueError(f"{MANIFEST} has more than {MAX_MANIFEST_BYTES} bytes")
    body, _, rest = file.read_bytes().partition(b"\n")
    intact = rest == hashlib.sha256(body).hexdigest().encode() + b"\n"
    try:
        manifest: dict[str, Any] = json.loads(body)
        known = isinstance(manifest, dict) and manifest.get("format") == FORMAT
    except ValueError:
        known = False
    if not known:
        raise ValueError(f"{MANIFEST} is not a RobotRL manifest" if intact else f"{MANIFEST} is damaged or foreign")
    # A newer format may hash itself in another way, so the version is looked at before the hash.
    version = manifest.get("format_version")
    if not intact and version == FORMAT_VERSION:
        raise ValueError(f"{MANIFEST} does not match its own checksum")
    if version != FORMAT_VERSION:
        raise ValueError(f"its format version is {version}, this RobotRL reads {FORMAT_VERSION}; update RobotRL")
    for name, entry in manifest["files"].items():
        if not _FILE_NAME.match(name) or not isinstance(entry["size"], int) or entry["size"] < 0:
            raise ValueError(f"{MANIFEST} has a bad entry {name!r}")
    return manifest


def _check_size(file: Path, size: int) -> None:
    if not file.is_file():
        raise ValueError(f"{file.name} is missing")
    found = file.stat().st_size
    if found != size:
        raise ValueError(f"{file.name} has {found} bytes instead of {size}")


def _read_file(path: Path, name: str, entry: dict[str, Any]) -> bytes:
    data = (path / name).read_bytes()
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise ValueError(f"{name} does not match its SHA-256")
    return data


def _decode(name: str, data: bytes) -> dict[str, Tensor]:
    """Tensors of a safetensors file; the decoder checks every shape and offset against the bytes that are there."""
    (header,) = struct.unpack("<Q", data[:8])
    if header > min(MAX_HEADER_BYTES, len(data) - 8):
        raise ValueError(f"{name} has a header of {header} bytes")
    return decode_tensors(data)


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return str(error) or type(error).__name__


def _write_failed(directory: Path, step: int, needed: int, error: OSError) -> str:
    kept = "The checkpoints before it are intact."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = _readable(_free_bytes(directory))
        return (
            f"The checkpoint at {step} env steps could not be saved: it needs about {_readable(needed)}, "
            f"and the disk of {directory} has {free} free. {kept} Free some space, or keep fewer checkpoints."
        )
    return f"The checkpoint at {step} env steps could not be saved in {directory}: {error}. {kept}"


def _free_bytes(directory: Path) -> int:
    return shutil.disk_usage(next(_existing(directory))).free


def _existing(path: Path) -> Iterator[Path]:
    return (p for p in (path, *path.absolute().parents) if p.exists())


def _readable(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


__all__ = ["FORMAT_VERSION", "load_latest", "save_checkpoint"]
