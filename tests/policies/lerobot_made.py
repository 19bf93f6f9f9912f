"""Tiny LeRobot checkpoints with random weights, made with LeRobot's own classes; nothing is downloaded."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

from pathlib import Path

import torch

SIZE = 32
STATE, ACTION = 32, 7
CAMERAS = ("front", "wrist")
SMALL = {
    "act": {
        "dim_model": 16, "n_heads": 2, "dim_feedforward": 16, "n_encoder_layers": 1, "n_vae_encoder_layers": 1,
        "chunk_size": 6, "n_action_steps": 4, "latent_dim": 4, "dropout": 0.0, "pretrained_backbone_weights": None,
    },
    "diffusion": {
        "down_dims": [16], "n_groups": 4, "horizon": 8, "n_action_steps": 4, "diffusion_step_embed_dim": 8,
        "spatial_softmax_num_keypoints": 4, "num_train_timesteps": 4, "pretrained_backbone_weights": None,
        "use_group_norm": True, "kernel_size": 3, "use_separate_rgb_encoder_per_camera": False,
    },
    "smolvla": {
        "chunk_size": 6, "n_action_steps": 4, "max_state_dim": STATE, "max_action_dim": ACTION, "num_steps": 2,
        "resize_imgs_with_padding": [SIZE, SIZE], "num_vlm_layers": 2, "tokenizer_max_length": 16,
        "expert_width_multiplier": 0.5,
    },
}  # fmt: skip
"""Settings, in LeRobot's names, that make a policy of each type small."""


def make_vlm(folder: Path) -> Path:
    """A folder with the configuration and processor of a SmolVLM with a few thousand weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        LlamaConfig,
        PreTrainedTokenizerFast,
        SmolVLMConfig,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )
    from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig

    words = "pick up the red green blue yellow purple orange block reach lift go to move gripper above".split()
    special = ["<pad>", "<unk>", "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "\n"]
    vocabulary = {word: i for i, word in enumerate([*special, *words])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens = {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", unk_token="<unk>", extra_special_tokens=tokens
    )
    text = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=16, pad_token_id=0,
    )  # fmt: skip
    vision = SmolVLMVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=SIZE, patch_size=8
    )
    config = SmolVLMConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), scale_factor=2, image_token_id=2, pad_token_id=0
    )
    config.save_pretrained(folder)
    SmolVLMProcessor(SmolVLMImageProcessor(), tokenizer, SmolVLMVideoProcessor()).save_pretrained(folder)
    return folder


def statistics(seed: int = 0) -> dict[str, dict[str, torch.Tensor]]:
    """Of no data set, but like those of the tabletop suite: actions within the env's bounds."""
    gen = torch.Generator().manual_seed(seed)
    high = torch.tensor([0.025] * 3 + [0.15] * 3 + [1.0])
    low = torch.cat([-high[:6], torch.zeros(1)])
    state = torch.rand(STATE, generator=gen)
    picture = {"mean": torch.full((3, 1, 1), 0.45), "std": torch.full((3, 1, 1), 0.22)}
    return {
        "observation.state": {"mean": state, "std": state + 0.5, "min": state - 1.0, "max": state + 1.0},
        "action": {"mean": (low + high) / 2, "std": (high - low) / 4, "min": low, "max": high},
        **{f"observation.images.{camera}": picture for camera in CAMERAS},
    }


def make_checkpoint(kind: str, folder: Path, *, cameras=CAMERAS, size=SIZE, action=ACTION, seed=0, **settings):
    """Write a checkpoint as LeRobot's training does; returns the policy and the processors, LeRobot's own."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors

    inputs = {"observation.state": PolicyFeature(FeatureType.STATE, (STATE,))}
    inputs |= {f"observation.images.{c}": PolicyFeature(FeatureType.VISUAL, (3, size, size)) for c in cameras}
    outputs = {"action": PolicyFeature(FeatureType.ACTION, (action,))}
    if kind == "smolvla":
        settings.setdefault("vlm_model_name", str(make_vlm(folder / "vlm")))
    config = make_policy_config(
        kind, input_features=inputs, output_features=outputs, device="cpu", push_to_hub=False, **SMALL[kind] | settings
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = get_policy_class(kind)(config).eval()
    stats = {key: {k: v[:action] if key == "action" else v for k, v in s.items()} for key, s in statistics().items()}
    pre, post = make_pre_post_processors(config, dataset_stats=stats)
    for part in (policy, pre, post):
        part.save_pretrained(folder)
    return policy, pre, post
