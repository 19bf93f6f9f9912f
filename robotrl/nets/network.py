"""From named observation groups to outputs: inputs, encoders, an optional GRU, an MLP head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from robotrl.nets.cnn import CNN
from robotrl.nets.mlp import MLP
from robotrl.nets.normaliser import Normaliser
from robotrl.types import ArraySpec, RobotRLError

VECTOR = "vector"


class ObsInputs(nn.Module):
    """Chooses observation groups and makes network inputs of them.

    Number groups are concatenated, in the order of `groups`, into one `vector` and normalised; images pass through
    as uint8 under their own names.
    """

    def __init__(
        self,
        obs: Mapping[str, ArraySpec],
        groups: Sequence[str],
        *,
        normalise: bool = True,
        named_by: str = "policy.groups",
    ) -> None:
        super().__init__()
        missing = [g for g in groups if g not in obs]
        if missing:
            raise RobotRLError(
                f"{named_by} asks for the observation groups {missing}, but the environment has {sorted(obs)}. Set "
                f"{named_by} to groups that exist."
            )
        self.groups = tuple(groups)
        self.vectors = tuple(g for g in groups if not is_image(obs[g]))
        self.images = {g: tuple(obs[g].shape) for g in groups if is_image(obs[g])}
        self.dim = sum(int(torch.Size(obs[g].shape).numel()) for g in self.vectors)
        self._ranks = {g: len(obs[g].shape) for g in self.vectors}
        self._shapes = {g: tuple(obs[g].shape) for g in self.vectors}
        self.normaliser = Normaliser(self.dim) if normalise and self.dim else None

    def vector(self, obs: Mapping[str, Tensor]) -> Tensor:
        """The number groups as one vector `[..., dim]`, not normalised."""
        if len(self.vectors) == 1 and self._ranks[self.vectors[0]] == 1:
            return obs[self.vectors[0]]
        parts = [obs[g].unsqueeze(-1) if self._ranks[g] == 0 else obs[g].flatten(-self._ranks[g]) for g in self.vectors]
        return torch.cat([p.float() for p in parts], -1)

    def groups_of(self, vector: Tensor) -> dict[str, Tensor]:
        """The inverse of `vector`: number groups `[..., *shape]`."""
        sizes = [int(torch.Size(shape).numel()) for shape in self._shapes.values()]
        parts = zip(self._shapes.items(), vector.split(sizes, -1), strict=True)
        return {g: part.reshape(*vector.shape[:-1], *shape) for (g, shape), part in parts}

    def forward(self, obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs for `Network`: `vector [..., dim]` float32, images `[..., C, H, W]` uint8."""
        inputs = {g: obs[g] for g in self.images}
        if self.dim:
            vector = self.vector(obs)
            inputs[VECTOR] = vector if self.normaliser is None else self.normaliser(vector)
        return inputs

    def joined(self, inputs: Mapping[str, Tensor], *more: Tensor) -> Tensor:
        """`[..., K]`: what was seen of the images (`CNN.see`), the vector and `more`, side by side."""
        parts = [*(inputs[g] for g in self.images), *([inputs[VECTOR]] if self.dim else []), *more]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def moments(self, obs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor] | None:
        """What the normaliser would have to merge to take `obs` in; None without a normaliser."""
        return None if self.normaliser is None else self.normaliser.moments(self.vector(obs))


