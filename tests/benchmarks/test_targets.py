"""`met` follows from the target and the raw values, and from nothing else."""

import pytest

from benchmarks import targets
from benchmarks.targets import at_least, every, ratio, value, verdict, verdict_of

VALUES = {"ours": [3.0, 1.0, 2.0], "theirs": [1.0, 1.0, 4.0], "zero": [0.0]}


@pytest.mark.parametrize(
    ("statistic", "expected"), [("median", 2.0), ("mean", 2.0), ("iqm", 2.0), ("min", 1.0), ("max", 3.0)]
)
def test_a_value_is_the_named_statistic_of_the_raw_values(statistic, expected):
    (outcome,) = targets.outcomes(value("ours", ">=", 0.0, statistic=statistic), VALUES)
    assert outcome.measured == expected


def test_a_ratio_divides_the_statistics_of_two_arms():
    (outcome,) = targets.outcomes(ratio("ours", "theirs", ">=", 2.0), VALUES)
    assert outcome.measured == 2.0  # 2 / 1, medians


@pytest.mark.parametrize(
    ("op", "bound", "expected"),
    [(">=", 2.0, True), (">", 2.0, False), ("<=", 2.0, True), ("<", 2.0, False), (">=", 2.1, False)],
)
def test_the_operator_compares_with_the_bound(op, bound, expected):
    assert targets.met(value("ours", op, bound), VALUES) is expected


def test_every_condition_must_hold():
    hold, fail = value("ours", ">=", 1.0), value("ours", ">=", 9.0)
    assert targets.met(every([hold, hold]), VALUES) is True
    assert targets.met(every([hold, fail]), VALUES) is False


def test_at_least_counts_the_conditions_that_hold():
    hold, fail = value("ours", ">=", 1.0), value("ours", ">=", 9.0)
    assert targets.met(at_least(2, [hold, fail, hold]), VALUES) is True
    assert targets.met(at_least(2, [hold, fail, fail]), VALUES) is False


@pytest.mark.parametrize(
    ("differences", "says"),
    [
        ([1.0, 2.0, 1.5, 1.2, 0.9], "supported"),
        ([-1.0, -2.0, -3.0, -2.0], "refuted"),
        ([-1.0, 2.0, 1.0, -2.0], "undecided"),
        ([1.5, 2.5, 2.0], "supported"),
        ([1.0, 3.0, 2.0], "undecided"),  # 2 +- 2.48
        ([1.0, 1.0, 1.0], "supported"),  # an interval of no width
    ],
)
def test_a_verdict_is_on_which_side_of_zero_the_interval_lies_and_any_of_them_is_met(differences, says):
    assert verdict_of(differences) == says
    (outcome,) = targets.outcomes(verdict("d", n=3), {"d": differences})
    assert outcome.measured == pytest.approx(sum(differences) / len(differences))
    assert outcome.met is True
    assert "a verdict on d" in outcome.text
    assert targets.met(verdict("d", n=9), {"d": differences}) is None


@pytest.mark.parametrize(
    "target",
    [
        value("absent", ">=", 0.0),
        value("ours", ">=", 0.0, n=4),
        ratio("ours", "absent", ">=", 0.0),
        every([value("ours", ">=", 9.0), value("absent", ">=", 0.0)]),
        at_least(1, [value("ours", ">=", 0.0), value("absent", ">=", 0.0)]),
    ],
)
def test_nothing_is_decided_while_an_arm_or_a_seed_is_missing(target):
    assert targets.met(target, VALUES) is None


@pytest.mark.parametrize(
    "target",
    [
        {"kind": "value", "of": "ours"},
        {"kind": "value", "of": "ours", "statistic": "mode", "op": ">=", "value": 1.0, "n": 1},
        {"kind": "value", "of": "ours", "statistic": "mean", "op": "==", "value": 1.0, "n": 1},
        {"kind": "most", "conditions": []},
        {"kind": "all", "conditions": []},
        {"kind": "at_least", "count": 2, "conditions": [value("ours", ">=", 1.0)]},
    ],
)
def test_a_target_of_another_form_is_refused(target):
    with pytest.raises(ValueError, match=r"target|conditions|statistics"):
        targets.met(target, VALUES)


def test_a_ratio_to_zero_is_refused():
    with pytest.raises(ValueError, match="zero"):
        targets.met(ratio("ours", "zero", ">=", 1.0), VALUES)


def test_a_value_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        targets.met(value("ours", ">=", 1.0), {"ours": [float("nan")]})
