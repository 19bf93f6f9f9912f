"""What RobotRL saves for LeRobot, LeRobot's own loader reads, and it acts the same."""

import shutil

import pytest
import torch

from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.policies.io import load_policy, save_policy
from robotrl.policies.lerobot_export import export_to_lerobot
from robotrl.policies.vla_config import VLAConfig
from robotrl.types import ActionSpec, ArraySpec, EnvSpec, RobotRLError
from tests.policies.lerobot_made import CAMERAS, make_checkpoint
from tests.policies.test_lerobot import PICK_UP_THE_RED_BLOCK, SPEC, observation, policy_of

pytest.importorskip("lerobot")


def loaded_by_lerobot(folder):
    """As LeRobot's programs do it: configuration, class by its name, weights, processors."""
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    import robotrl.policies.lerobot_plugin  # noqa: F401 - what --policy.discover_packages_path imports

    config = PreTrainedConfig.from_pretrained(folder)
    policy = get_policy_class(config.type).from_pretrained(folder)
    return policy, *make_pre_post_processors(config, pretrained_path=str(folder))


def for_lerobot(obs, groups):
    """An observation as LeRobot's robots give it: floats, names of its own, the task in words, no batch."""
    batch = {}
    for group in groups:
        if group == "instruction":
            batch["task"] = PICK_UP_THE_RED_BLOCK
        elif group.startswith("image/"):
            batch[f"observation.images.{group[6:]}"] = obs[group][0].float() / 255
        else:
            batch["observation.environment_state" if group == "privileged" else f"observation.{group}"] = obs[group][0]
    return batch


def train_a_little(policy):
    """Other weights than those that the same seed would make again."""
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return policy.eval()


CONFIGS = {
    "mlp": PolicyConfig(kind="mlp", hidden=[8], groups=["state", "privileged"]),
    "gru": PolicyConfig(kind="gru", hidden=[8], gru_size=6, groups=["state"]),
    "vla": PolicyConfig(kind="vla", vla=VLAConfig(size="micro", chunk_size=5, execute_steps=2)),
    "cnn": PolicyConfig(kind="cnn", hidden=[8], image_channels=4, image_features=8, groups=["state", "image/front"]),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_lerobots_loader_gives_the_same_actions_step_by_step(kind, tmp_path):
    policy = train_a_little(build_policy(CONFIGS[kind], SPEC))
    save_policy(policy, tmp_path / "ours")
    export_to_lerobot(load_policy(tmp_path / "ours"), tmp_path / "theirs")
    theirs, pre, post = loaded_by_lerobot(tmp_path / "theirs")
    state = policy.initial_state(1)
    for step in range(6):
        obs = {**observation(1, step), "privileged": torch.randn(1, 5)}
        expected, _, state = policy.act(obs, state, explore=False)
        found = post(theirs.select_action(pre(for_lerobot(obs, policy.obs_groups))))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        if step == 3:
            theirs.reset()
            state = policy.reset_state(state, torch.tensor([True]))
    chunk = theirs.predict_action_chunk(pre(for_lerobot(obs, policy.obs_groups)))
    assert chunk.shape == (1, 5 if kind == "vla" else 1, 7)


@pytest.mark.parametrize("kind", ["act", "smolvla"])
def test_a_policy_of_lerobots_goes_there_and_back_as_an_ordinary_checkpoint(kind, tmp_path):
    folder = tmp_path / "checkpoint"
    make_checkpoint(kind, folder)
    policy = train_a_little(policy_of(folder))
    export_to_lerobot(policy, tmp_path / "theirs")
    shutil.rmtree(folder)
    theirs, pre, post = loaded_by_lerobot(tmp_path / "theirs")
    assert type(theirs).__module__.startswith("lerobot.")
    obs = observation(1, 0)
    torch.manual_seed(0)
    expected = policy.act(obs, policy.initial_state(1), explore=False)[0]
    torch.manual_seed(0)
    found = post(theirs.select_action(pre(for_lerobot(obs, policy.obs_groups))))
    torch.testing.assert_close(found.clamp(expected - 1, expected + 1), expected, rtol=1e-4, atol=1e-5)
    again = policy_of(tmp_path / "theirs")
    assert again.groups == policy.groups == {
        "observation.state": "state", **{f"observation.images.{c}": f"image/{c}" for c in CAMERAS},
    }  # fmt: skip


def test_lerobots_training_gets_a_loss_of_a_chunk_policy_a_sample_or_a_mean(tmp_path):
    policy = build_policy(CONFIGS["vla"], SPEC)
    export_to_lerobot(policy, tmp_path / "theirs")
    theirs, _, _ = loaded_by_lerobot(tmp_path / "theirs")
    obs = observation(3, 0)
    batch = {f"observation.images.{c}": obs[f"image/{c}"].float() / 255 for c in CAMERAS}
    batch |= {"observation.state": obs["state"], "task": [PICK_UP_THE_RED_BLOCK] * 3}
    batch |= {"action": torch.rand(3, 5, 7) * 0.01, "action_is_pad": torch.zeros(3, 5, dtype=torch.bool)}
    torch.manual_seed(0)
    each, _ = theirs.forward(batch, reduction="none")
    torch.manual_seed(0)
    mean, _ = theirs.forward(batch)
    assert each.shape == (3,)
    torch.testing.assert_close(each.mean(), mean)
    mean.backward()


def test_lerobots_command_line_finds_the_plugin():
    from lerobot.configs.parser import load_plugin
    from lerobot.configs.policies import PreTrainedConfig

    load_plugin("robotrl.policies.lerobot_plugin")
    assert "robotrl" in PreTrainedConfig.get_known_choices()


def test_what_cannot_be_exported_says_so(tmp_path):
    spec = EnvSpec("X", {"state": ArraySpec((3,))}, ActionSpec("discrete", num_actions=2))
    policy = build_policy(PolicyConfig(kind="mlp", hidden=[4]), spec)
    with pytest.raises(RobotRLError, match="discrete actions, which LeRobot's policies do not have"):
        export_to_lerobot(policy, tmp_path / "x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(RobotRLError, match="holds something already"):
        export_to_lerobot(policy, tmp_path / "full")


def test_without_lerobot_one_sentence_says_how_to_get_it(monkeypatch, tmp_path):
    import importlib

    from robotrl.policies import lerobot_parts

    def missing(name, *rest):
        raise ImportError("No module named 'lerobot'")

    monkeypatch.setattr(lerobot_parts, "_LIBRARY", [])
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(RobotRLError, match=r'pip install "robotrl\[vla\]"'):
        policy_of(tmp_path)
