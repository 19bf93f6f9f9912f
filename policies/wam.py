"""A world-action policy: the chunk of actions, and what the camera will see after them, in one sequence.

Source: GigaWorld-Policy (arXiv:2603.17240 and 2607.13960), the action-centred design. The sequence is `[state |
reference image | action | future]`, state and image being the prefix of a `vla`; flow matching makes actions and
future, each at a noise level of its own. The mask says who may see whom besides the prefix and itself:

| mask | action sees | future sees | |
| --- | --- | --- | --- |
| `gigaworld` | | action | the future follows from the (noisy) actions; actions alone cost nothing more |
| `fastwam` | | | the future only shapes what the prefix tells (FastWAM) |
| `none` | future | action | both are one block, so actions cannot be had without imagining the future as well |

The future is made of latents of a small autoencoder, which is trained on the demonstrations' pictures when the policy
is fitted, and frozen. Each of its tokens is given the present latent at its place beside its noise: what stays is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from robotrl.functional.flow import euler_step, flow_times, noised, shifted, step_times, velocity
from robotrl.nets.autoencoder import Autoencoder, patches, unpatched
from robotrl.nets.transformer import Seen, sinusoid
from robotrl.policies.chunks import Error
from robotrl.policies.config import PolicyConfig
from robotrl.policies.vla import VLA
from robotrl.policies.vla_config import SIZES
from robotrl.types import Batch, EnvSpec, Extras, Obs, RobotRLError

PATCH = 2
"""Rows and columns of latents in a token."""


class WAM(VLA):
    """See the module's docstring. Acts as a `vla` with the head `flow`; `imagine` shows the future as well."""

    def __init__(self, config: PolicyConfig, spec: EnvSpec) -> None:
        if config.vla.head != "flow":
            raise RobotRLError("policy=wam makes actions by a flow. Leave policy.vla.head=flow, or use policy=vla.")
        super().__init__(config, spec)
        self.wam, dim = config.wam, self.trunk.dim
        self.camera = self.wam.camera or (self.cameras[0] if self.cameras else "")
        if self.camera not in self.cameras:
            raise RobotRLError(
                f"policy=wam predicts what '{self.camera or 'a camera'}' will see, but the policy reads "
                f"{self.cameras or 'no pictures'}. Set policy.wam.camera, or add pictures with "
                "env.pixels.cameras=[front] env.pixels.replace_state=false."
            )
        self.future_steps = tuple(self.wam.future_steps or [self.chunk_size])
        width = min(SIZES[config.vla.size].channels[0], 32)
        self.autoencoder = Autoencoder(spec.obs[self.camera].shape, self.wam.latent_channels, width)
        rows, columns = self.autoencoder.grid
        if rows % PATCH or columns % PATCH:
            raise RobotRLError(
                f"policy=wam needs pictures whose sides are multiples of 16 by powers of two, but '{self.camera}' "
                f"gives {spec.obs[self.camera].shape[1:]}. Use env.pixels.height=64 env.pixels.width=64."
            )
        self.places = (rows // PATCH) * (columns // PATCH)
        latent = self.wam.latent_channels * PATCH * PATCH
        self.losses = (*self.losses, "future")
        self.future_in, self.future_time = nn.Linear(2 * latent, dim), nn.Linear(dim, dim)
        self.future_mix = nn.Sequential(nn.GELU(), nn.Linear(dim, dim))
        self.future_place = nn.Parameter(torch.randn(len(self.future_steps), self.places, dim) * 0.2)
        self.future_head = nn.Linear(dim, latent)

    @property
    def windows(self) -> Mapping[str, Sequence[int]]:
        """Those of a `vla`, and the pictures to come."""
        return {**super().windows, f"obs/{self.camera}": (0, *self.future_steps)}

    @property
    def fit_windows(self) -> Mapping[str, Sequence[int]]:
        """Those of a `vla`, and pictures for the autoencoder."""
        return {**super().fit_windows, f"obs/{self.camera}": (0,)}

    def fit(self, rows: Batch) -> None:
        """Units, words, and the autoencoder, which a policy that was fitted before keeps."""
        fresh = not bool(self.fitted)
        super().fit(rows)
        if fresh:
            self.autoencoder.fit(rows[f"obs/{self.camera}"][0], self.wam.autoencoder_steps)

    def _errors(self, obs: Obs, rows: Batch) -> dict[str, Error]:
        """Squared errors of both velocities: of actions `[h, B]`, of the future `[K, B]`."""
        target = self.scaling(self._flat(rows["action"])).transpose(0, 1)
        pictures, valid = rows[f"obs/{self.camera}"], rows[f"valid/obs/{self.camera}"][1:]
        latents = self.tokens_of_pictures(pictures.transpose(0, 1))
        now, future = latents[:, :1], latents[:, 1:]
        named: list[Tensor] = []
        seen, many = self.prefix(obs, forgetful=True, named=named), self.vla.flow_samples
        data = target.repeat_interleave(many, 0)
        noise, time = torch.randn_like(data), flow_times((len(data),), device=data.device)
        # the future is looked at once; only where actions see it does every noise level of theirs need one
        times = many if self.wam.mask == "none" else 1
        future, now = future.repeat_interleave(times, 0), now.repeat_interleave(times, 0)
        noise_f = torch.randn_like(future)
        time_f = shifted(flow_times((len(future),), power=1.0, device=data.device), self.wam.future_shift)
        flow, flow_f = self.flows(
            seen, noised(data, noise, time), time, noised(future, noise_f, time_f), time_f, now, many
        )
        error = (flow.float() - velocity(data, noise)).square().mean(-1).view(len(target), many, -1).mean(1)
        error_f = (flow_f.float() - velocity(future, noise_f)).square().mean((-1, -2))
        error_f = error_f.view(len(target), times, -1).mean(1)
        return {
            "flow": Error(error.transpose(0, 1), rows["valid/action"]),
            "future": Error(error_f.transpose(0, 1), valid),
            **self.ahead_errors(seen, named, rows),
        }

    def flows(
        self, seen: Seen, x: Tensor, time: Tensor, z: Tensor, time_f: Tensor, now: Tensor, many: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Velocities of actions and of the future, who sees whom being the mask's business.

        Args:
            seen: the prefix of `B` observations.
            x: noisy actions `[B * many, h, A]`.
            time: their noise levels `[B * many]`.
            z: noisy future `[B, K, places, D]`, or `[B * many, ...]` under the mask `none`.
            time_f: its noise levels.
            now: the present latents `[..., 1, places, D]`.
            many: noise levels of actions an observation.
        """
        tokens = self.action_tokens(x, self.when(time))
        return self._flows(seen, tokens, self.future_tokens(z, self.when_future(time_f), now), many)

    def _flows(self, seen: Seen, tokens: Tensor, ahead: Tensor, many: int = 1) -> tuple[Tensor, Tensor]:
        """As `flows`, from the tokens of actions and of the future."""
        if self.wam.mask == "none":
            out, _ = self.trunk(torch.cat([tokens, ahead], 1), [seen.repeat(many)])
            out, out_f = out.split([tokens.shape[1], ahead.shape[1]], 1)
        else:
            out, acted = self.trunk(tokens, [seen.repeat(many)])
            blocks = [seen, acted.first_of(many)] if self.wam.mask == "gigaworld" else [seen]
            out_f, _ = self.trunk(ahead, blocks)
        return self.head(out), self.future_head(out_f).unflatten(1, (-1, self.places))

    def when_future(self, time: Tensor) -> Tensor:
        """What tokens of the future are told of `time [B]`: `[B, 1, dim]`."""
        return self.future_time(sinusoid(time, self.trunk.dim)).unsqueeze(1)

    def future_tokens(self, z: Tensor, when: Tensor, now: Tensor) -> Tensor:
        """Tokens `[B, K * places, dim]` of a noisy future `z [B, K, places, D]`."""
        tokens = self.future_in(torch.cat([z, now.expand_as(z)], -1))
        return (self.future_mix(tokens + when.unsqueeze(1)) + self.future_place).flatten(1, 2)

    def tokens_of_pictures(self, pictures: Tensor) -> Tensor:
        """Latents `[B, K, places, D]` of uint8 pictures `[B, K, C, H, W]`, without a gradient."""
        with torch.no_grad(), torch.autocast(pictures.device.type, enabled=False):
            latents = self.autoencoder.encode(pictures.flatten(0, 1))
            return patches(latents, PATCH).unflatten(0, tuple(pictures.shape[:2]))

    def pictures_of_tokens(self, tokens: Tensor) -> Tensor:
        """The inverse: uint8 pictures `[B, K, C, H, W]`."""
        latents = unpatched(tokens.flatten(0, 1), self.autoencoder.grid, PATCH)
        return self.autoencoder.decode(latents).unflatten(0, tuple(tokens.shape[:2]))

    def infer(self, obs: Obs, previous: Tensor | None, *, explore: bool) -> tuple[Tensor, Extras]:
        """See `ChunkPolicy.infer`: actions alone, unless the mask ties them to the future."""
        if self.wam.mask == "none":
            return self.imagine(obs, explore=explore)[0], {}
        return super().infer(obs, previous, explore=explore)

    @torch.no_grad()
    def imagine(self, obs: Obs, *, explore: bool = False) -> tuple[Tensor, Tensor]:
        """A chunk `[B, h, A]` in env units and the latents `[B, K, places, D]` of what the camera will see.

        `pictures_of_tokens` shows them. Under `gigaworld` and `fastwam` the chunk is bit for bit that of `infer`: the
        same computations are made, and the future's beside them.
        """
        seen = self.prefix(obs)
        rows, steps = len(seen.keys[0]), self.vla.flow_steps
        x = self.steps.new_zeros(rows, self.chunk_size, self.dim)
        now = self.tokens_of_pictures(obs[self.camera].unsqueeze(1))
        if explore:
            x = torch.randn_like(x) * self.vla.temperature
        z = torch.randn(rows, len(self.future_steps), *now.shape[2:], device=x.device) * float(explore)
        times = step_times(steps, x.device)
        times_f = shifted(times, self.wam.future_shift)
        lengths = times_f - shifted(times - 1.0 / steps, self.wam.future_shift)
        whens, whens_f = self.when(times), self.when_future(times_f)
        for when, when_f, length in zip(whens, whens_f, lengths, strict=True):
            flow, flow_f = self._flows(seen, self.action_tokens(x, when), self.future_tokens(z, when_f, now))
            x = euler_step(x, flow.float(), steps)
            z = z - flow_f.float() * length
        return self.scaling.inverse(x), z


__all__ = ["WAM"]