class Network(nn.Module):
    """Encoders, an optional GRU and an MLP over the inputs that `ObsInputs` makes.

    Args:
        inputs: the input layout.
        out_dim: number of outputs.
        hidden: widths of the MLP.
        activation: of the MLP.
        gru_size: units of the recurrent layer; 0 for a memoryless network.
        image_features: outputs of each image encoder.
        image_channels: channels of its first convolution.
        out_gain: gain of the last layer's initialisation.
    """

    def __init__(
        self,
        inputs: ObsInputs,
        out_dim: int,
        *,
        hidden: Sequence[int],
        activation: str = "tanh",
        gru_size: int = 0,
        image_features: int = 128,
        image_channels: int = 16,
        out_gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.image_names = tuple(inputs.images)
        self.encoders = nn.ModuleList(CNN(inputs.images[g], image_features, image_channels) for g in self.image_names)
        self.seen_dims: list[int] = [encode.seen_dim for encode in self.encoders]  # type: ignore[misc]  # CNNs
        """Numbers that the convolutions make of each image."""
        self.features_dim = inputs.dim + image_features * len(self.image_names)
        self.gru = nn.GRUCell(self.features_dim, gru_size) if gru_size else None
        self.gru_size = gru_size
        self.head = MLP(gru_size or self.features_dim, hidden, out_dim, activation=activation, out_gain=out_gain)
        self.plain = not self.image_names and not gru_size and activation == "tanh"
        """Whether it is but an MLP with tanh, for which there are faster ways."""

    def seeing_parameters(self) -> list[nn.Parameter]:
        """Those of the convolutions."""
        return [p for encode in self.encoders for p in encode.convolutions.parameters()]  # type: ignore[union-attr]  # CNNs

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """What the head (or the GRU) sees, `[..., features_dim]`; images as uint8, or as `CNN.see` has made of them."""
        if not self.image_names:
            return inputs[VECTOR]
        parts = [encode(inputs[g]) for g, encode in zip(self.image_names, self.encoders, strict=True)]
        if VECTOR in inputs:
            parts.append(inputs[VECTOR])
        return torch.cat(parts, -1)

    def forward(self, inputs: Mapping[str, Tensor], hidden: Tensor) -> tuple[Tensor, Tensor]:
        """One step of `[N, ...]` inputs from `hidden [N, gru_size]`: outputs `[N, out_dim]` and the next hidden."""
        features = self.features(inputs)
        if self.gru is not None:
            features = hidden = self.gru(features, hidden)
        return self.head(features), hidden

    def pullback(
        self,
        inputs: Mapping[str, Tensor],
        dtype: torch.dtype = torch.float32,
        more: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Callable[[Tensor], None]]:
        """Outputs `[N, out_dim]` of a memoryless network, and the function that takes their gradient back.

        Args:
            inputs: as for `forward`.
            dtype: of the head's matrix products; float32 where there is another activation than relu.
            more: inputs that are not in the loss; their outputs come after those of `inputs`.

        Returns:
            Outputs, detached, and `pull(grad)`: given the gradient of a loss by those of `inputs` it overwrites the
            parameters' gradients, which `flatten_parameters` has allocated. To be called once.
        """
        if not self.image_names:
            return self.head.pullback(inputs[VECTOR], dtype, None if more is None else more[VECTOR])
        out, pull = self._pullback_by_autograd(lambda: self.head(self.features(inputs), dtype))
        if more is not None:
            with torch.no_grad():
                out = torch.cat([out, self.head(self.features(more), dtype)])
        return out, pull

    def sequence_pullback(
        self, inputs: Mapping[str, Tensor], hidden: Tensor, is_first: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], None]]:
        """Outputs `[T, N, out_dim]` of `sequence`, and the function that takes their gradient back; see `pullback`."""
        if self.image_names or self.gru is not None:
            return self._pullback_by_autograd(lambda: self.sequence(inputs, hidden, is_first)[0])
        steps = inputs[VECTOR]
        out, pull = self.head.pullback(steps.flatten(0, 1))
        return out.view(*steps.shape[:2], -1), lambda grad: pull(grad.flatten(0, 1))

    def _pullback_by_autograd(self, forward: Callable[[], Tensor]) -> tuple[Tensor, Callable[[Tensor], None]]:
        with torch.enable_grad():
            out = forward()

        def back(grad: Tensor) -> None:
            for parameter in self.parameters():
                if parameter.grad is not None:
                    parameter.grad.zero_()
            out.backward(grad)

        return out.detach(), back

    def last_features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """What the last layer of a memoryless network sees of `[B, ...]` inputs, `[B, units]`."""
        return self.head.features(self.features(inputs))

    def sequence(self, inputs: Mapping[str, Tensor], hidden: Tensor, is_first: Tensor) -> tuple[Tensor, Tensor]:
        """Time-major inputs `[T, N, ...]` from `hidden [N, gru_size]`, set to zero wherever `is_first [T, N]`.

        Returns:
            Outputs `[T, N, out_dim]` and the hidden after each step `[T, N, gru_size]`.
        """
        features = self.features(inputs)
        if self.gru is None:
            return self.head(features), hidden.new_zeros(*features.shape[:2], 0)
        hiddens = []
        for t in range(features.shape[0]):
            hidden = self.gru(features[t], hidden * ~is_first[t].unsqueeze(-1))
            hiddens.append(hidden)
        after = torch.stack(hiddens)
        return self.head(after), after


def is_image(spec: ArraySpec) -> bool:
    """Whether a group holds `[C, H, W]` uint8 pictures."""
    return spec.dtype == "uint8" and len(spec.shape) == 3
