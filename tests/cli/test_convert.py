"""A LeRobot checkpoint becomes a policy like any other, from the command line; mistakes are told in a sentence."""

import pytest

from tests.policies.lerobot_made import SIZE, make_checkpoint

pytest.importorskip("lerobot")

SEEN = (
    f"env.pixels.cameras=[front,wrist] env.pixels.replace_state=false env.pixels.height={SIZE} env.pixels.width={SIZE}"
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("act")
    make_checkpoint("act", folder)
    return folder


def test_a_checkpoint_is_converted_evaluated_and_checked(program, checkpoint):
    assert program(f"convert policy_dir={checkpoint} to=robotrl env=tabletop/reach {SEEN} out=act")[0] == 0
    status, out, _ = program("eval policy_dir=act tasks=[reach,push] episodes=2 num_envs=2 env.time_limit=5")
    assert status == 0
    assert "tabletop/reach+push: n = 4 episodes" in out
    status, out, _ = program("preflight policy_dir=act")
    assert (status, out.startswith("fits: reads state, image/front, image/wrist")) == (0, True)
    status, _, err = program("preflight policy_dir=act env.pixels.height=64")
    assert status == 2
    assert "as uint8[3, 32, 32], the env gives uint8[3, 64, 32]" in err


def test_what_is_missing_is_asked_for(program, checkpoint):
    status, _, err = program(f"eval policy_dir={checkpoint} episodes=2")
    assert status == 2
    assert (
        f"looks like a LeRobot checkpoint. Make it a RobotRL policy first: robotrl convert policy_dir={checkpoint}"
        in err
    )
    assert "In which env shall it act?" in program(f"convert policy_dir={checkpoint} to=robotrl out=x")[2]
    assert "Give policy_dir=, out= and to=lerobot" in program(f"convert policy_dir={checkpoint}")[2]
    status, _, err = program(f"convert policy_dir={checkpoint} to=robotrl env=tabletop/reach out=x")
    assert status == 2
    assert "reads the camera 'observation.images.front', the env has no pictures" in err
    assert program("convert policy_dir=nothing to=robotrl env=tabletop/reach out=x")[2].startswith(
        "robotrl convert: There is no folder"
    )
