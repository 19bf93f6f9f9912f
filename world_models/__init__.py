"""Models of environments that agents can imagine in."""

from robotrl.world_models.model import Perception, WorldModel
from robotrl.world_models.rssm import RSSM
from robotrl.world_models.sizes import SIZES, model_size

__all__ = ["RSSM", "SIZES", "Perception", "WorldModel", "model_size"]
