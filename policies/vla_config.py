"""The configuration of policies that see, read and act: `vla` and `wam`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from robotrl.types import RobotRLError

MAX_CHUNK, MAX_BINS, MAX_WORDS = 1000, 4096, 100_000


@dataclass(frozen=True, slots=True)
class Size:
    """Of a transformer and of what feeds it."""

    dim: int
    layers: int
    heads: int
    channels: tuple[int, ...]
    """Of the convolutions on each camera."""
    looks: int
    """Tokens that look at each camera beside the words."""


SIZES = {
    "micro": Size(32, 2, 2, (8, 16), 2),
    "tiny": Size(96, 3, 4, (32, 64, 64), 4),
    "small": Size(256, 6, 8, (32, 64, 128), 8),
    "base": Size(768, 12, 12, (64, 128, 256), 16),
}
"""`micro` is for tests, `tiny` (0.6 million numbers with two cameras) trains on two CPU cores."""


@dataclass(slots=True)
class VLAConfig:
    """A transformer from pictures, proprioception and words to a chunk of actions."""

    head: str = "flow"
    """`flow`: flow matching of the whole chunk; `discrete`: each number of it as one of `bins`, all at once."""
    size: str = "tiny"
    """`micro`, `tiny`, `small` or `base`."""
    chunk_size: int = 12
    """Actions that one inference gives."""
    execute_steps: int = 6
    """Actions of it that are executed before the next inference."""
    flow_steps: int = 10
    """Euler steps of an inference."""
    flow_samples: int = 4
    """Noise levels at which each training example is looked at: its prefix is computed once for all."""
    forget_body: float = 0.3
    """Share of training examples whose proprioception is withheld. How the arm moves tells how it moves on, and a
    policy that learns no more than that never looks for what it is to reach."""
    dropout: float = 0.0
    """Of what each layer of the transformer adds, the share that is dropped at random while it learns from data. Bins
    learn demonstrations by heart sooner than a flow, whose noise is new each time."""
    ahead: list[int] = field(default_factory=lambda: [12, 24, 48])
    """Steps from now at which the policy, while it learns, also predicts its own proprioception (after an episode's
    end: the last one). Where the arm will be says what it is to find in the picture; actions say it step by step."""
    bins: int = 64
    spread: float = 4.0
    """Of the head `discrete`, in bins: the standard deviation of the Gaussian that is learned in place of the one right
    bin. Without it (0) neighbours are as wrong as any other bin, and demonstrations are soon known by heart."""
    temperature: float = 1.0
    """With exploration: the scale of the noise that a flow starts from, or of the logits of the bins. Without, a flow
    starts from zero and the bins' means are taken."""
    scaling: str = "quantile"
    """Units of actions: `quantile` (the 1st and 99th percentile of the data are -1 and 1) or `std`."""
    instruction: str = "instruction"
    """The observation group of word tokens; envs without it need none."""
    words: list[str] = field(default_factory=list)
    """The vocabulary, from token 2 on; empty: that of the tabletop suite."""
    delay: int = 0
    """Actions that are executed while an inference runs, for real-time chunking: the new chunk takes over after them.
    In simulation it is a counted number of steps."""
    real_time: str = "guided"
    """With a delay: `guided` pulls the new chunk towards what is left of the old one, its first `delay` actions fully;
    `vjp` does so through the network's derivative, as published, at more cost; `naive` ignores the old chunk."""
    backbone: str | None = None
    """A local folder of a Hugging Face vision model (`config.json` and safetensors) that sees in place of the
    convolutions; no code of it is run."""
    train_backbone: bool = False
    backbone_config: dict[str, Any] = field(default_factory=dict)
    """Filled in from the folder, and saved with the policy."""

    def __post_init__(self) -> None:
        for name, known in (
            ("head", ("flow", "discrete")),
            ("size", tuple(SIZES)),
            ("scaling", ("quantile", "std")),
            ("real_time", ("guided", "vjp", "naive")),
        ):
            if getattr(self, name) not in known:
                raise RobotRLError(
                    f"policy.vla.{name} is '{getattr(self, name)}'; it must be one of: {', '.join(known)}."
                )
        for name, least, most in (
            ("chunk_size", 1, MAX_CHUNK),
            ("flow_steps", 1, MAX_CHUNK),
            ("flow_samples", 1, 64),
            ("bins", 2, MAX_BINS),
        ):
            if not least <= getattr(self, name) <= most:
                raise RobotRLError(f"policy.vla.{name} is {getattr(self, name)}; it must lie in [{least}, {most}].")
        if not 0 <= self.spread <= self.bins:
            raise RobotRLError(f"policy.vla.spread is {self.spread}; it must lie in [0, policy.vla.bins={self.bins}].")
        if any(not 1 <= step <= MAX_CHUNK for step in self.ahead) or len(self.ahead) > 64:
            raise RobotRLError(
                f"policy.vla.ahead is {self.ahead}; give at most 64 numbers of steps in [1, {MAX_CHUNK}], or none."
            )
        for name in ("forget_body", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise RobotRLError(f"policy.vla.{name} is {getattr(self, name)}; it must lie in [0, 1).")
        if not self.temperature > 0:
            raise RobotRLError(f"policy.vla.temperature is {self.temperature}; it must be greater than 0.")
        if len(self.words) > MAX_WORDS:
            raise RobotRLError(f"policy.vla.words has {len(self.words)} words; at most {MAX_WORDS} are allowed.")
        self._check_clocks()

    def _check_clocks(self) -> None:
        """What is executed of a chunk, and when."""
        if not 1 <= self.execute_steps <= self.chunk_size:
            raise RobotRLError(
                f"policy.vla.execute_steps is {self.execute_steps}, but a chunk has {self.chunk_size} actions; it must "
                "be at least 1 and at most policy.vla.chunk_size."
            )
        if self.delay < 0 or self.delay > min(self.execute_steps, self.chunk_size - self.execute_steps):
            raise RobotRLError(
                f"policy.vla.delay is {self.delay}, but only {self.chunk_size - self.execute_steps} actions of a chunk "
                f"are left after execute_steps={self.execute_steps}. It must be at most that, and at most "
                "execute_steps."
            )


@dataclass(slots=True)
class WAMConfig:
    """What a `wam` predicts beside actions; the rest is its `vla`."""

    mask: str = "gigaworld"
    """`gigaworld`: the future sees the actions; `fastwam`: neither sees the other; `none`: both do."""
    camera: str | None = None
    """The group of pictures whose future is predicted; None: the policy's first."""
    future_steps: list[int] = field(default_factory=list)
    """Steps from now at which it is; empty: where the chunk ends."""
    latent_channels: int = 16
    autoencoder_steps: int = 800
    """Updates of the autoencoder before everything else."""
    future_shift: float = 2.0
    """By how much the noise levels of the future are moved towards noise."""

    def __post_init__(self) -> None:
        if self.mask not in ("gigaworld", "fastwam", "none"):
            raise RobotRLError(f"policy.wam.mask is '{self.mask}'; it must be one of: gigaworld, fastwam, none.")
        if any(not 1 <= step <= MAX_CHUNK for step in self.future_steps) or len(self.future_steps) > 64:
            raise RobotRLError(
                f"policy.wam.future_steps is {self.future_steps}; give at most 64 numbers of steps in [1, {MAX_CHUNK}]."
            )
        for name, most in (("latent_channels", 1024), ("autoencoder_steps", 1_000_000)):
            if not 1 <= getattr(self, name) <= most:
                raise RobotRLError(f"policy.wam.{name} is {getattr(self, name)}; it must lie in [1, {most}].")
        if not self.future_shift > 0:
            raise RobotRLError(f"policy.wam.future_shift is {self.future_shift}; it must be greater than 0.")


__all__ = ["SIZES", "Size", "VLAConfig", "WAMConfig"]
