"""`kill -9` at any moment of a recording: what `save` has returned for is there, bit for bit."""

import multiprocessing
import random
import runpy
import time
from pathlib import Path

import numpy as np
import pytest

from robotrl.data.dataset import Dataset
from robotrl.data.repair import repair
from tests.data import made

PROGRAM = Path(__file__).parent / "programs" / "recorder.py"
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["robotrl.data.writer", "av", "pandas", "pyarrow.parquet"])


def record(root, said, together):
    given = {"ROOT": str(root), "SAID": str(said), "TOGETHER": together}
    process = FORKS.Process(target=runpy.run_path, args=(str(PROGRAM), given, "__main__"))
    process.start()
    return process


def promised(said):
    lines = said.read_text().split("\n")[:-1] if said.exists() else []
    return int(lines[-1]) if lines else 0


def check(root, count):
    """At least `count` episodes, each as it was saved."""
    dataset = Dataset(root)
    assert dataset.total_episodes >= count
    columns = dataset.read(["obs/state", "action"])
    env = made.spec("front")
    for e in dataset.episodes:
        one = made.episode(e.index % 8, env)
        for key, values in columns.items():
            if key in one.steps:
                np.testing.assert_array_equal(values[e.start : e.start + e.length], one.steps[key])
        assert e.clips["observation.images.front"].path.is_file()
    return dataset


@pytest.mark.parametrize(("together", "kills"), [(1, 3), (3, 2)])
def test_no_finished_episode_is_lost_to_kills_at_random_moments(tmp_path, together, kills):
    root, said, rng = tmp_path / "d", tmp_path / "said", random.Random(together)
    for _ in range(kills):
        before = promised(said)
        process = record(root, said, together)
        end = time.monotonic() + 30
        while promised(said) == before and process.is_alive():
            assert time.monotonic() < end
            time.sleep(0.002)
        time.sleep(rng.random() * 0.6)
        process.kill()
        process.join()
        if rng.random() < 0.5:  # else the next recorder puts things in order
            repair(root)
            check(root, promised(said))
    repair(root)
    dataset = check(root, promised(said))
    assert len({e.data for e in dataset.episodes}) < len(dataset.episodes), "small files were joined"
