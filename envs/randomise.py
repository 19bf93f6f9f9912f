"""Physics that differ between simulations: drawn from distributions, recorded, and replayable.

As configuration, a list of terms:

    randomise:
      - {field: body_mass, names: [torso], distribution: uniform, low: 0.8, high: 1.2, mode: scale}
      - {field: geom_friction, distribution: loguniform, low: 0.5, high: 2.0, mode: scale, shared: true}
      - {field: gravity, distribution: normal, low: 9.0, high: 10.6, mode: set}

or a mapping `{terms: [...], every: episode}`, or `{record: {...}}`, which sets exactly what a record says.
`every: episode` (the default) draws anew at each episode's start, from `(seed, episode)` alone; `every: run` draws once
a simulation, from `(seed, slot)`. A record, `env.randomisation`, maps `field/object` to one number a simulation, in the
units below, and is what a run logs (JSON: `{name: values.tolist()}`).

Fields, their units, and what a change of them means:

| field | unit | |
| --- | --- | --- |
| `body_mass` | kg | the inertia is scaled with it: same shape, other density |
| `geom_friction` | - | sliding friction. Of two geoms in contact MuJoCo takes the larger one, so name the floor too |
| `geom_size` | factor | all sizes of a primitive geom, about its own centre |
| `actuator_gain` | control to force | a position servo's stiffness follows |
| `actuator_damping` | N m s/rad, N s/m | a position servo's damping, `kv` |
| `joint_damping` | N s/m, N m s/rad | every degree of freedom of the joint |
| `joint_armature` | kg, kg m^2 | rotor inertia, likewise |
| `joint_frictionloss` | N, N m | dry friction, likewise |
| `camera_x`, `camera_y`, `camera_z` | m | in the frame of the body it is on |
| `camera_tilt`, `camera_pan`, `camera_roll` | rad | turns about the camera's own x, y and z axis, in this order |
| `camera_fovy` | degrees | vertical field of view |
| `light_brightness` | 0 to 1 | mean of the diffuse colour |
| `light_x`, `light_y` | - | direction |
| `material_red`, `material_green`, `material_blue` | 0 to 1 | |
| `gravity` | m/s^2 | magnitude; the direction is the model's |

Everything MuJoCo derives from these follows (`mj_setConst`: inverse weights, subtree masses, bounding volumes). A
geom's size changes neither its body's mass, nor where joints and child bodies are attached, nor the start pose, so keep
it within a few per cent, or the robot starts a little above or below the floor. Meshes and height fields keep their
size. Observations and rewards see the simulation as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from robotrl.envs.physics import FIELDS, Arrays, Parameter, check_values, find_field, find_parameter, object_names
from robotrl.envs.seeding import model_rng
from robotrl.registry import nearest
from robotrl.types import RobotRLError

Float = NDArray[np.float64]
Record = dict[str, Float]


@dataclass(frozen=True, slots=True)
class Term:
    """One line of a randomisation: which numbers, and what they are drawn from."""

    field: str
    low: float
    high: float
    names: tuple[str, ...] | None = None
    """Bodies, geoms, actuators or joints by name, or `#3` for number 3. None: all whose value is not zero."""
    distribution: Literal["uniform", "loguniform", "normal"] = "uniform"
    """`normal` has its mean half-way between `low` and `high`, which lie two standard deviations off and cut it off."""
    mode: Literal["scale", "add", "set"] = "scale"
    """What is drawn is a factor on the model's value, added to it, or the value itself."""
    shared: bool = False
    """One draw for all named objects instead of one each."""

    def draw(self, rng: np.random.Generator, count: int) -> Float:
        """`count` numbers in `[low, high]`."""
        if self.distribution == "uniform":
            return rng.uniform(self.low, self.high, count)
        if self.distribution == "loguniform":
            return np.exp(rng.uniform(np.log(self.low), np.log(self.high), count))
        middle, deviation = (self.low + self.high) / 2, (self.high - self.low) / 4
        return np.clip(rng.normal(middle, deviation, count), self.low, self.high)

    def apply(self, base: Float, drawn: Float) -> Float:
        """The values that `drawn` means, given the model's `base`."""
        if self.mode == "scale":
            return base * drawn
        return base + drawn if self.mode == "add" else drawn + np.zeros_like(base)


