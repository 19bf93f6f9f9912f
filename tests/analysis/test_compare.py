import pytest

from robotrl.analysis.compare import compare
from robotrl.runners.eval_result import EvalResult
from robotrl.types import RobotRLError


def result(returns, successes=None, seed=0, env="X-v0"):
    return EvalResult(env, seed, returns, [1] * len(returns), successes)


def test_episodes_are_paired_by_index():
    a = result([1.0, 100.0, 3.0, 50.0, 9.0], [False] * 5)
    b = result([2.0, 101.0, 4.0, 51.0], [True, False, True, True])
    comparison = compare(a, b, name_a="old", name_b="new")
    d = comparison.difference
    assert (d.n, d.mean, d.interval, d.wins) == (4, 1.0, (1.0, 1.0), 4)
    assert comparison.success.mean == 0.75
    text = str(comparison)
    assert "n = 4 pairs" in text
    assert "A  old" in text
    assert "+1.00" in text
    assert "B is better on these episodes: B won 4, lost 0, tied 0." in text
    assert "several seeds" in text


def test_a_difference_within_its_interval_is_not_called_one():
    text = str(compare(result([1.0, 2.0, 3.0]), result([2.0, 1.0, 3.5])))
    assert "no difference is established" in text


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(RobotRLError, match="A was evaluated on X-v0 and B on Y-v0"):
        compare(result([1.0]), result([1.0], env="Y-v0"))
    with pytest.raises(RobotRLError, match="seed 0 and B with seed 1"):
        compare(result([1.0]), result([1.0], seed=1))
