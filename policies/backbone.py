"""What sees: our own convolutions, or a Hugging Face vision model from a local folder.

Of the folder only `config.json` and safetensors are read. A configuration that names code (`auto_map`, or a kind of
model that is not among those below) is refused; nothing is downloaded. Once built, the policy carries the model's
configuration and weights itself, so a saved policy does not need the folder.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robotrl.nets.tokens import Gaze, Sight
from robotrl.policies.config import PolicyConfig
from robotrl.policies.vla_config import Size, VLAConfig
from robotrl.types import RobotRLError

KINDS = ("vit", "dinov2", "deit", "siglip_vision_model", "clip_vision_model")
"""Models that give a token for each patch of a picture."""
_MAX_JSON = 1 << 20


def with_backbone(config: PolicyConfig) -> PolicyConfig:
    """The configuration with that of the backbone in place of its folder, which a saved policy is not to name.

    Raises:
        RobotRLError: the folder holds no such model, or one that brings code.
    """
    vla = config.vla
    if vla.backbone is None or vla.backbone_config:
        return config
    return replace(config, vla=replace(vla, backbone=None, backbone_config=_read(Path(vla.backbone))))


def make_sight(shape: tuple[int, ...], size: Size, vla: VLAConfig, folder: str | None) -> nn.Module:
    """What looks at one camera's pictures; the weights of a backbone are those in `folder`, or to be loaded."""
    if not vla.backbone_config:
        return Sight(shape, size.dim, size.channels, size.heads)
    return BackboneSight(shape, size, vla, folder)


class BackboneSight(nn.Module):
    """Patches of a pretrained model, at which tokens look as in `Sight`."""

    def __init__(self, shape: tuple[int, ...], size: Size, vla: VLAConfig, folder: str | None) -> None:
        super().__init__()
        if shape[0] != 3:
            raise RobotRLError(f"A backbone sees single colour pictures, but these have {shape[0]} channels.")
        self.model, self.trained = _model(vla, folder), vla.train_backbone
        settings = self.model.config
        self.side = int(settings.image_size)
        patches = self.side // int(settings.patch_size)
        self.gaze = Gaze(int(settings.hidden_size), (patches, patches), size.dim, size.heads)
        for parameter in self.model.parameters():
            parameter.requires_grad_(self.trained)

    def forward(self, pictures: Tensor, asked: Tensor, watch: list[Tensor] | None = None) -> Tensor:
        """As `Sight.forward`."""
        if pictures.shape[-2:] != (self.side, self.side):
            pictures = nn.functional.interpolate(pictures, (self.side, self.side), mode="bilinear", align_corners=False)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trained):
            tokens = self.model(pixel_values=pictures).last_hidden_state
        count = self.gaze.grid[0] * self.gaze.grid[1]
        found: Tensor = self.gaze(tokens[:, -count:], asked, watch)  # before the patches stand class tokens
        return found


def _read(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file() or file.stat().st_size > _MAX_JSON:
        raise RobotRLError(
            f"policy.vla.backbone is {folder}, but there is no model: no config.json of at most 1 MB. Give the local "
            "folder of a Hugging Face vision model."
        )
    try:
        data = json.loads(file.read_bytes())
    except ValueError as error:
        raise RobotRLError(f"{file} is not JSON: {error}. Download the model again.") from error
    if not isinstance(data, dict) or "auto_map" in data:
        raise RobotRLError(
            f"{file} names code of its own (auto_map), which RobotRL does not run. Use a model of one of the kinds "
            f"{', '.join(KINDS)}."
        )
    if data.get("model_type") not in KINDS:
        raise RobotRLError(
            f"{file} is of the kind '{data.get('model_type')}', but a backbone must be one of: {', '.join(KINDS)}."
        )
    if not list(folder.glob("*.safetensors")):
        raise RobotRLError(
            f"{folder} holds no safetensors. Weights in other formats can run code when they are read; convert them."
        )
    return data


def _model(vla: VLAConfig, folder: str | None) -> Any:
    """The model, with the weights in `folder`; None: with random ones, in place of which saved ones will be put."""
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError as error:
        raise RobotRLError(
            'A backbone needs the package transformers. Install it with: pip install "robotrl[vla]"'
        ) from error
    data = dict(vla.backbone_config)
    kind = data.pop("model_type", None)
    if kind not in KINDS or "auto_map" in data:
        raise RobotRLError(f"A backbone of the kind '{kind}' is not one of: {', '.join(KINDS)}.")
    settings = AutoConfig.for_model(kind, **data)
    if folder is None:
        return AutoModel.from_config(settings, trust_remote_code=False)
    return AutoModel.from_pretrained(
        folder, config=settings, local_files_only=True, trust_remote_code=False, use_safetensors=True
    )


__all__ = ["KINDS", "BackboneSight", "make_sight", "with_backbone"]
