"""The rendering rule: images without a display, cheap, and without leaks."""

import ctypes.util
import gc
import os
import subprocess
import sys
import time

import mujoco
import numpy as np
import pytest

from robotrl.envs import rendering
from robotrl.envs.rendering import NO_GL_MESSAGE, OffscreenRenderer, camera_names, has_gl, software_gl
from robotrl.types import RobotRLError

needs_gl = pytest.mark.skipif(not has_gl(), reason=NO_GL_MESSAGE)

SCENE = """
<mujoco>
  <asset>
    <texture name="grid" type="2d" builtin="checker" rgb1=".1 .2 .3" rgb2=".9 .8 .7" width="64" height="64"/>
    <material name="grid" texture="grid" texrepeat="4 4" reflectance=".2"/>
    <hfield name="hill" nrow="8" ncol="8" size="1 1 1 .1"/>
  </asset>
  <worldbody>
    <light pos="0 0 3"/>
    <geom type="plane" size="2 2 .1" material="grid"/>
    <geom type="hfield" hfield="hill" pos="3 0 0"/>
    <body name="ball" pos="0 0 .5"><freejoint/><geom name="ball" type="sphere" size=".2" rgba="1 0 0 1"/></body>
    <camera name="side" pos="0 -3 1" xyaxes="1 0 0 0 0 1"/>
    <camera name="top" pos="0 0 4" xyaxes="1 0 0 0 1 0"/>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def scene():
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


@needs_gl
def test_an_image_is_uint8_of_the_asked_size_and_shows_the_scene(scene):
    model, data = scene
    with OffscreenRenderer(model, 48, 80) as renderer:
        image = renderer.render(data, "side")
    assert image.shape == (48, 80, 3)
    assert image.dtype == np.uint8
    assert image.max() > 100  # not black
    assert image.std() > 10  # not of one colour
    red = (image[..., 0] > 100) & (image[..., 1] < 50)
    assert 20 < red.sum() < 1000  # the ball
    assert red[: 48 // 2 + 10].sum() > red[48 // 2 + 10 :].sum()  # it is above the ground: the top row comes first


@needs_gl
def test_cameras_are_chosen_by_name_number_or_object(scene):
    model, data = scene
    with OffscreenRenderer(model, 32, 32) as renderer:
        side = renderer.render(data, "side")
        assert np.array_equal(side, renderer.render(data, 0))
        assert np.array_equal(side, renderer.render(data, "0"))
        assert np.array_equal(side, renderer.render(data))  # the first one by default
        top = renderer.render(data, "top")
        assert not np.array_equal(side, top)
        free = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(model, free)
        assert np.array_equal(renderer.render(data, -1), renderer.render(data, free))
    assert camera_names(model) == ["side", "top"]


@needs_gl
def test_an_unknown_camera_is_refused_with_the_nearest_name(scene):
    model, data = scene
    with OffscreenRenderer(model, 16, 16) as renderer:
        with pytest.raises(RobotRLError, match=r"no camera 'sid'\. Did you mean 'side'.*It has side, top"):
            renderer.render(data, "sid")
        with pytest.raises(RobotRLError, match="has 2 cameras; there is no number 2"):
            renderer.render(data, 2)


@needs_gl
def test_the_models_visual_settings_stay_as_they_were(scene):
    model, _ = scene
    before = model.vis.quality.shadowsize, model.vis.quality.offsamples, model.vis.global_.offwidth
    OffscreenRenderer(model, 16, 2000).close()
    assert (model.vis.quality.shadowsize, model.vis.quality.offsamples, model.vis.global_.offwidth) == before
    assert before[0] > 0


@needs_gl
def test_a_variant_of_the_model_is_rendered_with_its_own_sizes_and_terrain(scene):
    model, data = scene
    variant = mujoco.MjModel.from_xml_string(SCENE)
    variant.geom_size[variant.geom("ball").id] = 0.4
    variant.hfield_data[:] = np.linspace(0, 1, 64)
    with OffscreenRenderer(model, 64, 64) as renderer:
        plain, changed = renderer.render(data, "top"), renderer.render(data, "top", model=variant)
        assert not np.array_equal(plain, changed)
        assert np.array_equal(renderer.render(data, "top", model=model), plain)


@needs_gl
def test_renderers_can_be_made_and_closed_many_times_beside_a_living_one(scene):
    model, data = scene
    living = OffscreenRenderer(model, 40, 40)
    first = living.render(data)
    resident = []
    for i in range(15):
        with OffscreenRenderer(model, 40, 40) as renderer:
            assert np.array_equal(renderer.render(data), first)
        renderer = OffscreenRenderer(model, 40, 40)  # left to the garbage collector, which must not hurt the living one
        assert np.array_equal(renderer.render(data), first)
        del renderer
        if i in (4, 14):
            gc.collect()
            resident.append(_resident_mb())
    assert np.array_equal(living.render(data), first)
    living.close()
    living.close()
    with pytest.raises(RobotRLError, match="renderer is closed"):
        living.render(data)
    assert resident[1] - resident[0] < 40  # 20 contexts; one alone holds more than 2 MB


@needs_gl
def test_the_rule_is_many_times_faster_than_mujocos_default_settings(scene):
    model, data = scene
    if software_gl() == "egl" and os.path.exists("/dev/nvidia0"):
        pytest.skip("a GPU draws shadows as fast as none")
    with OffscreenRenderer(model, 64, 64) as cheap, OffscreenRenderer(model, 64, 64, shadows=True) as default:
        ours = min(_seconds(cheap, data) for _ in range(20))
        theirs = min(_seconds(default, data) for _ in range(4))
    assert theirs / ours >= 10, f"default {theirs * 1e3:.2f} ms, rule {ours * 1e3:.2f} ms"


def test_without_opengl_the_message_names_the_debian_packages(scene, monkeypatch):
    monkeypatch.setattr(rendering, "software_gl", lambda: None)
    with pytest.raises(RobotRLError, match="libegl1 libgl1 libosmesa6"):
        OffscreenRenderer(scene[0], 16, 16)


def test_a_size_that_is_not_positive_is_refused(scene):
    with pytest.raises(RobotRLError, match="0x16 pixels"):
        OffscreenRenderer(scene[0], 0, 16)


needs_osmesa = pytest.mark.skipif(
    ctypes.util.find_library("OSMesa") is None, reason="`import mujoco` itself fails then: libosmesa6 is not there"
)


@needs_gl
@pytest.mark.parametrize("wish", ["", pytest.param("osmesa", marks=needs_osmesa)])
def test_a_program_without_display_renders_and_ends_quietly_whatever_mujoco_gl_says(wish):
    program = f"""
