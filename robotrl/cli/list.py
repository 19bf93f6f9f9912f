"""`robotrl list`: what there is to choose from."""

from __future__ import annotations

from pathlib import Path

from robotrl.configs.compose import presets
from robotrl.registry import learners, nearest, policies
from robotrl.types import RobotRLError

HELP = """robotrl list [envs | tasks | learners | policies | presets | runs [folder]]

Without a word: everything but runs. `runs` reads the folder `runs`, or the one that is named.
"""
EXAMPLE = "robotrl list envs"
SPAN = "[{:.1f}, {:.1f}]"


def run(argv: list[str]) -> int:
    """Print one list, or all but the runs."""
    kinds = ["envs", "tasks", "learners", "policies", "presets", "runs"]
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
    if kind == "tasks":
        return _tasks()
    if kind == "learners":
        return learners.names()
    if kind == "policies":
        return [*policies.names(), "auto (chosen by the observations)"]
    return [f"{learner}/{preset}" for learner in learners.names() for preset in presets(learner)]


def _tasks() -> list[str]:
    """The tabletop suite, a sentence each."""
    from robotrl.envs.tabletop.tasks import TASKS

    return [f"tabletop/{name:<{max(map(len, TASKS))}}  {task.sentence()}" for name, task in TASKS.items()]


def _runs(root: Path) -> int:
    from robotrl.analysis.runs import find_runs
    from robotrl.runners.eval_result import columns

    found = find_runs(root)
    if not found:
        print(f"There are no runs in {root.absolute()}.")
    rows = [("run", "what", "state", "return", "95 % interval", "episodes")]
    for item in found:
        try:
            last = next(reversed(item.evaluations.values()), None)
            goal = item.settings.get("total_env_steps", 0)
            state = "finished" if item.finished else f"{item.env_steps:,} of {goal:,} env steps"
            score = (
                ("", "", "") if last is None else (f"{last.mean:.1f}", SPAN.format(*last.mean_interval), str(last.n))
            )
            rows.append((str(item.path), item.title, state, *score))
        except RobotRLError as error:  # one damaged run hides no other
            rows.append((str(item.path), "", f"damaged: {error}", "", "", ""))
    if found:
        print(columns(rows, right=(3, 5)))
    return 0
