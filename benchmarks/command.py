"""What the commands of all claims share: their options, sub-processes that measure one arm, and running two at once."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import lib, provenance, targets

ROBOTRL = (sys.executable, "-m", "robotrl.cli")
"""The program `robotrl`, whether or not it is installed."""


def options(
    claim: str, description: str, argv: Sequence[str] | None = None, *, jobs: bool = False
) -> argparse.Namespace:
    """Parse `--smoke`, `--fresh`, `--again` and, where runs may go side by side, `--jobs`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{claim.replace('/', '.')}", description=description.split("\n", maxsplit=1)[0]
    )
    parser.add_argument(
        "--smoke", action="store_true", help="tiny sizes, results under benchmarks/work/smoke: does it run?"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="forget the results and runs there are; default: add what is missing"
    )
    parser.add_argument(
        "--again", action="append", default=[], metavar="ARM", help="measure the arms anew whose names start with this"
    )
    if jobs:
        parser.add_argument("--jobs", type=int, default=1, help="single-threaded runs side by side (default 1)")
    return parser.parse_args(argv)


def result(claim: str, opts: argparse.Namespace, target: targets.Target, note: str) -> lib.ResultFile:
    """The result file of `<suite>/<claim>`, emptied with `--fresh`, without the arms of `--again`; smoke is fresh."""
    path = (lib.SMOKE if opts.smoke else lib.RESULTS) / f"{claim}.json"
    if opts.fresh or opts.smoke:
        path.unlink(missing_ok=True)
        path.with_suffix(".parquet").unlink(missing_ok=True)
    file = lib.ResultFile(path, f"python -m benchmarks.{claim.replace('/', '.')}", target, note)
    for prefix in opts.again:
        file.forget(prefix)
    return file


def work(claim: str, opts: argparse.Namespace) -> Path:
    """Where this claim keeps the run directories of its arms, without those that are to be made anew.

    They are `<arm>/...`, or `<arm>-<what else tells runs apart>/...`.
    """
    path = lib.WORK / ("smoke" if opts.smoke else ".") / claim
    again = [stale for prefix in opts.again for stale in path.glob("/".join(f"{part}*" for part in prefix.split("/")))]
    for stale in [path] if opts.smoke or opts.fresh else again:
        empty(stale)
    path.mkdir(parents=True, exist_ok=True)
    return path


def empty(directory: Path) -> Path:
    """The path itself, with what an interrupted run left there removed; only under `benchmarks/work`."""
    if not directory.resolve().is_relative_to(lib.WORK.resolve()):
        raise ValueError(f"{directory} is not under {lib.WORK}")
    if directory.is_dir():
        shutil.rmtree(directory)
    else:
        directory.unlink(missing_ok=True)
    return directory


def environment(threads: int | None) -> dict[str, str]:
    """Environment variables of a measured process: BLAS and OpenMP threads (None: their own choice), module path."""
    limits = {} if threads is None else dict.fromkeys(provenance.THREAD_VARIABLES, str(threads))
    inherited = {name: text for name, text in os.environ.items() if name not in provenance.THREAD_VARIABLES}
    return inherited | limits | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(provenance.ROOT), os.environ.get("PYTHONPATH", "")])),
    }  # fmt: skip


def execute(arguments: Sequence[str], *, threads: int | None = 1, log: Path | None = None) -> str:
    """Run a command from the repository root and return its standard output.

    Args:
        arguments: the program and its arguments.
        threads: BLAS and OpenMP threads of the process; None: its own choice.
        log: standard output and error go to this file as they come; default: both are kept until the end.

    Raises:
        RuntimeError: the command failed; the message ends with the last lines it wrote.
    """
    if log is None:
        done = subprocess.run(
            list(arguments), cwd=provenance.ROOT, env=environment(threads), capture_output=True, text=True, check=False
        )
        output, errors, status = done.stdout, done.stderr, done.returncode
    else:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as file:
            status = subprocess.run(
                list(arguments), cwd=provenance.ROOT, env=environment(threads), stdout=file, stderr=subprocess.STDOUT,
                check=False,
            ).returncode  # fmt: skip
        output = errors = log.read_text(encoding="utf-8", errors="replace")
    if status != 0:
        tail = "\n".join((errors or output).splitlines()[-15:])
        raise RuntimeError(f"{' '.join(arguments)} ended with status {status}:\n{tail}")
    return output


def worker(module: str, *arguments: str, threads: int | None = 1, python: Path | None = None) -> dict[str, Any]:
    """Run `python -m <module>` in a process of its own; the last line it prints is the JSON object returned."""
    output = execute([str(python or sys.executable), "-m", module, *arguments], threads=threads)
    record: dict[str, Any] = json.loads(output.splitlines()[-1])
    return record


def side_by_side(tasks: Sequence[Callable[[], object]], jobs: int) -> None:
    """Call every task, `jobs` at once, in order; the first error is raised after the running ones ended."""
    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        futures = [pool.submit(task) for task in tasks]
        try:
            for future in futures:
                future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            raise


_STARTED = time.perf_counter()


def say(text: str) -> None:
    """One line of progress, with the minutes since the command started."""
    print(f"[{(time.perf_counter() - _STARTED) / 60:5.1f} min] {text}", flush=True)


def conclude(file: lib.ResultFile) -> int:
    """Print every condition beside what was measured; the exit status of the command."""
    raw = {name: arm.values for name, arm in file.arms.items()}
    for outcome in targets.outcomes(file.target, raw):
        measured = "missing" if outcome.measured is None else f"{outcome.measured:.3f}"
        print(f"  {outcome.text}: {measured} {'' if outcome.met is None else 'met' if outcome.met else 'MISSED'}")
    verdict = {True: "met", False: "missed", None: "undecided: values are missing"}[targets.met(file.target, raw)]
    file.refresh()
    print(f"{file.claim}: {verdict}; written to {file.path}")
    return 0
