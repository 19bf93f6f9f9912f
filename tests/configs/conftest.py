from dataclasses import dataclass, field

import pytest

from robotrl.registry import learners
from robotrl.types import RobotRLError


@dataclass(slots=True)
class FakeConfig:
    gamma: float = 0.99
    num_epochs: int = 10
    clip: float | None = None
    flag: bool = True
    sizes: list[int] = field(default_factory=lambda: [1])

    def __post_init__(self):
        if not 0 < self.gamma <= 1:
            raise RobotRLError(f"learner.gamma is {self.gamma}; it must be in (0, 1].")


class FakeLearner:
    config_class = FakeConfig


@pytest.fixture
def fake(monkeypatch):
    """A learner named `fake`, without a YAML file: what an installed package would register."""
    learners.names()
    monkeypatch.setitem(learners._targets, "fake", FakeLearner)
    return FakeConfig