class Randomiser:
    """Draws the terms for the simulations of a batch, writes them, and keeps the record of what is in force."""

    def __init__(self, config: Any, model: mujoco.MjModel, batch: Batch) -> None:
        """Read `config` (see the module) for `model`.

        Raises:
            RobotRLError: an unknown field, name, distribution, mode or key, or a range that allows impossible values.
        """
        self._model, self._batch = model, batch
        terms, every, record = _read(config)
        self._per_episode = every == "episode" and record is None
        self._terms = [(term, _targets(model, term)) for term in terms]
        for term, targets in self._terms:
            _check_range(term, targets)
        chosen = [p for _, targets in self._terms for p in targets]
        if record is not None:
            chosen = [find_parameter(model, key) for key in record]
        keys = [p.key for p in chosen]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise RobotRLError(f"'{twice}' is randomised by two terms. Name each object in one term of a field.")
        self._parameters = chosen
        self._arrays: Arrays = {name: batch.expand(name) for p in chosen for name in p.kind.arrays}
        self._derive = any(p.kind.derive for p in chosen)
        self._values = np.tile([p.base for p in chosen], (batch.nsim, 1))
        self._seed: int | None = None
        self._fixed = record is not None
        if record is not None:
            self.load(record)

    @property
    def fields(self) -> frozenset[str]:
        """The MjModel fields that differ between simulations, what MuJoCo derives from them not counted."""
        return frozenset(self._arrays)

    @property
    def record(self) -> Record:
        """What is in force: `field/object` -> one number a simulation `[N]`."""
        return {p.key: self._values[:, k].copy() for k, p in enumerate(self._parameters)}

    def load(self, record: Mapping[str, Sequence[float] | Float]) -> None:
        """Put what a record says into force, in all simulations.

        Raises:
            RobotRLError: it has other parameters than this randomisation, another number of simulations, or values
                that are not finite or not possible.
        """
        if set(record) != {p.key for p in self._parameters}:
            raise RobotRLError(
                f"The record has {sorted(record)}, but this env randomises {sorted(p.key for p in self._parameters)}. "
                "Use a record of the same configuration."
            )
        values = np.empty_like(self._values)
        for k, target in enumerate(self._parameters):
            column = np.asarray(record[target.key], np.float64)
            if column.shape != (self._batch.nsim,):
                raise RobotRLError(
                    f"The record has {column.shape} values of {target.key}, but there are {self._batch.nsim} "
                    "simulations. Use as many environments as the run that made it."
                )
            check_values(target, column)
            values[:, k] = column
        self._values = values
        self._write(np.arange(self._batch.nsim, dtype=np.int32))

    def start_episodes(self, seed: int, rows: NDArray[np.int32], episodes: NDArray[np.int64]) -> None:
        """Draw for the simulations `rows` that start `episodes`, if they are drawn anew."""
        if self._fixed:
            return
        if not self._per_episode:
            if self._seed == seed:
                return
            rows = np.arange(self._batch.nsim, dtype=np.int32)
            episodes = rows.astype(np.int64)
        self._seed = seed
        for row, episode in zip(rows.tolist(), episodes.tolist(), strict=True):
            self._values[row] = self._draw(model_rng(seed, episode))
        self._write(rows)

    def resume(self, seed: int, record: Mapping[str, Sequence[float] | Float]) -> None:
        """Continue a run under `seed` whose record was `record`."""
        self.load(record)
        self._seed = seed

    def _draw(self, rng: np.random.Generator) -> Float:
        values = [
            term.apply(np.array([p.base for p in targets]), term.draw(rng, 1 if term.shared else len(targets)))
            for term, targets in self._terms
        ]
        return np.concatenate(values)

    def _write(self, rows: NDArray[np.int32]) -> None:
        if "cam_quat" in self._arrays:  # turns are written on top of each other
            self._arrays["cam_quat"][rows] = self._model.cam_quat
        for k, target in enumerate(self._parameters):
            target.kind.write(self._model, self._arrays, rows, target.index, self._values[rows, k])
        if self._derive:
            self._batch.set_const(rows)


