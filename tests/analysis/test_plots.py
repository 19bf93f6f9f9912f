import numpy as np
import pytest

from robotrl.analysis.plots import evaluation_table, learning_curve, learning_curves
from robotrl.analysis.runs import load_run
from robotrl.types import RobotRLError


def test_a_curve_has_title_axes_legend_and_evaluations(write_run, tmp_path):
    figure = learning_curve(write_run("a", seed=4), path=tmp_path / "plots" / "curve.png")
    axes = figure.axes[0]
    assert axes.get_title(loc="left") == "ppo on HalfCheetah-v5, seed 4"
    assert axes.get_xlabel().startswith("env steps")
    assert axes.get_ylabel().startswith("return")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["training episodes (exploring, smoothed)", "evaluation: mean of 10 episodes, 95 % interval"]
    assert (tmp_path / "plots" / "curve.png").stat().st_size > 10_000


def test_curves_of_several_seeds_show_the_iqm_with_its_interval(write_run, tmp_path):
    groups = {
        "tuned": [write_run(f"t{s}", seed=s) for s in range(5)],
        "shared": [write_run(f"s{s}", seed=s, level=2000.0) for s in range(3)],
        "one": [write_run("one", level=500.0)],
    }
    figure = learning_curves(groups, path=tmp_path / "curves.png")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[0] == "tuned (IQM of 5 seeds, 95 % interval)"
    assert labels[2] == "one (one seed, no interval)"
    assert figure.axes[0].get_title(loc="left") == "HalfCheetah-v5"


def test_runs_evaluated_at_other_steps_meet_on_the_range_they_share(write_run):
    runs = [load_run(write_run("a", evals=4)), load_run(write_run("b", evals=5))]
    steps, table = evaluation_table(runs)
    assert steps[0] == 50_000
    assert steps[-1] == 200_000
    assert table.shape == (2, len(steps))
    np.testing.assert_allclose(table[0, -1], runs[0].evaluations[200_000].mean)


def test_nothing_to_plot_is_said(write_run):
    root = write_run("a")
    for file in (root / "eval").glob("*.json"):
        file.unlink()
    with pytest.raises(RobotRLError, match="has no evaluations yet"):
        learning_curves({"a": [root]})
    learning_curve(root)  # training returns are enough here
    (root / "metrics.jsonl").write_text("")
    with pytest.raises(RobotRLError, match="nothing to plot yet"):
        learning_curve(root)
