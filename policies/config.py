"""The configuration of the built-in policies."""

from __future__ import annotations

from dataclasses import dataclass, field

from robotrl.types import RobotRLError

MAX_MEMBERS = 1000
"""More members than any mixture needs: what a file may ask for is bounded."""


@dataclass(slots=True)
class PolicyConfig:
    """What acts: a Gaussian (continuous) or categorical (discrete) policy over the chosen observation groups."""

    kind: str = "auto"
    """`mlp`, `cnn` (images, and the numbers beside them), `gru` (recurrent), or `auto`: cnn where there are images."""
    hidden: list[int] = field(default_factory=lambda: [64, 64])
    """Widths of the hidden layers; a learner's critic uses the same unless told otherwise."""
    activation: str = "tanh"
    """`tanh`, `relu`, `elu` or `silu`."""
    groups: list[str] | None = None
    """Observation groups the policy reads; None: all but `privileged`."""
    log_std_init: float = 0.0
    """Initial log standard deviation of a continuous action, in units where the action range is [-1, 1]."""
    gru_size: int = 64
    """Units of the recurrent layer of `gru`."""
    image_features: int = 128
    """Features of each image encoder."""
    normalise_obs: bool = True
    """Normalise number groups by their running mean and deviation."""
    world_model: str = "size12m"
    """Size of the world model that an `rssm` policy carries, `size1m` to `size200m`."""
    members: int = 0
    """Policies that a `mixture` is made of; a learner sets it."""
    member_kind: str = "squashed"
    """The kind of a mixture's members."""

    def __post_init__(self) -> None:
        if self.activation not in ("tanh", "relu", "elu", "silu"):
            raise RobotRLError(f"policy.activation is '{self.activation}'; it must be tanh, relu, elu or silu.")
        if not 0 <= self.members <= MAX_MEMBERS:
            raise RobotRLError(f"policy.members is {self.members}; it must lie in [0, {MAX_MEMBERS}].")
        if any(width < 1 for width in self.hidden):
            raise RobotRLError(f"policy.hidden is {self.hidden}; every width must be at least 1.")
        if self.gru_size < 1 or self.image_features < 1:
            raise RobotRLError("policy.gru_size and policy.image_features must be at least 1.")
