"""Runs, recordings and demonstrations where the policy sees stacked pictures."""

import pytest

from robotrl.envs.config import EnvConfig, build_env
from robotrl.replay.dataset import EpisodeDataset
from robotrl.runners.collecting import CollectConfig, collect_episodes
from robotrl.types import Part, RobotRLError

COLOUR = "tests.envs_for_tests:SpotColour"
STACKED = ("env=tests.envs_for_tests:SpotContinuous", "env.frame_stack=2", "env.time_limit=null")
SMALL = ("policy.image_features=8", "policy.image_channels=4")


def test_a_run_from_stacked_pictures_continues_with_the_same_bytes(tmp_path, tiny):
    words = {"learner": "sac"}
    assert tiny.start(tmp_path / "whole", *STACKED, *SMALL, "total_env_steps=384", **words) == 0
    assert tiny.start(tmp_path / "parts", *STACKED, *SMALL, "total_env_steps=384", stop_at=200, **words) == 130
    assert tiny.resume(tmp_path / "parts", STACKED[0]) == 0
    tiny.assert_same_end(tmp_path / "whole", tmp_path / "parts")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Episodes recorded without loss in an env that stacks three pictures."""
    out = tmp_path_factory.mktemp("data") / "demos"
    config = EnvConfig(COLOUR, frame_stack=3)
    said = collect_episodes(
        CollectConfig(out=str(out), env=config, policy="random", episodes=3, num_envs=1, lossless=True),
        stop=lambda: False,
    )
    assert "3 episodes" in said
    return out


def test_recorded_pictures_come_back_exactly_and_stacked_as_the_env_stacks_them(recorded):
    env = build_env(EnvConfig(COLOUR, frame_stack=3), num_envs=1, seed=0)
    data = EpisodeDataset(recorded, env=env.env_spec, groups=["image/front", "state"], hold=1 << 20)
    (batch,) = data.batches({"p": Part("online", "transition", 200)}, 1)
    batch = batch["p"]
    assert batch["obs/image/front"].shape[1:] == (9, 16, 16)
    plain = EpisodeDataset(recorded, groups=["image/front"], env=None)
    for stack, following, row in zip(
        batch["obs/image/front"], batch["next_obs/image/front"], batch["row"], strict=True
    ):
        step = int(data._fields["step"][row])
        frames = plain._frames.read({"obs/image/front": row.numpy() - [min(2, step), min(1, step), 0]})
        assert (stack.numpy() == frames["obs/image/front"].reshape(9, 16, 16)).all()
        assert (following[:6] == stack[3:]).all()
    values = batch["obs/image/front"].unique()
    assert set(values.tolist()) <= {0, 5, 10, 110, 220, 35, 245, 255}, "lossless"
    env.close()


def test_a_discriminator_of_pictures_learns_from_recorded_ones(recorded, tmp_path, tiny):
    more = (
        f"env={COLOUR}", "env.frame_stack=3", "env.time_limit=null", f"replay.demos={recorded}", "total_env_steps=256",
    )  # fmt: skip
    assert tiny.start(tmp_path / "run", *more, *SMALL, learner="dac") == 0


def test_recording_goes_on_as_it_began_with_or_without_loss(recorded):
    config = CollectConfig(out=str(recorded), env=EnvConfig(COLOUR), policy="random", episodes=4, num_envs=1)
    with pytest.raises(RobotRLError, match=r"observation.images.front is lossless there"):
        collect_episodes(config, stop=lambda: False)
