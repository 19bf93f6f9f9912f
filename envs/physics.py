"""Which physical parameters can differ between simulations, and where MuJoCo keeps them.

The table of `robotrl.envs.randomise` says what each field means; here each is read from a model and written to a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from robotrl.registry import nearest
from robotrl.types import RobotRLError

Float = NDArray[np.float64]
Rows = NDArray[np.int32]
Arrays = dict[str, Float]


@dataclass(frozen=True, slots=True)
class Field:
    """How one kind of parameter is read from a model and written to a batch."""

    objects: str
    """`body`, `geom`, `actuator`, `joint`, `camera`, `light`, `mat` (material), or empty for the model as a whole."""
    arrays: tuple[str, ...]
    base: Callable[[mujoco.MjModel, int], float]
    write: Callable[[mujoco.MjModel, Arrays, Rows, int, Float], None]
    least: float = 0.0
    positive: bool = False
    """Whether values must lie above `least`, not at it, and so must the model's own."""
    derive: bool = False
    """Whether MuJoCo derives other constants from it."""


def _write_mass(m: mujoco.MjModel, a: Arrays, rows: Rows, i: int, values: Float) -> None:
    a["body_mass"][rows, i] = values
    a["body_inertia"][rows, i] = m.body_inertia[i] * (values / m.body_mass[i])[:, None]


def _write_friction(m: mujoco.MjModel, a: Arrays, rows: Rows, i: int, values: Float) -> None:
    a["geom_friction"][rows, i, 0] = values


def _write_size(m: mujoco.MjModel, a: Arrays, rows: Rows, i: int, values: Float) -> None:
    a["geom_size"][rows, i] = m.geom_size[i] * values[:, None]


def _size_base(m: mujoco.MjModel, i: int) -> float:
    shapes = ("SPHERE", "CAPSULE", "ELLIPSOID", "CYLINDER", "BOX")
    return float(m.geom_type[i] in [int(getattr(mujoco.mjtGeom, f"mjGEOM_{shape}")) for shape in shapes])


def _write_gain(m: mujoco.MjModel, a: Arrays, rows: Rows, i: int, values: Float) -> None:
    a["actuator_gainprm"][rows, i, 0] = values
    if m.actuator_biasprm[i, 1] == -m.actuator_gainprm[i, 0]:  # a position servo pulls back with its own gain
        a["actuator_biasprm"][rows, i, 1] = -values


def _write_damping_gain(m: mujoco.MjModel, a: Arrays, rows: Rows, i: int, values: Float) -> None:
    a["actuator_biasprm"][rows, i, 2] = -values


def _camera_place(axis: int) -> Field:
    def write(m: mujoco.MjModel, a: Arrays, rows: Rows, i: int, values: Float) -> None:
        a["cam_pos"][rows, i, axis] = values

    return Field("camera", ("cam_pos",), lambda m, i: float(m.cam_pos[i, axis]), write, least=-np.inf)


def _camera_turn(axis: int) -> Field:
    """A turn about one of the camera's own axes, on top of the turns written before it."""

    def write(m: mujoco.MjModel, a: Arrays, rows: Rows, i: int, values: Float) -> None:
        turn, turned = np.zeros(4), np.zeros(4)
        for row, value in zip(rows, values, strict=True):
            mujoco.mju_axisAngle2Quat(turn, np.eye(3)[axis], value)
            mujoco.mju_mulQuat(turned, a["cam_quat"][row, i], turn)
            a["cam_quat"][row, i] = turned

    return Field("camera", ("cam_quat",), lambda m, i: 0.0, write, least=-np.inf)


def _write_fovy(m: mujoco.MjModel, a: Arrays, rows: Rows, i: int, values: Float) -> None:
    a["cam_fovy"][rows, i] = values


def _write_brightness(m: mujoco.MjModel, a: Arrays, rows: Rows, i: int, values: Float) -> None:
    a["light_diffuse"][rows, i] = m.light_diffuse[i] * (values / m.light_diffuse[i].mean())[:, None]


def _light_direction(axis: int) -> Field:
    def write(m: mujoco.MjModel, a: Arrays, rows: Rows, i: int, values: Float) -> None:
        a["light_dir"][rows, i, axis] = values  # MuJoCo normalises it where it is used

    return Field("light", ("light_dir",), lambda m, i: float(m.light_dir[i, axis]), write, least=-np.inf)


def _material_colour(channel: int) -> Field:
    def write(m: mujoco.MjModel, a: Arrays, rows: Rows, i: int, values: Float) -> None:
        a["mat_rgba"][rows, i, channel] = values

    return Field("mat", ("mat_rgba",), lambda m, i: float(m.mat_rgba[i, channel]), write)


def _write_gravity(m: mujoco.MjModel, a: Arrays, rows: Rows, i: int, values: Float) -> None:
    size = float(np.linalg.norm(m.opt.gravity))
    direction = m.opt.gravity / size if size else np.array([0.0, 0.0, -1.0])
    # by the ratio, so that a factor of one gives the model's own gravity to the bit
    a["opt.gravity"][rows] = m.opt.gravity * (values / size)[:, None] if size else direction * values[:, None]


