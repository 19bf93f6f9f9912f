"""The configuration of the built-in policies."""

from __future__ import annotations

from dataclasses import dataclass, field

from robotrl.policies.lerobot_config import LeRobotConfig
from robotrl.policies.vla_config import VLAConfig, WAMConfig
from robotrl.types import RobotRLError

MAX_MEMBERS = 1000
"""More members than any mixture needs: what a file may ask for is bounded."""


@dataclass(slots=True)
class PlannerConfig:
    """How a `planner` chooses an action: it imagines many sequences of actions and improves on the best ones."""

    method: str = "icem"
    """`icem` (Pinneri et al. 2020): elites give the next mean and deviation; `mppi` (Williams et al. 2017): all
    candidates do, weighted by the exponential of their return."""
    horizon: int = 15
    """Actions of a sequence."""
    candidates: int = 128
    """Sequences in the first iteration."""
    shrink: float = 1.25
    """By which their number is divided from iteration to iteration."""
    iterations: int = 4
    elites: int = 12
    keep: int = 4
    """Elites that compete again in the next iteration, and shifted by a step in the next decision."""
    init_std: float = 0.5
    """Deviation that each decision begins with, in units where the action range is [-1, 1]."""
    noise_colour: float = 2.0
    """Exponent of the noise's spectrum along a sequence; 0 is white, larger is smoother."""
    momentum: float = 0.1
    """Share of the old mean and deviation in the new ones."""
    temperature: float = 0.1
    """Of `mppi`, as a share of the spread of the returns."""

    def __post_init__(self) -> None:
        if self.method not in ("icem", "mppi"):
            raise RobotRLError(f"policy.planner.method is '{self.method}'; it must be icem or mppi.")
        for name in ("horizon", "iterations", "elites", "keep"):
            if getattr(self, name) < 1:
                raise RobotRLError(f"policy.planner.{name} is {getattr(self, name)}; it must be at least 1.")
        if not self.keep <= self.elites <= self.candidates:
            raise RobotRLError(
                f"policy.planner asks for keep={self.keep} of elites={self.elites} of candidates={self.candidates}; "
                "each must be at most the next."
            )
        if self.shrink < 1 or not self.init_std > 0 or not self.temperature > 0 or self.noise_colour < 0:
            raise RobotRLError(
                "policy.planner needs shrink of at least 1, init_std and temperature above 0, and noise_colour of at "
                "least 0."
            )
        if not 0 <= self.momentum < 1:
            raise RobotRLError(f"policy.planner.momentum is {self.momentum}; it must lie in [0, 1).")


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
    image_channels: int = 16
    """Channels of an image encoder's first convolution; the others have twice as many."""
    normalise_obs: bool = True
    """Normalise number groups by their running mean and deviation."""
    output_bias: bool = True
    """Whether the last layer learns a bias; without, a linear policy (`hidden: []`) of one-hot states is a table."""
    init_weights: list[float] | None = None
    """Of a linear policy: the weights to start from, one number an input of the first output (for discrete actions: of
    the first action), then those of the second, and so on. None: small orthogonal ones."""
    world_model: str = "size12m"
    """Size of the world model that an `rssm` policy carries, `size1m` to `size200m`."""
    members: int = 0
    """Policies that a `mixture` is made of; a learner sets it."""
    member_kind: str = "squashed"
    """The kind of a mixture's members."""
    models: int = 5
    """Members of the ensemble of models that a `planner` carries; `hidden` are their widths."""
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    """How a `planner` plans."""
    vla: VLAConfig = field(default_factory=VLAConfig)
    """What a `vla` is made of."""
    lerobot: LeRobotConfig = field(default_factory=LeRobotConfig)
    """Which of LeRobot's policies a `lerobot` is."""
    wam: WAMConfig = field(default_factory=WAMConfig)
    """What a `wam` predicts beside."""

    def __post_init__(self) -> None:
        if self.activation not in ("tanh", "relu", "elu", "silu"):
            raise RobotRLError(f"policy.activation is '{self.activation}'; it must be tanh, relu, elu or silu.")
        if not 0 <= self.members <= MAX_MEMBERS:
            raise RobotRLError(f"policy.members is {self.members}; it must lie in [0, {MAX_MEMBERS}].")
        if any(width < 1 for width in self.hidden):
            raise RobotRLError(f"policy.hidden is {self.hidden}; every width must be at least 1.")
        if not 1 <= self.models <= MAX_MEMBERS:
            raise RobotRLError(f"policy.models is {self.models}; it must lie in [1, {MAX_MEMBERS}].")
        if self.init_weights is not None and (self.hidden or self.kind not in ("auto", "mlp")):
            raise RobotRLError(
                f"policy.init_weights is for linear policies, but policy.hidden is {self.hidden} and policy.kind is "
                f"'{self.kind}'. Set policy.hidden=[], or leave init_weights out."
            )
        for name in ("gru_size", "image_features", "image_channels"):
            if getattr(self, name) < 1:
                raise RobotRLError(f"policy.{name} is {getattr(self, name)}; it must be at least 1.")
