"""`robotrl train --multirun`: plan a sweep, run what has not finished of it, and print a table of all of it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from robotrl.configs.compose import compose
from robotrl.runners.finish import STOPPED
from robotrl.runners.outcome import finished_env_steps
from robotrl.runners.sweep import plan, run_job, table
from robotrl.types import RobotRLError


def sweep(argv: list[str]) -> int:
    """Run what has not finished of a sweep, and print a table of all of it.

    Returns:
        0 if every run has finished, 1 if one failed, STOPPED if it was stopped.
    """
    words, parallel = _options(argv)
    root, jobs = plan(words)
    for job in jobs:  # a mistake in the last one should not cost the time of the others
        compose(list(job.words))
    root.mkdir(parents=True, exist_ok=True)
    (root / "sweep.json").write_text(json.dumps({"words": words, "runs": [job.name for job in jobs]}, indent=1) + "\n")
    todo = [job for job in jobs if not finished_env_steps(job.path)]
    print(f"sweep of {len(jobs)} runs in {root}: {len(jobs) - len(todo)} finished, {len(todo)} to do")
    stopped = False
    with ThreadPoolExecutor(parallel) as pool:
        futures = [pool.submit(run_job, job, parallel) for job in todo]
        try:
            for future in futures:
                stopped |= future.result() == STOPPED
        except KeyboardInterrupt:  # the children got it too: they save and end
            stopped = True
            for future in futures:
                future.cancel()
    print(table(jobs))
    if stopped or not all(finished_env_steps(job.path) for job in jobs):
        print("To continue: the same command again.")
    return STOPPED if stopped else int(not all(finished_env_steps(job.path) for job in jobs))


def _options(argv: list[str]) -> tuple[list[str], int]:
    words, parallel = [], 1
    rest = iter(argv)
    for word in rest:
        if word in ("--multirun", "-m"):
            continue
        if word.split("=")[0] in ("--jobs", "-j"):
            value = word.partition("=")[2] or next(rest, "")
            if not value.isdigit() or int(value) < 1:
                raise RobotRLError(f"--jobs is '{value}'; it must be a whole number of at least 1, as in --jobs 2.")
            parallel = int(value)
        else:
            words.append(word)
    return words, parallel
