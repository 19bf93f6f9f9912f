"""Changes of a data set that happen whole or not at all, whatever the moment of a kill, and the lock of its one writer.

A change is prepared in `.robotrl/change-<n>.tmp`: every new file, and a plan of what to move and what to delete, all of
it fsynced. Renaming that folder to `change-<n>` is the moment at which the change has happened. Its files are then
moved into place; if that is interrupted, `recover` moves the rest, as often as it takes. A folder that still ends in
`.tmp` never happened and is removed. Readers of the data set see nothing of it: LeRobot looks into `data`, `meta` and
`videos` only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from robotrl.types import RobotRLError

FOLDER, LOCK, PLAN = ".robotrl", "lock", "plan.json"
_LAST = ("meta/stats.json", "meta/tasks.parquet", "meta/robotrl/info.json", "meta/info.json")


class Change:
    """One change in preparation; file names are relative to the data set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.moves: list[str] = []
        self.deletes: list[str] = []

    def path(self, name: str) -> Path:
        """Where to prepare the new file `name`; its folder exists."""
        path = self.folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.moves.append(name)
        return path

    def write(self, name: str, content: bytes) -> None:
        """Prepare the new file `name`."""
        self.path(name).write_bytes(content)

    def delete(self, names: Sequence[str]) -> None:
        """Remove files once the new ones are in place; a file that is also new stays."""
        self.deletes += names


class Journal:
    """The changes of the data set in `root`, by the one process that may write there.

    Args:
        root: the data set's folder; made if missing.
        create: make it if missing.

    Raises:
        RobotRLError: another process writes there, or the folder cannot be written to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.folder = self.root / FOLDER
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock: int | None = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RobotRLError(f"The data set {root} cannot be written to: {error}. Choose another folder.") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(self._lock, 64).decode(errors="replace").strip() or "unknown"
            os.close(self._lock)
            self._lock = None
            raise RobotRLError(
                f"The data set {root} is being written by another process (number {holder}). Wait until it is done, "
                "or record into another folder and join the two with: robotrl data merge."
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Let other processes write; nothing happens the second time."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def recover(self) -> list[str]:
        """Finish what was interrupted; the changes that were completed, by the names of their files."""
        finished = []
        for folder in sorted(self.folder.glob("change-*")):
            if folder.suffix == ".tmp":
                shutil.rmtree(folder)
                continue
            finished += _plan(folder)[0]
            self._apply(folder)
        return finished

    @contextmanager
    def change(self, what: str) -> Iterator[Change]:
        """Prepare a change in the `with` block; it happens when the block ends without an error.

        Args:
            what: for messages: `episode 12`.

        Raises:
            RobotRLError: the disk is full or cannot be written. Nothing has happened then, unless the message says so.
        """
        numbers = [int(p.stem.removeprefix("change-")) for p in self.folder.glob("change-*")]
        folder = self.folder / f"change-{max(numbers, default=-1) + 1:06d}.tmp"
        try:
            folder.mkdir()
            change = Change(folder)
            yield change
            ready = self._seal(change)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise RobotRLError(self._not_written(what, error)) from error
            raise
        try:
            self._apply(ready)
        except OSError as error:
            raise RobotRLError(
                f"{what} is safe in {ready}, but could not be moved into place: {error}. Mend that, then run: "
                f"robotrl data repair {self.root}"
            ) from error

    def _seal(self, change: Change) -> Path:
        for name in change.moves:
            _sync(change.folder / "files" / name)
        plan = {"moves": change.moves, "deletes": [n for n in change.deletes if n not in set(change.moves)]}
        (change.folder / PLAN).write_text(json.dumps(plan))
        _sync(change.folder / PLAN)
        _sync(change.folder)
        ready = change.folder.with_suffix("")
        change.folder.rename(ready)
        _sync(self.folder)
        return ready

    def _apply(self, folder: Path) -> None:
        """Move what is still to be moved, the files that count episodes last; then delete, then forget the plan."""
        moves, deletes = _plan(folder)
        for name in sorted(moves, key=lambda n: _LAST.index(n) if n in _LAST else -1):
            source, target = folder / "files" / name, self.root / name
            if source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                source.replace(target)
        for parent in {(self.root / name).parent for name in moves}:
            _sync(parent)
        for name in deletes:
            (self.root / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # the folder of a chunk, once it is empty
                (self.root / name).parent.rmdir()
        spent = folder.with_suffix(".tmp")  # in one step: half a folder would be no plan any more
        folder.rename(spent)
        shutil.rmtree(spent)

    def _not_written(self, what: str, error: OSError) -> str:
        kept = "Everything that was saved before it is intact."
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free = shutil.disk_usage(self.root).free
            return (
                f"{what} could not be saved: the disk of {self.root} is full ({free / 1e6:.1f} MB free). {kept} "
                "Free some space and try again."
            )
        return f"{what} could not be saved in {self.root}: {error}. {kept}"


def interrupted(root: Path) -> bool:
    """Whether a change of the data set in `root` has happened but is not in place."""
    return any(folder.suffix != ".tmp" for folder in (root / FOLDER).glob("change-*"))


def _plan(folder: Path) -> tuple[list[str], list[str]]:
    """What to move and what to delete; a name that leads out of the data set is refused."""
    data = json.loads((folder / PLAN).read_text())
    moves, deletes = [str(n) for n in data["moves"]], [str(n) for n in data["deletes"]]
    for name in (*moves, *deletes):
        if name.startswith("/") or ".." in Path(name).parts:
            raise RobotRLError(f"{folder / PLAN} names the file '{name}', which lies outside of the data set.")
    return moves, deletes


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


__all__ = ["Change", "Journal", "interrupted"]
