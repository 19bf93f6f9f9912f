import numpy as np
import pytest
from scipy import stats

from robotrl.functional.statistics import (
    bootstrap_interval,
    iqm,
    mean,
    paired_difference,
    stratified_bootstrap_interval,
    student_interval,
    wilson_interval,
)


def test_iqm_cuts_a_quarter_at_each_end():
    assert iqm([-1000.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1000.0]) == pytest.approx(3.5)
    assert iqm([1.0, 2.0, 6.0]) == pytest.approx(3.0)  # fewer than four: the mean
    np.testing.assert_allclose(iqm(np.arange(16.0).reshape(2, 8)), [3.5, 11.5])


def test_bootstrap_interval_of_a_mean_has_the_width_theory_gives():
    values = np.random.default_rng(0).normal(10.0, 2.0, size=400)
    low, high = bootstrap_interval(values, mean, resamples=4000)
    half = stats.norm.ppf(0.975) * values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - half, rel=0.01)
    assert high == pytest.approx(values.mean() + half, rel=0.01)


def test_bootstrap_interval_repeats_with_its_seed_and_covers_more_with_more_confidence():
    values = np.random.default_rng(1).normal(size=20)
    assert bootstrap_interval(values, iqm, seed=3) == bootstrap_interval(values, iqm, seed=3)
    narrow, wide = bootstrap_interval(values, iqm, confidence=0.5), bootstrap_interval(values, iqm, confidence=0.99)
    assert wide[0] < narrow[0] < iqm(values) < narrow[1] < wide[1]


def test_interval_of_equal_values_has_no_width_and_of_one_value_is_unknown():
    assert bootstrap_interval([3.0, 3.0, 3.0], iqm) == (3.0, 3.0)
    assert all(np.isnan(bootstrap_interval([3.0])))


def test_non_finite_and_missing_values_are_refused():
    with pytest.raises(ValueError, match="1 of 2 values are not finite"):
        bootstrap_interval([1.0, float("nan")])
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap_interval([])


def test_stratified_bootstrap_ignores_the_spread_between_groups():
    # Two tasks, a constant score each: resampling within a task never changes the pooled mean.
    assert stratified_bootstrap_interval([[0.0, 0.0], [100.0, 100.0]]) == (50.0, 50.0)
    rng = np.random.default_rng(0)
    easy, hard = 100 + rng.normal(size=50), rng.normal(size=50)
    within = np.diff(stratified_bootstrap_interval([easy, hard]))
    pooled = np.diff(bootstrap_interval(np.concatenate([easy, hard])))
    assert within < pooled / 10


def test_a_group_with_one_value_takes_part_as_a_constant():
    low, high = stratified_bootstrap_interval([[9.0], [0.0, 3.0]])
    assert (low, high) == (pytest.approx(3.0), pytest.approx(5.0))


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (5, 10, 0.23659, 0.76341), (0, 0, 0.0, 1.0)],
)
def test_wilson_interval_has_its_textbook_values(successes, n, low, high):
    assert wilson_interval(successes, n) == (pytest.approx(low, abs=1e-5), pytest.approx(high, abs=1e-5))


def test_wilson_interval_refuses_more_successes_than_trials():
    with pytest.raises(ValueError, match="3 successes of 2"):
        wilson_interval(3, 2)


def test_pairing_sees_a_small_gain_that_two_separate_intervals_hide():
    rng = np.random.default_rng(0)
    a = rng.normal(0.0, 100.0, size=50)
    b = a + 1.0 + rng.normal(0.0, 0.5, size=50)
    result = paired_difference(a, b)
    assert result.n == 50
    assert result.mean == pytest.approx(1.0, abs=0.2)
    assert 0.7 < result.interval[0] < result.mean < result.interval[1] < 1.3
    assert result.decided
    assert result.wins > 45
    assert bootstrap_interval(a)[1] > bootstrap_interval(b)[0]  # unpaired, they overlap
    mirrored = paired_difference(b, a)
    assert mirrored.mean == pytest.approx(-result.mean)
    assert (mirrored.wins, mirrored.losses) == (result.losses, result.wins)


def test_students_interval_has_its_textbook_values_and_is_unknown_from_one_value():
    assert student_interval([1.0, 3.0]) == pytest.approx((2.0 - 12.706, 2.0 + 12.706), abs=1e-3)
    assert student_interval([1.0, 2.0, 3.0], confidence=0.9) == pytest.approx((2.0 - 1.686, 2.0 + 1.686), abs=1e-3)
    assert student_interval([5.0, 5.0]) == (5.0, 5.0)
    assert all(np.isnan(student_interval([5.0])))
    with pytest.raises(ValueError, match="at least one value"):
        student_interval([])


def test_two_pairs_of_one_sign_decide_nothing_where_they_differ_as_much_as_they_gain():
    assert not paired_difference([0.0, 0.0], [1.0, 2.0]).decided
    assert paired_difference([0.0, 0.0, 0.0], [1.0, 1.1, 0.9]).decided


def test_pairs_need_samples_of_one_length():
    with pytest.raises(ValueError, match="one length, got 3 and 2"):
        paired_difference([1, 2, 3], [1, 2])
