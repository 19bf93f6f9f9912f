"""Global random streams continue where they were saved."""

import json
import random

import numpy as np
import torch

from robotrl.seeding import rng_state, seed_everything, set_rng_state
from robotrl.statetree import flatten, unflatten


def draw():
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.randn(3).tolist()  # noqa: NPY002


def test_the_same_seed_repeats_and_another_differs():
    seed_everything(2**40 + 1)
    first = draw()
    seed_everything(2**40 + 1)
    assert draw() == first
    seed_everything(2)
    assert draw() != first


def test_saved_streams_continue_through_a_checkpoints_format():
    seed_everything(0)
    draw()
    nodes, tensors = flatten(rng_state())
    expected = [draw() for _ in range(3)]
    seed_everything(1)
    set_rng_state(unflatten(json.loads(json.dumps(nodes)), tensors.__getitem__))
    assert [draw() for _ in range(3)] == expected
