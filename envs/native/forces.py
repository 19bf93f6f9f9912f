"""A batch that also computes contact forces, on its threads.

MuJoCo fills `cfrc_ext` (force and torque on each body from outside) only when `mj_rnePostConstraint` is called or a
sensor asks for it; `mujoco.batch.Batch` does neither and leaves it at zero. A force sensor does not help: sensors are
evaluated at a step's start, and with the Runge-Kutta integrator Gymnasium reads the forces of its last stage.
The C API that `Batch` wraps can run any function on every simulation's own `mjData` (`mjb_apply`), and
`mj_rnePostConstraint(const mjModel*, mjData*)` is such a function, so the pass runs in parallel without Python.
The same could be had from `Batch.get_data` and a loop; that copies every `mjData` in one thread.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from robotrl.types import RobotRLError

_NONE = int(mujoco.mjtStage.mjSTAGE_NONE)
_pointer, _int, _text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p

# include/mujoco/mjbatch.h: name -> (result, arguments)
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "mjb_makeBatch": (_pointer, [_pointer, _int, _pointer, _text, _int]),
    "mjb_deleteBatch": (None, [_pointer]),
    "mjb_nstate": (_int, [_pointer]),
    "mjb_nthread": (_int, [_pointer]),
    "mjb_state": (_pointer, [_pointer]),
    "mjb_stateComponent": (_pointer, [_pointer, _int, _pointer]),
    "mjb_warning": (_pointer, [_pointer]),
    "mjb_status": (_pointer, [_pointer]),
    "mjb_error": (_text, [_pointer, _int]),
    "mjb_output": (_pointer, [_pointer, _text, _pointer, _pointer]),
    "mjb_expand": (_pointer, [_pointer, _text, _pointer, _pointer]),
    "mjb_expanded": (_pointer, [_pointer, _text, _pointer, _pointer]),
    "mjb_step": (_int, [_pointer, _pointer, _int, _int, _int]),
    "mjb_forward": (_int, [_pointer, _pointer, _int, _int]),
    "mjb_reset": (_int, [_pointer, _pointer, _int, _pointer, _int]),
    "mjb_setConst": (_int, [_pointer, _pointer, _int]),
    "mjb_apply": (_int, [_pointer, _pointer, _int, _pointer, _pointer, _int]),
    "mjb_getModel": (None, [_pointer, _int, _pointer]),
    "mjb_getData": (None, [_pointer, _int, _pointer]),
}


class _Config(ctypes.Structure):  # mjBatchConfig
    _fields_ = (("nthread", ctypes.c_int), ("persistent", ctypes.c_bool))


@cache
def _library() -> ctypes.CDLL:
    """The shared library that the `mujoco` package itself runs on, with the signatures above.

    Raises:
        RobotRLError: it is not where the package keeps it, or has no batches.
    """
    folder = Path(mujoco.__file__).parent
    found = sorted(p for pattern in ("libmujoco.so*", "libmujoco*.dylib", "mujoco.dll") for p in folder.glob(pattern))
    try:
        library = ctypes.CDLL(str(found[0]))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (IndexError, OSError, AttributeError) as error:
        raise RobotRLError(
            f"MuJoCo {mujoco.__version__} in {folder} offers no batched simulation in C ({error}), which tasks with "
            "contact forces need. Install the mujoco version that RobotRL pins."
        ) from error
    return library


class _Handle:
    """What `mujoco.batch.Batch` expects of its extension object, with `contact_forces` added.

    Arrays keep the handle alive, and it frees the simulations when the last of them is gone.
    """

    persistent = True

    def __init__(self, model: mujoco.MjModel, nsim: int, nthread: int) -> None:
        self._c = _library()
        message = ctypes.create_string_buffer(1000)
        config = _Config(nthread, self.persistent)
        self._batch = self._c.mjb_makeBatch(model._address, nsim, ctypes.byref(config), message, len(message))
        if not self._batch:
            raise RobotRLError(f"MuJoCo cannot make {nsim} simulations: {message.value.decode()}.")
        self.nsim = nsim
        self.nstate: int = self._c.mjb_nstate(self._batch)
        self.nthread: int = self._c.mjb_nthread(self._batch)
        self._rne = ctypes.cast(self._c.mj_rnePostConstraint, ctypes.c_void_p)

    def __del__(self) -> None:
        if getattr(self, "_batch", None):
            self._c.mjb_deleteBatch(self._batch)

    def _array(self, address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        memory = (ctypes.c_char * (int(np.prod(shape)) * np.dtype(dtype).itemsize)).from_address(address)
        memory.owner = self
        return np.frombuffer(memory, dtype).reshape(shape)

    def state(self) -> NDArray[np.float64]:
        return self._array(self._c.mjb_state(self._batch), (self.nsim, self.nstate), np.float64)

    def warning(self) -> NDArray[np.int32]:
        shape = (self.nsim, int(mujoco.mjtWarning.mjNWARNING), 2)
        return self._array(self._c.mjb_warning(self._batch), shape, np.int32)

    def status(self) -> NDArray[np.int32]:
        return self._array(self._c.mjb_status(self._batch), (self.nsim,), np.int32)

    def error(self, sim: int) -> str:
        return str(self._c.mjb_error(self._batch, sim).decode())

    def state_component(self, component: int) -> tuple[int, int]:
        size = ctypes.c_int()
        address = self._c.mjb_stateComponent(self._batch, component, ctypes.byref(size))
        return (address - self._c.mjb_state(self._batch)) // 8, size.value

    def _field(self, function: Any, name: str) -> NDArray[np.uint8] | None:
        size, width = ctypes.c_int(), ctypes.c_int()
        address = function(self._batch, name.encode(), ctypes.byref(size), ctypes.byref(width))
        return self._array(address, (self.nsim, size.value * width.value), np.uint8) if address else None

    def output(self, name: str) -> NDArray[np.uint8] | None:
        return self._field(self._c.mjb_output, name)

    def expand(self, name: str) -> NDArray[np.uint8] | None:
        return self._field(self._c.mjb_expand, name)

    def expanded(self, name: str) -> NDArray[np.uint8] | None:
        return self._field(self._c.mjb_expanded, name)

    def step(self, ids: NDArray[np.int32] | None, nstep: int, stage: int) -> int:
        return int(self._c.mjb_step(self._batch, *_selection(ids), nstep, stage))

    def forward(self, ids: NDArray[np.int32] | None, stage: int) -> int:
        return int(self._c.mjb_forward(self._batch, *_selection(ids), stage))

    def reset(self, ids: NDArray[np.int32] | None, key: NDArray[np.int32] | None, stage: int) -> int:
        return int(self._c.mjb_reset(self._batch, *_selection(ids), None if key is None else key.ctypes.data, stage))

    def set_const(self, ids: NDArray[np.int32] | None) -> int:
        return int(self._c.mjb_setConst(self._batch, *_selection(ids)))

    def get_model(self, sim: int, model: mujoco.MjModel) -> None:
        self._c.mjb_getModel(self._batch, sim, model._address)

    def get_data(self, sim: int, data: mujoco.MjData) -> None:
        self._c.mjb_getData(self._batch, sim, data._address)

    def contact_forces(self) -> int:
        failed = self._c.mjb_apply(self._batch, None, 0, self._rne, None, 0)
        # a forward pass of no stages computes nothing and publishes the bound fields
        return int(failed + self._c.mjb_forward(self._batch, None, 0, _NONE))


def _selection(ids: NDArray[np.int32] | None) -> tuple[int | None, int]:
    return (None, 0) if ids is None else (ids.ctypes.data, len(ids))


class ForceBatch(Batch):
    """A persistent `mujoco.batch.Batch` whose `cfrc_ext` is current after `contact_forces()`.

    Everything of `Batch` but `rollout`, `jac`, `ray` and `set_models`.
    """

    def __init__(self, model: mujoco.MjModel, nsim: int, nthread: int) -> None:
        # not Batch's own: it would make the extension object, whose C handle cannot be reached from outside
        self._b = _Handle(model, nsim, nthread)
        self.model = model
        self._models = None
        self._nkey = model.nkey
        self._bound: dict[str, NDArray[Any]] = {}
        self._expanded: dict[str, NDArray[Any]] = {}
        self.state = self._b.state()
        self.warning = self._b.warning()
        self.status = self._b.status()
        self.status.flags.writeable = False
        self.forces: NDArray[np.float64] = self.bind("cfrc_ext")
        """`[N, nbody, 6]`: torque (N m), then force (N), about the subtree's centre of mass, in the world's axes."""
        self.forces.flags.writeable = True

    def contact_forces(self) -> None:
        """Compute `forces` from each simulation's last evaluation of the dynamics, as MuJoCo does when asked."""
        self._check(None, self._b.contact_forces())
