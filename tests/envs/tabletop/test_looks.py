"""What the cameras see, and what randomisation does to it and to the arm."""

import numpy as np
import pytest

from robotrl.envs import make_vec
from robotrl.envs.config import EnvConfig, PixelsConfig, build_env
from robotrl.envs.rendering import has_gl

drawing = pytest.mark.skipif(not has_gl(), reason="no OpenGL loads on this machine")


@drawing
def test_both_cameras_stand_beside_the_other_groups_and_see_the_last_state_before_a_reset():
    pixels = PixelsConfig(cameras=["front", "wrist"], replace_state=False)
    env = build_env(EnvConfig(id="tabletop/pick", pixels=pixels, time_limit=3), num_envs=2)
    obs, _ = env.reset(seed=0)
    assert list(obs) == ["state", "privileged", "instruction", "image/front", "image/wrist"]
    for _ in range(3):
        assert obs["image/front"].shape == (2, 3, 64, 64) and obs["image/front"].std() > 10
        obs, _, _, truncated, infos = env.step(np.zeros((2, 7), np.float32))
    assert truncated.all()
    assert not np.array_equal(infos["final_obs"]["image/wrist"], obs["image/wrist"])
    env.close()


@drawing
def test_blocks_have_the_colours_that_the_instruction_names():
    env = make_vec("tabletop/pick", num_envs=6)
    env.reset(seed=0)
    seen = env.render_rows(range(6), height=96, width=96, camera="front").reshape(6, -1, 3).astype(float)
    hue = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}
    for row, text in enumerate(env.instructions):
        for colour, axis in hue.items():
            if colour in text.split():
                others = [k for k in range(3) if not axis[k]]
                strength = seen[row][:, axis.index(1)] - seen[row][:, others].max(axis=1)
                assert strength.max() > 40, text
    env.close()


@drawing
@pytest.mark.parametrize("what", ["appearance", "camera"])
def test_randomised_looks_change_the_picture_and_nothing_else(what):
    plain, other = make_vec("tabletop/pick", num_envs=2), make_vec("tabletop/pick", num_envs=2, randomise=what)
    before, _ = plain.reset(seed=0)
    after, _ = other.reset(seed=0)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    a, b = (env.render_rows([0, 1], height=64, width=64, camera="front") for env in (plain, other))
    assert np.abs(a.astype(int) - b.astype(int)).mean() > 1.0
    again = make_vec("tabletop/pick", num_envs=2, randomise={"record": other.randomisation})
    again.reset(seed=0)
    assert np.array_equal(again.render_rows([0, 1], height=64, width=64, camera="front"), b)
    for env in (plain, other, again):
        env.close()


def test_turns_of_a_camera_are_put_on_top_of_each_other_and_do_not_add_up_over_episodes():
    terms = [
        {"field": f"camera_{turn}", "low": 0.1, "high": 0.1, "names": ["front"], "mode": "add"}
        for turn in ("tilt", "pan")
    ]
    env = make_vec("tabletop/pick", num_envs=2, randomise=terms)
    env.reset(seed=0)
    first = env.batch.expand("cam_quat").copy()
    env.reset()
    assert np.array_equal(env.batch.expand("cam_quat"), first)
    own = env.model.cam_quat[0]
    turn = 2 * np.arccos(np.abs(first[0, 0] @ own))
    assert turn == pytest.approx(0.1414, abs=1e-3)  # two right-angled turns of 0.1 rad
    assert np.array_equal(first[0, 1], env.model.cam_quat[1])


def test_a_servos_gain_and_damping_can_be_set_by_name():
    record = {"actuator_gain/servo3": [1000.0], "actuator_damping/servo3": [77.0]}
    env = make_vec("tabletop/pick", num_envs=1, randomise={"record": record})
    env.reset(seed=0)
    servo = env.model.actuator("servo3").id
    assert env.batch.expand("actuator_gainprm")[0, servo, 0] == 1000.0
    assert env.batch.expand("actuator_biasprm")[0, servo, 1:3].tolist() == [-1000.0, -77.0]
