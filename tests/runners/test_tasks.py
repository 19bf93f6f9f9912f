"""Several tasks at once, tables by label, and sheets of episodes."""

import av
import numpy as np
import pytest
from matplotlib.image import imread

from robotrl.envs import make_vec
from robotrl.envs.config import EnvConfig
from robotrl.envs.tabletop.experts import Expert
from robotrl.functional.statistics import wilson_interval
from robotrl.runners.eval_result import EvalResult, pool
from robotrl.runners.evaluate import evaluate
from robotrl.runners.sheet import RUNNING, Stage, sheet_of_tasks, strip
from robotrl.runners.tasks import evaluate_tasks, in_task, swapped
from robotrl.types import RobotRLError
from tests.envs_for_tests import ConstantReward
from tests.learners.cases import make

SHORT = EnvConfig("tabletop/reach", time_limit=30)


def expert():
    return Expert(None, make_vec("tabletop/reach").env_spec)


def test_tasks_are_pooled_and_told_apart_and_each_is_what_it_is_alone():
    both = evaluate_tasks(expert(), SHORT, ["reach", "open_drawer"], episodes=4, num_envs=3)
    assert both.env_id == "tabletop/reach+open_drawer"
    assert both.labels["task"] == ["reach"] * 4 + ["open_drawer"] * 4
    alone = evaluate_tasks(expert(), SHORT, [], episodes=4, num_envs=4)
    assert both.returns[:4] == alone.returns
    shares = {share.name: share for share in both.by("task")}
    assert shares["reach"].count == sum(alone.successes)
    assert shares["open_drawer"].interval == wilson_interval(0, 4)
    assert "starts (seed 0, 0..3) of each" in str(both)
    assert "Wilson" in both.table("task")
    assert "paraphrase" in both.tables()


def test_labels_and_outcomes_survive_the_file_and_old_files_are_read(tmp_path):
    result = evaluate_tasks(expert(), swapped(SHORT), ["reach"], episodes=2, num_envs=2)
    again = EvalResult.load(result.save(tmp_path / "e.json"))
    assert again.labels == result.labels
    assert again.outcome("original_success").n == 2
    data = result.to_json()
    del data["labels"], data["outcomes"]
    assert EvalResult.from_json(data).labels == {}


def test_labels_belong_to_the_episode_whatever_the_number_of_envs():
    results = []
    for num_envs in (1, 3, 5):
        env = make_vec("tabletop/reach", num_envs=num_envs, max_episode_steps=4)
        results.append(evaluate(expert(), env, episodes=5).labels)
    assert results[0] == results[1] == results[2]
    assert len(set(results[0]["instruction"])) > 1


def test_what_cannot_be_asked_is_said():
    result = EvalResult("X", 0, [1.0], [1], [True], labels={"task": ["a"]})
    with pytest.raises(RobotRLError, match=r"no label 'tusk'\. Did you mean 'task'"):
        result.by("tusk")
    with pytest.raises(RobotRLError, match="knows no 'original_success'"):
        result.by("task", "original_success")
    with pytest.raises(RobotRLError, match="reports no outcome"):
        result.outcome("original_success")
    with pytest.raises(RobotRLError, match="at least one task"):
        pool([])
    with pytest.raises(RobotRLError, match="of one kind"):
        pool([result, EvalResult("X", 1, [1.0], [1], [True])])
    with pytest.raises(RobotRLError, match="no other tasks"):
        in_task(EnvConfig("Hopper-v5"), "pick")
    with pytest.raises(RobotRLError, match="names a task twice"):
        evaluate_tasks(expert(), SHORT, ["reach", "reach"])
    assert in_task(SHORT, "tabletop/press").id == "tabletop/press"


def test_a_film_sheet_shows_every_episode_to_its_end_and_whether_it_succeeded(tmp_path):
    path = sheet_of_tasks(tmp_path / "s.mp4", expert(), SHORT, ["reach", "open_drawer"], episodes=4)
    with av.open(str(path)) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert frames[0].shape == (2 * 184, 2 * 200, 3)
    assert len(frames) <= 1 + 30 + 20
    strips = [
        frames[-1][y + 150 : y + 184, x + 150 : x + 190].reshape(-1, 3).mean(0) for y in (0, 184) for x in (0, 200)
    ]
    assert [int(s.argmax()) for s in strips][2:] == [0, 0]  # red: the drawer needs another expert, and more time
    running = frames[0][150:184, 150:190].reshape(-1, 3).mean(0)
    assert np.ptp(running) < 30


def test_a_picture_sheet_has_a_row_of_moments_an_episode(tmp_path):
    path = sheet_of_tasks(tmp_path / "s.png", expert(), SHORT, episodes=2)
    assert imread(path).shape[:2] == (2 * 184, 6 * 200)
    with pytest.raises(RobotRLError, match=r"a film \(\.mp4\) or a picture"):
        sheet_of_tasks(tmp_path / "s.gif", expert(), SHORT, episodes=1)


def test_without_a_notion_of_success_a_strip_says_the_return_and_blames_nobody():
    env = ConstantReward(num_envs=2, length=3)
    stage = Stage(make("ppo", env).learner.policy, [env], seed=0, height=20, width=80)
    assert np.array_equal(stage.strip(0, 80), strip(env.env_spec.id, RUNNING, 80))
    while not stage.over:
        stage.step()
    assert stage.colours == [RUNNING] * 2
    assert np.array_equal(stage.strip(1, 80), strip(f"return 3: {env.env_spec.id}", RUNNING, 80))


def test_a_long_instruction_is_cut_to_its_strip():
    assert strip("word " * 200, RUNNING, 120).shape == (34, 120, 3)