def _dofs(m: mujoco.MjModel, joint: int) -> slice:
    widths = {int(mujoco.mjtJoint.mjJNT_FREE): 6, int(mujoco.mjtJoint.mjJNT_BALL): 3}
    first = int(m.jnt_dofadr[joint])
    return slice(first, first + widths.get(int(m.jnt_type[joint]), 1))


def _joint_field(name: str, *, derive: bool) -> Field:
    def base(m: mujoco.MjModel, i: int) -> float:
        return float(getattr(m, name)[_dofs(m, i)][0])

    def write(m: mujoco.MjModel, a: Arrays, rows: Rows, i: int, values: Float) -> None:
        a[name][rows, _dofs(m, i)] = values[:, None]

    return Field("joint", (name,), base, write, derive=derive)


FIELDS: dict[str, Field] = {
    "body_mass": Field(
        "body",
        ("body_mass", "body_inertia"),
        lambda m, i: float(m.body_mass[i]),
        _write_mass,
        positive=True,
        derive=True,
    ),
    "geom_friction": Field("geom", ("geom_friction",), lambda m, i: float(m.geom_friction[i, 0]), _write_friction),
    "geom_size": Field("geom", ("geom_size",), _size_base, _write_size, positive=True, derive=True),
    "actuator_gain": Field(
        "actuator",
        ("actuator_gainprm", "actuator_biasprm"),
        lambda m, i: float(m.actuator_gainprm[i, 0]),
        _write_gain,
        least=-np.inf,
    ),
    "actuator_damping": Field(
        "actuator", ("actuator_biasprm",), lambda m, i: float(-m.actuator_biasprm[i, 2]), _write_damping_gain
    ),
    "camera_x": _camera_place(0),
    "camera_y": _camera_place(1),
    "camera_z": _camera_place(2),
    "camera_tilt": _camera_turn(0),
    "camera_pan": _camera_turn(1),
    "camera_roll": _camera_turn(2),
    "camera_fovy": Field("camera", ("cam_fovy",), lambda m, i: float(m.cam_fovy[i]), _write_fovy, positive=True),
    "light_brightness": Field(
        "light", ("light_diffuse",), lambda m, i: float(m.light_diffuse[i].mean()), _write_brightness
    ),
    "light_x": _light_direction(0),
    "light_y": _light_direction(1),
    "material_red": _material_colour(0),
    "material_green": _material_colour(1),
    "material_blue": _material_colour(2),
    "joint_damping": _joint_field("dof_damping", derive=False),
    "joint_armature": _joint_field("dof_armature", derive=True),
    "joint_frictionloss": _joint_field("dof_frictionloss", derive=False),
    "gravity": Field("", ("opt.gravity",), lambda m, i: float(np.linalg.norm(m.opt.gravity)), _write_gravity),
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One number a simulation: where it goes, and the model's own value."""

    key: str
    kind: Field
    index: int
    base: float


def find_field(name: str) -> Field:
    """The field of that name.

    Raises:
        RobotRLError: there is none; the nearest names are suggested.
    """
    if name not in FIELDS:
        raise RobotRLError(
            f"'{name}' cannot be randomised.{nearest(name, list(FIELDS))} These can: {', '.join(sorted(FIELDS))}."
        )
    return FIELDS[name]


def object_names(model: mujoco.MjModel, kind: Field) -> list[str]:
    """Names of all objects of the kind, in order; `#3` for a nameless number 3."""
    if not kind.objects:
        return [""]
    count = {
        "body": model.nbody, "geom": model.ngeom, "actuator": model.nu, "joint": model.njnt,
        "camera": model.ncam, "light": model.nlight, "mat": model.nmat,
    }[kind.objects]  # fmt: skip
    return [getattr(model, kind.objects)(i).name or f"#{i}" for i in range(count)]


def find_parameter(model: mujoco.MjModel, key: str) -> Parameter:
    """The parameter that the key `field/object` means.

    Raises:
        RobotRLError: no such field or object, or one that cannot be changed.
    """
    name, _, owner = key.partition("/")
    kind = find_field(name)
    names = object_names(model, kind)
    if owner.startswith("#") and owner[1:].isdigit() and int(owner[1:]) < len(names):
        owner = names[int(owner[1:])]
    if owner not in names:
        what = kind.objects or "object"
        raise RobotRLError(
            f"The model has no {what} '{owner}' to randomise.{nearest(owner, names)} It has: {', '.join(names)}."
        )
    index = names.index(owner)
    base = kind.base(model, index)
    if base == 0 and kind.positive:
        raise RobotRLError(f"{key} cannot be randomised: it is zero in the model, or not a primitive shape.")
    return Parameter(key=f"{name}/{owner}" if owner else name, kind=kind, index=index, base=base)


def check_values(parameter: Parameter, values: Float) -> None:
    """Raise RobotRLError unless all `values` are finite and physically possible."""
    kind = parameter.kind
    good = np.isfinite(values).all() and (values > kind.least if kind.positive else values >= kind.least).all()
    if not good:
        bound = f"above {kind.least}" if kind.positive else f"at least {kind.least}"
        raise RobotRLError(
            f"{parameter.key} would become {float(np.min(values)):g}, but it must be {bound}. "
            f"The model's value is {parameter.base:g}; choose the range so that no draw leaves it."
        )
