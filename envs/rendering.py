"""Off-screen MuJoCo images without a display and without the cost of MuJoCo's default settings.

In software an image costs what its shadow map and anti-aliasing cost, not what its pixels cost: 64x64 runs at 15-60
frames/s with MuJoCo's defaults and at 900 and more with `shadowsize` 0, `offsamples` 0, a buffer of the image's own
size and the SHADOW and REFLECTION flags off. That is the rendering rule; every image of RobotRL is made by it.
On a machine without a GPU both EGL and OSMesa draw in software; `software_gl` picks the one that works.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from robotrl.registry import nearest
from robotrl.types import RobotRLError

if TYPE_CHECKING:
    import mujoco

NO_GL_MESSAGE = (
    "Images cannot be rendered: neither EGL nor OSMesa loads on this machine. "
    "Install a software OpenGL (Debian, Ubuntu: apt-get install libegl1 libgl1 libosmesa6) and start again; "
    "training from states works without it."
)

_BACKENDS = ("egl", "osmesa")

# A subprocess does the probing, because a broken driver may end the process that loads it.
_PROBE = """
import importlib, sys
context = importlib.import_module("mujoco." + sys.argv[1]).GLContext(16, 16)
context.make_current()
import mujoco
mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_100)
print("works", flush=True)
import os
os._exit(0)
"""


@cache
def software_gl() -> str | None:
    """The off-screen OpenGL that works here: `egl`, `osmesa`, or None. Found once a process, by trying.

    `MUJOCO_GL` is tried first when it names one of the two. The choice is written back to `MUJOCO_GL` so that child
    processes and other libraries agree with it.
    """
    wish = os.environ.get("MUJOCO_GL", "").lower().strip()
    # PyOpenGL binds itself to one platform at its first import; after that there is no choice.
    bound = os.environ.get("PYOPENGL_PLATFORM", "").lower() if "OpenGL.platform" in sys.modules else ""
    candidates = (bound,) if bound in _BACKENDS else tuple(dict.fromkeys((wish, *_BACKENDS)))
    for name in candidates:
        if name in _BACKENDS and _probe(name):
            os.environ["MUJOCO_GL"] = name
            return name
    return None


def _probe(name: str) -> bool:
    environment = {**os.environ, "MUJOCO_GL": name, "PYOPENGL_PLATFORM": name}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, name],
            check=False,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "works" in done.stdout


def has_gl() -> bool:
    """Whether images can be rendered here."""
    return software_gl() is not None


class OffscreenRenderer:
    """Renders states of one MuJoCo model to uint8 images `[height, width, 3]`, by the rendering rule.

    A context holds driver memory: call `close`, or use it as a context manager. Use it on the thread that made it.

    Args:
        model: the compiled model; its visual settings are left as they were.
        height, width: pixels.
        shadows: draw shadows and reflections and smooth edges (MuJoCo's defaults), many times slower in software.
        max_geom: most geoms drawn in one image.

    Raises:
        RobotRLError: no OpenGL loads (the message names the Debian packages), or the size is not positive.
    """

    def __init__(
        self, model: mujoco.MjModel, height: int, width: int, *, shadows: bool = False, max_geom: int = 2000
    ) -> None:
        import mujoco

        self._gl: Any = None
        self._context: Any = None
        if height < 1 or width < 1:
            raise RobotRLError(f"An image of {height}x{width} pixels was asked for; height and width must be positive.")
        self._mujoco = mujoco
        self.model = model
        self.height, self.width = height, width
        self._gl = _gl_context(width, height)
        self._gl.make_current()
        self._context = _render_context(model, height, width, shadows=shadows)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=max_geom)
        if not shadows:
            self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._option = mujoco.MjvOption()
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._cameras: dict[int | str | None, mujoco.MjvCamera] = {}
        _live.add(self)

    def render(
        self,
        data: mujoco.MjData,
        camera: int | str | mujoco.MjvCamera | None = None,
        *,
        model: mujoco.MjModel | None = None,
    ) -> np.ndarray:
        """One image of `data`.

        Args:
            data: a state whose positions are up to date (`mj_forward` or a step has run).
            camera: a camera's name or number, -1 for the free camera, or a camera of your own. None: the model's first
                camera, the free one if it has none.
            model: a variant of the renderer's model with the same meshes and textures (other sizes, positions,
                colours, terrain), if `data` belongs to one.

        Returns:
            A new uint8 array `[height, width, 3]`, top row first.

        Raises:
            RobotRLError: no such camera (the model's cameras are listed), or the renderer is closed.
        """
        mujoco = self._mujoco
        if self._context is None:
            raise RobotRLError("This renderer is closed. Make a new OffscreenRenderer.")
        view = camera if isinstance(camera, mujoco.MjvCamera) else self._camera(camera)
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(model or self.model, data, self._option, None, view, everything, self._scene)
        self._gl.make_current()
        if model is not None:
            for terrain in range(model.nhfield):
                mujoco.mjr_uploadHField(model, self._context, terrain)
        mujoco.mjr_render(self._rect, self._scene, self._context)
        image = np.empty((self.height, self.width, 3), np.uint8)
        mujoco.mjr_readPixels(image, None, self._rect, self._context)
        return np.ascontiguousarray(image[::-1])  # OpenGL's first row is the lowest

    def _camera(self, camera: int | str | None) -> mujoco.MjvCamera:
        if camera not in self._cameras:
            self._cameras[camera] = find_camera(self.model, camera)
        return self._cameras[camera]

    def close(self) -> None:
        """Free the driver's memory; closing twice does nothing."""
        if self._context is not None:
            # Freed under its own context: freed under another's, OpenGL would delete that one's buffers, which have
            # the same numbers.
            self._gl.make_current()
            self._context.free()
            self._context = None
        if self._gl is not None:
            self._gl.free()
            self._gl = None

    def __enter__(self) -> OffscreenRenderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self, _finalizing: Callable[[], bool] = sys.is_finalizing) -> None:  # `sys` may be gone by then
        if not _finalizing():
            self.close()


