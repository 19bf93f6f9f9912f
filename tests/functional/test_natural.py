import numpy as np
import pytest
import torch

from robotrl.functional.natural import conjugate_gradients, line_search, trust_region_step


def matrices(count, size, seed=0):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((count, size, size))
    return torch.from_numpy(root @ root.transpose(0, 2, 1) + 0.1 * np.eye(size)), torch.from_numpy(
        rng.standard_normal((count, size))
    )


def times(a):
    return lambda v: (a @ v.unsqueeze(-1)).squeeze(-1)


def test_batched_conjugate_gradients_solve_every_system():
    a, b = matrices(6, 12)
    x = conjugate_gradients(times(a), b, steps=60, tolerance=1e-24)
    np.testing.assert_allclose(
        x.numpy(), np.linalg.solve(a.numpy(), b.numpy()[..., None])[..., 0], rtol=1e-6, atol=1e-8
    )


def test_a_row_takes_the_steps_it_would_take_alone():
    a, b = matrices(4, 9)
    b[1] *= 1e-9  # solved from the start, by the tolerance
    together = conjugate_gradients(times(a), b, steps=5)
    for i in range(4):
        alone = conjugate_gradients(times(a[i]), b[i], steps=5)
        torch.testing.assert_close(together[i], alone)
    assert (together[1] == 0).all()


def test_the_step_has_the_length_that_the_divergence_allows_and_promises_what_the_gradient_says():
    a, gradient = matrices(3, 5)
    direction = torch.linalg.solve(a, -gradient)
    step, expected = trust_region_step(times(a), direction, gradient, 0.01)
    torch.testing.assert_close(0.5 * (step * times(a)(step)).sum(-1), torch.full((3,), 0.01, dtype=torch.float64))
    torch.testing.assert_close(expected, -(gradient * step).sum(-1))
    assert (expected > 0).all()


def test_no_direction_is_no_step():
    step, expected = trust_region_step(lambda v: v, torch.zeros(2, 3), torch.zeros(2, 3), 0.01)
    assert (step == 0).all() and (expected == 0).all()


def test_each_row_backtracks_by_itself_and_stays_where_nothing_helps():
    start, step = torch.zeros(4, 1), torch.ones(4, 1)
    best = torch.tensor([1.0, 0.25, -1.0, torch.nan])

    def loss(x):
        return (x.squeeze(-1) - best).square(), None

    before = loss(start)[0]
    chosen, share = line_search(loss, start, step, torch.tensor([2.0, 0.5, 1.0, 1.0]), before=before)
    assert share.tolist() == [1.0, 0.25, 0.0, 0.0]  # 0.5 would be as far from the best as 0 is
    assert chosen.squeeze(-1).tolist() == [1.0, 0.25, 0.0, 0.0]


def test_a_step_that_keeps_too_little_of_its_promise_is_not_taken():
    start, step = torch.zeros(1), torch.ones(1)
    chosen, share = line_search(
        lambda x: (-0.05 * x.sum(), None), start, step, torch.tensor(1.0), before=torch.tensor(0.0), accept_ratio=0.1
    )
    assert share == 0 and chosen == 0


def test_the_divergence_is_asked_for_where_it_is_bounded():
    start, step = torch.zeros(1), torch.ones(1)
    _, share = line_search(
        lambda x: (-x.sum(), x.square().sum()), start, step, torch.tensor(1.0), before=torch.tensor(0.0), max_kl=0.1
    )
    assert share == pytest.approx(0.25)
