"""`robotrl list`: what there is to choose from."""

from __future__ import annotations

from pathlib import Path

from robotrl.configs.compose import presets
from robotrl.registry import learners, nearest, policies
from robotrl.types import RobotRLError

HELP = """robotrl list [envs | learners | policies | presets | runs [folder]]

Without a word: everything but runs. `runs` reads the folder `runs`, or the one that is named.
"""
EXAMPLE = "robotrl list envs"


def run(argv: list[str]) -> int:
    """Print one list, or all but the runs."""
    kinds = ["envs", "learners", "policies", "presets", "runs"]
    words = [word for word in argv if not word.startswith("-")]
    if len(words) != len(argv) or len(words) > 2:
        raise RobotRLError(f"robotrl list takes one of {', '.join(kinds)}, as in: {EXAMPLE}")
    kind = words[0] if words else None
    if kind is not None and kind not in kinds:
        raise RobotRLError(f"Unknown list '{kind}'.{nearest(kind, kinds)} There are: {', '.join(kinds)}.")
    if kind == "runs":
        return _runs(Path(words[1] if len(words) > 1 else "runs"))
    for name in [kind] if kind else kinds[:-1]:
        if kind is None:
            print(f"{name}:")
        for line in _lines(name):
            print(f"  {line}" if kind is None else line)
    return 0


def _lines(kind: str) -> list[str]:
    from robotrl.envs.registry import environments

    if kind == "envs":
        return environments.names()
    if kind == "learners":
        return learners.names()
    if kind == "policies":
        return [*policies.names(), "auto (chosen by the observations)"]
    return [f"{learner}/{preset}" for learner in learners.names() for preset in presets(learner)]


def _runs(root: Path) -> int:
    from robotrl.analysis.runs import find_runs

    found = find_runs(root)
    if not found:
        print(f"There are no runs in {root.absolute()}.")
    for item in found:
        last = next(reversed(item.evaluations.values()), None)
        score = "not evaluated" if last is None else f"return {last.mean:.1f} (n = {last.n})"
        state = "finished" if item.finished else f"{item.env_steps:,} of {item.settings.get('total_env_steps', 0):,}"
        print(f"{item.path}  {item.title}  {state}  {score}")
    return 0