_live: weakref.WeakSet[OffscreenRenderer] = weakref.WeakSet()


def _close_at_exit() -> None:
    """Close what is left open before the display goes: registered after its exit handlers, and so run before them.

    Again for every renderer, because other packages (dm_control) may have added a handler of theirs meanwhile.
    """
    atexit.unregister(_close_all)
    atexit.register(_close_all)


def _close_all() -> None:
    for renderer in list(_live):
        with contextlib.suppress(Exception):  # the display has gone already, and the process is about to
            renderer.close()


def _gl_context(width: int, height: int) -> Any:
    name = software_gl()
    if name is None:
        raise RobotRLError(NO_GL_MESSAGE)
    try:
        # Not mujoco.GLContext: that one was chosen by MUJOCO_GL as it stood when mujoco was first imported.
        context = importlib.import_module(f"mujoco.{name}").GLContext(width, height)
    except (ImportError, RuntimeError, AttributeError) as error:
        raise RobotRLError(f"{NO_GL_MESSAGE} ({name} said: {error})") from error
    _close_at_exit()
    return context


def _render_context(model: mujoco.MjModel, height: int, width: int, *, shadows: bool) -> mujoco.MjrContext:
    """MuJoCo's drawing context; what it reads of the model's visual settings is put back afterwards."""
    import mujoco

    quality, size = model.vis.quality, model.vis.global_
    before = (quality.shadowsize, quality.offsamples, size.offwidth, size.offheight)
    try:
        if not shadows:
            quality.shadowsize, quality.offsamples = 0, 0
        size.offwidth, size.offheight = width, height
        return mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
    finally:
        quality.shadowsize, quality.offsamples, size.offwidth, size.offheight = before


def camera_names(model: mujoco.MjModel) -> list[str]:
    """Names of the model's fixed cameras, in order; a nameless one is its number."""
    return [model.camera(i).name or str(i) for i in range(model.ncam)]


def find_camera(model: mujoco.MjModel, camera: int | str | None) -> mujoco.MjvCamera:
    """MuJoCo's camera of that name or number; None is the first one, -1 the free one.

    Raises:
        RobotRLError: the model has no such camera.
    """
    import mujoco

    if isinstance(camera, str) and camera.lstrip("-").isdigit():
        camera = int(camera)
    if isinstance(camera, str):
        names = camera_names(model)
        if camera not in names:
            has = f"It has {', '.join(names)}" if names else "It has no fixed cameras"
            raise RobotRLError(
                f"The model has no camera '{camera}'.{nearest(camera, names)} {has}; -1 is the free one."
            )
        camera = names.index(camera)
    if camera is None:
        camera = 0 if model.ncam else -1
    if not -1 <= camera < model.ncam:
        raise RobotRLError(f"The model has {model.ncam} cameras; there is no number {camera}. -1 is the free camera.")
    view = mujoco.MjvCamera()
    if camera == -1:
        mujoco.mjv_defaultFreeCamera(model, view)
    else:
        view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, camera
    return view


__all__ = ["NO_GL_MESSAGE", "OffscreenRenderer", "camera_names", "find_camera", "has_gl", "software_gl"]
