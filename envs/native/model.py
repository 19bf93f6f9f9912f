"""Models: Gymnasium's own XML files, read where the installed package keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import mujoco

from robotrl.types import RobotRLError

# found, not imported: the path needs none of the package's code
ASSETS = Path(str(find_spec("gymnasium").origin)).parent / "envs" / "mujoco" / "assets"  # type: ignore[union-attr]


def load_model(xml_file: str) -> mujoco.MjModel:
    """The compiled model of `xml_file`: a file of Gymnasium's assets, unless it starts with `/`, `.` or `~`.

    Raises:
        RobotRLError: there is no such file, or MuJoCo cannot read it.
    """
    if xml_file.startswith((".", "/", "~")):
        return _compile(Path(xml_file).expanduser())
    with _without_remarks():
        return _compile(ASSETS / xml_file)


def _compile(path: Path) -> mujoco.MjModel:
    if not path.is_file():
        raise RobotRLError(f"There is no model at {path}. Give 'xml_file' as a path that starts with '/', '.' or '~'.")
    try:
        return mujoco.MjModel.from_xml_path(str(path))
    except ValueError as error:
        raise RobotRLError(f"MuJoCo cannot read the model {path}: {error}") from error


@contextmanager
def _without_remarks() -> Iterator[None]:
    """MuJoCo's remarks on XML kept back: a user can do nothing about deprecated attributes in Gymnasium's files."""
    config = mujoco.MjLogConfig.get()
    console, file = config.logto_console, config.logto_file
    config.logto_console = config.logto_file = False
    config.set()
    try:
        yield
    finally:
        config.logto_console, config.logto_file = console, file
        config.set()
