"""The program `robotrl`: one verb a file, each composes a configuration, builds, and calls a runner."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence

from robotrl import __version__
from robotrl.registry import nearest
from robotrl.types import RobotRLError

VERBS = {
    "train": "train a policy, or a sweep of runs with --multirun; continue a run with resume=",
    "eval": "play a saved policy and report its score with intervals",
    "compare": "two policies on the same episodes, with the paired difference",
    "collect": "record a policy's episodes as a LeRobotDataset",
    "teleop": "move a robot by hand and record it",
    "data": "look at data sets, merge, convert and repair them",
    "preflight": "whether a policy belongs to an env and to a data set",
    "convert": "a LeRobot checkpoint as a RobotRL policy, and a RobotRL policy for LeRobot",
    "play": "watch a task of the tabletop suite being done, as a film or in a window",
    "list": "envs, tasks, learners, policies, presets, runs",
    "tune": "search hyper-parameters",
    "doctor": "check this machine and say how to mend what is missing",
}

USAGE = """usage: robotrl <verb> key=value ...

{verbs}

robotrl <verb> --help shows a verb's keys and an example. A mistake is told in one message; --debug adds the traceback.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0, 1 for a failure, 2 for a mistake in what was asked."""
    # no `list(...)` here: once its verb is imported, that name is the module robotrl.cli.list
    words = [*(sys.argv[1:] if argv is None else argv)]
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("--help", "-h", "help"):
        width = max(map(len, VERBS))
        print(USAGE.format(verbs="\n".join(f"  {verb:<{width}}  {text}" for verb, text in VERBS.items())), end="")
        return 0
    if words[0] in ("--version", "-V"):
        print(f"robotrl {__version__}")
        return 0
    verb, rest = words[0], words[1:]
    before = warnings.formatwarning
    if not debug:
        warnings.formatwarning = _one_line
    try:
        if verb not in VERBS:
            raise RobotRLError(f"Unknown verb '{verb}'.{nearest(verb, [*VERBS])} All verbs: {', '.join(VERBS)}.")
        module = importlib.import_module(f"robotrl.cli.{verb}")
        if "--help" in rest or "-h" in rest:
            print(f"{module.HELP.strip()}\n\nExample:\n  {module.EXAMPLE}")
            return 0
        status: int = module.run(rest)
        return status
    except RobotRLError as error:
        if debug:
            raise
        print(f"robotrl{f' {verb}' if verb in VERBS else ''}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if debug:
            raise
        print(f"robotrl {verb}: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `robotrl list envs | head`
        sys.stderr.close()
        return 1
    finally:
        warnings.formatwarning = before


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Our warnings are written for the user, who has no use for a line of our source."""
    return f"robotrl: {message}\n" if category is UserWarning else f"{category.__name__}: {message}\n"