def _read(config: Any) -> tuple[list[Term], str, Mapping[str, Any] | None]:
    """The terms, how often they are drawn, and the record to replay, if any."""
    body: Mapping[str, Any] = config if isinstance(config, Mapping) else {"terms": config}
    for key in body:
        if key not in ("terms", "every", "record"):
            raise RobotRLError(
                f"'randomise' has no key '{key}'.{nearest(key, ['terms', 'every', 'record'])} "
                "It is a list of terms, or has the keys terms and every, or record."
            )
    if "record" in body:
        if len(body) > 1:
            raise RobotRLError("'randomise' has a record and terms. Give a record to replay it, or terms to draw anew.")
        return [], "run", body["record"]
    every = body.get("every", "episode")
    if every not in ("episode", "run"):
        raise RobotRLError(f"'randomise.every' is {every!r}, but it must be 'episode' or 'run'.")
    terms = body.get("terms", ())
    if isinstance(terms, (str, Mapping)) or not isinstance(terms, Sequence):
        raise RobotRLError(f"'randomise' must be a list of terms, not {terms!r}.")
    return [_term(item) for item in terms], every, None


def _term(item: Any) -> Term:
    if isinstance(item, Term):
        return item
    known = [f.name for f in fields(Term)]
    if not isinstance(item, Mapping):
        raise RobotRLError(f"A term of 'randomise' is {item!r}, but it must have the keys {', '.join(known)}.")
    for key in item:
        if key not in known:
            raise RobotRLError(f"A term of 'randomise' has no key '{key}'.{nearest(str(key), known)}")
    for key in ("field", "low", "high"):
        if key not in item:
            raise RobotRLError(f"A term of 'randomise' lacks '{key}': {dict(item)}.")
    values = dict(item)
    if values.get("names") is not None:
        names = values["names"]
        values["names"] = (names,) if isinstance(names, str) else tuple(str(name) for name in names)
    _check_term(values)
    return Term(**{**values, "low": float(values["low"]), "high": float(values["high"])})


def _check_term(values: Mapping[str, Any]) -> None:
    name, low, high = values["field"], values["low"], values["high"]
    for key, value in (("low", low), ("high", high)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
            raise RobotRLError(f"'{key}' of the term for {name} is {value!r}, but it must be a finite number.")
    for key, choices in (("distribution", ("uniform", "loguniform", "normal")), ("mode", ("scale", "add", "set"))):
        if values.get(key, choices[0]) not in choices:
            raise RobotRLError(
                f"'{key}' of the term for {name} is {values[key]!r}, but it must be one of {', '.join(choices)}."
                f"{nearest(str(values[key]), list(choices))}"
            )
    if low > high:
        raise RobotRLError(f"The range of {name} is [{low}, {high}], but low must not exceed high.")
    if values.get("distribution") == "loguniform" and low <= 0:
        raise RobotRLError(f"The range of {name} starts at {low}, but loguniform needs positive numbers.")


def _targets(model: mujoco.MjModel, term: Term) -> list[Parameter]:
    if term.names is not None:
        return [find_parameter(model, f"{term.field}/{name}") for name in term.names]
    kind = find_field(term.field)
    owners = [name for i, name in enumerate(object_names(model, kind)) if kind.base(model, i) != 0]
    if not owners:
        raise RobotRLError(
            f"{term.field} is zero everywhere in this model, so there is nothing to change. "
            f"Name each {kind.objects or 'parameter'} that should get one in 'names', with mode 'add' or 'set'."
        )
    return [find_parameter(model, f"{term.field}/{name}" if name else term.field) for name in owners]


def _check_range(term: Term, targets: list[Parameter]) -> None:
    """Reject a range whose ends are impossible for some object."""
    if term.field == "geom_size" and term.mode == "add":
        raise RobotRLError("geom_size is a factor on all sizes of a geom: use mode 'scale', not 'add'.")
    for target in targets:
        check_values(target, term.apply(np.full(2, target.base), np.array([term.low, term.high])))


__all__ = ["FIELDS", "Randomiser", "Record", "Term"]
