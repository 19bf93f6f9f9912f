"""`kill -9` at any moment, and Ctrl-C: the run goes on from its newest checkpoint and ends with the same bytes.

Training runs in real processes. They are forked from a server that has imported everything, so that one starts in tens
of milliseconds and can be killed many times.
"""

import contextlib
import multiprocessing
import os
import random
import runpy
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from robotrl.registry import learners
from robotrl.runners.run import Run

PROGRAM = Path(__file__).parent / "programs" / "robotrl_program.py"
FORKS = multiprocessing.get_context("forkserver")
OURS = ["robotrl.cli.train", "robotrl.learners.ppo", "robotrl.learners.sac", "robotrl.envs.native"]
THEIRS = ["tensorboard.summary.writer.event_file_writer", "rich.progress", "pandas", "matplotlib.figure"]
FORKS.set_forkserver_preload([*OURS, *THEIRS, "torch._dynamo"])


def begin(directory: Path, words: list[str] | None = None) -> multiprocessing.process.BaseProcess:
    """`robotrl train` in a new process: a new run from `words`, or the one in `directory` again."""
    given = {"WORDS": ["train", *(words or [f"resume={directory}"])]}
    process = FORKS.Process(target=runpy.run_path, args=(str(PROGRAM), given, "__main__"))
    process.start()
    return process


def wait_for(condition: Callable[[], bool], process: multiprocessing.process.BaseProcess, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition() and process.is_alive():
        assert time.monotonic() < end, "the process does not get there"


def rows(directory: Path) -> int:
    with contextlib.suppress(OSError):
        return (directory / "metrics.jsonl").read_bytes().count(b"\n")
    return 0


def saving(directory: Path) -> bool:
    with contextlib.suppress(OSError):
        return any(name.startswith(".tmp-") for name in os.listdir(directory / "checkpoints"))
    return False


def kill(process: multiprocessing.process.BaseProcess) -> None:
    process.kill()
    process.join()


def until_done(directory: Path) -> None:
    process = begin(directory)
    process.join()
    assert process.exitcode == 0


LONGER = ("total_env_steps=1280", "checkpoint_every=64")


@pytest.mark.parametrize("learner", learners.names())
@pytest.mark.parametrize("attempt", range(3))
def test_a_run_killed_at_random_moments_ends_with_the_same_bytes(tmp_path, tiny, uninterrupted, learner, attempt):
    whole, rng = uninterrupted(*LONGER, learner=learner), random.Random(attempt)
    killed = tmp_path / "killed"
    process = begin(killed, tiny.words(killed, *LONGER, learner=learner))
    for _ in range(2):
        seen = rows(killed)
        wait_for(lambda seen=seen: rows(killed) > seen + rng.randrange(1, 5), process)
        time.sleep(rng.random() * 0.05)
        kill(process)
        process = begin(killed)
    process.join()
    assert process.exitcode == 0
    tiny.assert_same_end(whole, killed)


@pytest.mark.parametrize("learner", learners.names())
def test_a_run_killed_while_it_writes_a_checkpoint_ends_with_the_same_bytes(tmp_path, tiny, uninterrupted, learner):
    whole, killed = uninterrupted(*LONGER, learner=learner), tmp_path / "killed"
    process = begin(killed, tiny.words(killed, *LONGER, learner=learner))
    for _ in range(2):
        wait_for(lambda: saving(killed), process)
        kill(process)
        process = begin(killed)
    process.join()
    tiny.assert_same_end(whole, killed)
    assert not saving(killed), "what the killed process left was removed"


def test_a_run_killed_before_it_has_trained_starts_again(tmp_path, tiny, uninterrupted):
    whole, killed = uninterrupted(), tmp_path / "killed"
    process = begin(killed, tiny.words(killed))
    wait_for((killed / "config.yaml").exists, process)
    kill(process)
    until_done(killed)
    tiny.assert_same_end(whole, killed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_finishes_the_iteration_saves_and_can_be_resumed(tmp_path, tiny, uninterrupted, number):
    whole, stopped = uninterrupted(*LONGER), tmp_path / "stopped"
    process = begin(stopped, tiny.words(stopped, *LONGER, "checkpoint_every=0"))
    wait_for(lambda: rows(stopped) > 2, process)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 130
    assert len(list((stopped / "checkpoints").iterdir())) == 1
    assert Run.resume(stopped, argv=[]).close() is None
    until_done(stopped)
    assert tiny.weights(stopped) == tiny.weights(whole)


def test_a_second_ctrl_c_stops_at_once(tmp_path, tiny):
    """The first asks, the second interrupts whatever runs; here an iteration that would take hours."""
    words = tiny.words(tmp_path / "x", "schedule.rollout_steps=1_000_000", "total_env_steps=100_000_000")
    process = begin(tmp_path / "x", words)
    wait_for((tmp_path / "x" / "meta.json").exists, process)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.3)
    assert process.is_alive()
    os.kill(process.pid, signal.SIGINT)
    process.join(20)
    assert process.exitcode == 130
