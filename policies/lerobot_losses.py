"""LeRobot's losses with one value a sample, which is what weighting samples takes.

SmolVLA, pi0 and pi0.5 give them themselves (`reduction="none"`, the hook of LeRobot's sample weighting). ACT and
Diffusion give one mean; here their losses are put together from the same parts, before the mean is taken.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robotrl.policies.chunks import Error

ACTION, IMAGES, PAD = "action", "observation.images", "action_is_pad"


def names(model: Any) -> tuple[str, ...]:
    """What `errors` of this policy are called."""
    if model.name == "act":
        return ("l1", "kl") if model.config.use_vae else ("l1",)
    return ("noise",) if model.name == "diffusion" else ("flow",)


def errors(model: Any, batch: dict[str, Any]) -> dict[str, Error]:
    """The losses of LeRobot's policy `model` on a batch in its own form, normalised, without their means.

    Args:
        model: in training mode.
        batch: features by LeRobot's names, `action [B, T, A]`, `action_is_pad [B, T]`.
    """
    if model.name == "act":
        return _act(model, batch)
    if model.name == "diffusion":
        return _diffusion(model, batch)
    per_sample, _ = model.forward(batch, reduction="none")
    return {"flow": _whole(per_sample)}


def _act(model: Any, batch: dict[str, Any]) -> dict[str, Error]:
    """Absolute error of the actions, and `kl_weight` times the divergence of the latent (Zhao et al. 2023)."""
    config = model.config
    if config.image_features:
        batch = {**batch, IMAGES: [batch[key] for key in config.image_features]}
    found, (mean, log_variance) = model.model(batch)
    error = {"l1": Error((batch[ACTION] - found).abs().mean(-1).transpose(0, 1), ~batch[PAD].transpose(0, 1))}
    if config.use_vae:
        divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(-1)
        error["kl"] = _whole(config.kl_weight * divergence)
    return error


def _diffusion(model: Any, batch: dict[str, Any]) -> dict[str, Error]:
    """Squared error of the noise (or of the sample) at a random level (Chi et al. 2023)."""
    config, net = model.config, model.diffusion
    if config.image_features:
        batch = {**batch, IMAGES: torch.stack([batch[key] for key in config.image_features], dim=-4)}
    seen = net._prepare_global_conditioning(batch)
    actions: Tensor = batch[ACTION]
    noise = torch.randn(actions.shape, device=actions.device)
    levels = torch.randint(0, net.noise_scheduler.config.num_train_timesteps, (len(actions),), device=actions.device)
    found = net.unet(net.noise_scheduler.add_noise(actions, noise, levels), levels, global_cond=seen)
    target = noise if config.prediction_type == "epsilon" else actions
    error = nn.functional.mse_loss(found, target, reduction="none").mean(-1).transpose(0, 1)
    counts = (
        ~batch[PAD].transpose(0, 1) if config.do_mask_loss_for_padding else torch.ones_like(error, dtype=torch.bool)
    )
    return {"noise": Error(error, counts)}


def _whole(per_sample: Tensor) -> Error:
    """Of whole samples `[B]`."""
    return Error(per_sample.unsqueeze(0), torch.ones(1, len(per_sample), dtype=torch.bool, device=per_sample.device))


__all__ = ["errors", "names"]
