"""Randomisations of the suite by name; their terms are those of `robotrl.envs.randomise`, and so are their records.

Layout (where things stand, their colours, the words of the instruction, the arm's start posture) is drawn for every
episode in any case, see `robotrl.envs.tabletop.layout`.
"""

from __future__ import annotations

import mujoco

from robotrl.envs.randomise import Term
from robotrl.registry import nearest
from robotrl.types import RobotRLError

JOINTS = tuple(f"joint{i}" for i in range(1, 8))
SERVOS = tuple(f"servo{i}" for i in range(1, 8))
KINDS = ("appearance", "camera", "dynamics")


def terms(name: str, model: mujoco.MjModel) -> list[Term]:
    """The terms that `appearance`, `camera`, `dynamics` or several of them, joined by `+`, mean for `model`.

    Raises:
        RobotRLError: another name.
    """
    makers = {"appearance": _appearance, "camera": _camera, "dynamics": _dynamics}
    found: list[Term] = []
    for kind in name.split("+"):
        if kind not in makers:
            raise RobotRLError(
                f"randomise='{name}' names no randomisation of the tabletop suite.{nearest(kind, list(KINDS))} "
                f"There are {', '.join(KINDS)}, or several, as camera+dynamics; or give terms of your own."
            )
        found += makers[kind](model)
    return found


def _appearance(model: mujoco.MjModel) -> list[Term]:
    """Colours of table, room, arm and fixtures; strength and direction of the lights."""
    channels = [Term(f"material_{channel}", -0.12, 0.12, mode="add", names=_paintable(model)) for channel in
                ("red", "green", "blue")]  # fmt: skip
    return [
        *channels,
        Term("light_brightness", 0.6, 1.15),
        Term("light_x", -0.4, 0.4, mode="add", names=("key",)),
        Term("light_y", -0.4, 0.4, mode="add", names=("key",)),
    ]


def _paintable(model: mujoco.MjModel) -> tuple[str, ...]:
    """Materials whose colours can go up and down by the amount used."""
    names = [model.mat(i).name for i in range(model.nmat)]
    return tuple(name for i, name in enumerate(names) if model.mat_rgba[i, :3].min() > 0.12)


def _camera(model: mujoco.MjModel) -> list[Term]:
    """Each camera up to 2 cm (the wrist's 4 mm) and 3 degrees off, and 2 degrees in its field of view."""
    places = [Term(f"camera_{axis}", -0.02, 0.02, names=("front",), mode="add") for axis in "xyz"]
    places += [Term(f"camera_{axis}", -0.004, 0.004, names=("wrist",), mode="add") for axis in "xyz"]
    turns = [Term(f"camera_{turn}", -0.05, 0.05, names=("front", "wrist"), mode="add") for turn in
             ("tilt", "pan", "roll")]  # fmt: skip
    return [*places, *turns, Term("camera_fovy", -2.0, 2.0, names=("front", "wrist"), mode="add")]


def _dynamics(model: mujoco.MjModel) -> list[Term]:
    """The arm's servos and joints, the fingers' grip, and the masses and friction of what lies on the table."""
    bodies = [model.body(i).name for i in range(model.nbody)]
    loose = tuple(name for name in bodies if name.startswith("object"))
    geoms = [model.geom(i).name for i in range(model.ngeom)]
    touched = ("pad_left", "pad_right", *(name for name in geoms if name.startswith("object")))
    found = [
        Term("actuator_gain", 0.8, 1.2, names=SERVOS),
        Term("actuator_damping", 0.8, 1.2, names=SERVOS),
        Term("joint_damping", 0.5, 2.0, names=JOINTS, distribution="loguniform"),
        Term("joint_frictionloss", 0.5, 2.0, names=JOINTS, distribution="loguniform"),
        Term("joint_armature", 0.8, 1.25, names=JOINTS, distribution="loguniform"),
        Term("geom_friction", 0.7, 1.3, names=touched),
    ]
    return found + ([Term("body_mass", 0.6, 1.6, names=loose, distribution="loguniform")] if loose else [])


__all__ = ["KINDS", "terms"]