import mujoco
from robotrl.envs.rendering import OffscreenRenderer, software_gl
model = mujoco.MjModel.from_xml_string({SCENE!r})
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
print(software_gl(), OffscreenRenderer(model, 16, 16).render(data).max() > 50)
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "PYOPENGL_PLATFORM")}
    environment["MUJOCO_GL"] = wish
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    name, good = done.stdout.split()
    assert good == "True"
    assert name in ("egl", "osmesa")
    assert done.stderr == ""


def test_an_opengl_that_is_not_there_is_forgotten_with_a_sentence():
    program = "import ctypes.util\nctypes.util.find_library = lambda name: None\nimport robotrl.envs, mujoco"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "MUJOCO_GL": "osmesa"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "MUJOCO_GL is osmesa, whose library is not on this machine" in done.stderr
    assert "apt-get install libosmesa6" in done.stderr


def _seconds(renderer, data):
    start = time.perf_counter()
    renderer.render(data)
    return time.perf_counter() - start


def _resident_mb():
    import psutil

    return psutil.Process().memory_info().rss / 1e6


@needs_gl
def test_a_process_that_rendered_in_two_backends_ends_without_a_word():
    program = (
        "import numpy as np, robotrl\n"
        "envs = [robotrl.make_vec(name, num_envs=1) for name in ('Hopper-v5', 'dmc/cartpole-swingup')]\n"
        "for env in envs:\n"
        "    env.reset()\n"
        "    env.render_rows([0], height=16, width=16)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Exception ignored" not in ended.stderr
    assert "Traceback" not in ended.stderr
