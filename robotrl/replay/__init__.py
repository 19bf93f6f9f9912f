"""What one update sees: stores that answer a learner's batch specification."""

from robotrl.replay.buffer import ReplayBuffer
from robotrl.replay.dataset import EpisodeDataset
from robotrl.replay.mixed import MixedReplay
from robotrl.replay.rollout import RolloutBuffer

__all__ = ["EpisodeDataset", "MixedReplay", "ReplayBuffer", "RolloutBuffer"]
