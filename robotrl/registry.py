"""Names to components: what `learner=ppo` or `env=HalfCheetah-v5` means.

A registry holds import strings (`"package.module:Name"`), resolved on first use, so that listing names imports nothing.
Installed packages add their own through entry points (groups `robotrl.envs`, `robotrl.policies`, `robotrl.learners`).
A name that contains a colon is itself an import string of an installed package; files are never loaded by path.
"""

from __future__ import annotations

import difflib
import importlib
import re
from importlib.metadata import entry_points
from typing import Any

from robotrl.types import RobotRLError

_IMPORT_STRING = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


class Registry:
    """Components of one kind, by name; names are case-sensitive."""

    def __init__(self, kind: str, builtin: dict[str, str]) -> None:
        self.kind = kind
        self._targets: dict[str, Any] = dict(builtin)
        self._entry_points_read = False

    def _read_entry_points(self) -> None:
        if not self._entry_points_read:
            self._entry_points_read = True
            for point in entry_points(group=f"robotrl.{self.kind}s"):
                self._targets.setdefault(point.name, point.value)

    def names(self) -> list[str]:
        """Every registered name, sorted."""
        self._read_entry_points()
        return sorted(self._targets)

    def __contains__(self, name: str) -> bool:
        self._read_entry_points()
        return name in self._targets

    def register(self, name: str, target: Any) -> None:
        """Add a component: an object, or an import string that is resolved on first use."""
        if name in self:
            raise RobotRLError(f"The {self.kind} name '{name}' is taken already. Choose another name.")
        self._targets[name] = target

    def get(self, name: str) -> Any:
        """The component of that name.

        Raises:
            RobotRLError: no such name (the nearest ones are suggested), or its package cannot be imported.
        """
        self._read_entry_points()
        target = self._targets.get(name)
        if target is None:
            if not _IMPORT_STRING.match(name):
                raise RobotRLError(self.unknown(name))
            target = name
        if isinstance(target, str):
            target = _import(target, self.kind, name)
            self._targets[name] = target
        return target

    def unknown(self, name: str) -> str:
        """The sentence for a name that is not registered."""
        return f"Unknown {self.kind} '{name}'.{nearest(name, self.names())} List all with: robotrl list {self.kind}s"


def nearest(name: str, known: list[str]) -> str:
    """` Did you mean 'x', 'y'?` for the close matches among `known`, else an empty string; case does not matter."""
    by_lower = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=3, cutoff=0.5)
    return f" Did you mean {', '.join(repr(by_lower[c]) for c in close)}?" if close else ""


def _import(target: str, kind: str, name: str) -> Any:
    module, _, attribute = target.partition(":")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise RobotRLError(
            f"The {kind} '{name}' is '{target}', which cannot be imported: {error}. Install the package it is in."
        ) from error
    try:
        return getattr(found, attribute)
    except AttributeError as error:
        raise RobotRLError(f"The {kind} '{name}' is '{target}', but {module} has no '{attribute}'.") from error


learners = Registry(
    "learner",
    {
        "ppo": "robotrl.learners.ppo:PPO",
        "sac": "robotrl.learners.sac:SAC",
        "bc": "robotrl.learners.bc:BC",
        "dac": "robotrl.learners.dac:DAC",
        "flashsac": "robotrl.learners.flashsac:FlashSAC",
        "ailboost": "robotrl.learners.ailboost:AILBoost",
        "dreamer": "robotrl.learners.dreamer:Dreamer",
        "pets": "robotrl.learners.pets:PETS",
        "mbpo": "robotrl.learners.mbpo:MBPO",
        "trpo": "robotrl.learners.trpo:TRPO",
        "npg": "robotrl.learners.trpo:NPG",
        "hnpg": "robotrl.learners.hnpg:HNPG",
        "props": "robotrl.learners.props:PROPS",
    },
)
policies = Registry(
    "policy",
    {
        "mlp": "robotrl.policies.stochastic:StochasticPolicy",
        "cnn": "robotrl.policies.stochastic:StochasticPolicy",
        "gru": "robotrl.policies.stochastic:StochasticPolicy",
        "mixture": "robotrl.policies.mixture:MixturePolicy",
        "squashed": "robotrl.policies.squashed:SquashedPolicy",
        "flash": "robotrl.policies.flash:FlashPolicy",
        "stepwise": "robotrl.policies.stepwise:StepwisePolicy",
        "random": "robotrl.policies.random:RandomPolicy",
        "expert": "robotrl.envs.experts:expert_for",
        "rssm": "robotrl.policies.rssm:RSSMPolicy",
        "planner": "robotrl.policies.planner:Planner",
        "vla": "robotrl.policies.vla:VLA",
        "lerobot": "robotrl.policies.lerobot:LeRobotPolicy",
        "wam": "robotrl.policies.wam:WAM",
    },
)
