"""Experts that do the suite's tasks from ground truth: demonstrators, teachers and stand-ins for a human helper."""

from robotrl.envs.tabletop.experts.expert import Expert, ExpertConfig
from robotrl.envs.tabletop.experts.plans import PLANS

__all__ = ["PLANS", "Expert", "ExpertConfig"]
