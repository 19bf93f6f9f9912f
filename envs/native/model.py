"""Models: Gymnasium's own XML files, read where the installed package keeps them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import mujoco

from robotrl.types import RobotRLError


def model_path(xml_file: str) -> Path:
    """Where `xml_file` lies: in Gymnasium's assets, unless it starts with `/`, `.` or `~`.

    Raises:
        RobotRLError: there is no such file.
    """
    if xml_file.startswith((".", "/", "~")):
        path = Path(xml_file).expanduser()
    else:
        # found, not imported: the path needs none of the package's code
        package = find_spec("gymnasium").origin  # type: ignore[union-attr]
        path = Path(str(package)).parent / "envs" / "mujoco" / "assets" / xml_file
    if not path.is_file():
        raise RobotRLError(f"The model '{xml_file}' is not at {path}. Give a path that starts with '/', '.' or '~'.")
    return path


def load_model(xml_file: str) -> mujoco.MjModel:
    """The compiled model.

    Raises:
        RobotRLError: no such file, or MuJoCo cannot read it.
    """
    path = model_path(xml_file)
    try:
        return mujoco.MjModel.from_xml_path(str(path))
    except ValueError as error:
        raise RobotRLError(f"MuJoCo cannot read the model {path}: {error}") from error
