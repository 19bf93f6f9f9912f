"""The same scene under another instruction, and what episodes are called."""

import numpy as np
import pytest

from robotrl.envs import make_vec
from robotrl.envs.config import EnvConfig, PixelsConfig, build_env
from robotrl.envs.tabletop.experts import Expert
from robotrl.envs.tabletop.layout import NAMES
from robotrl.envs.tabletop.tasks import TASKS
from robotrl.runners.evaluate import evaluate
from robotrl.types import RobotRLError

SWAPPED = [name for name, task in TASKS.items() if task.others]


@pytest.mark.parametrize("task", SWAPPED)
def test_the_scene_stays_and_the_instruction_names_another_object_that_is_there(task):
    plain, swapped = (make_vec(f"tabletop/{task}", num_envs=6, swap=swap) for swap in (False, True))
    plain.reset(seed=3)
    swapped.reset(seed=3)
    np.testing.assert_array_equal(plain.batch.state, swapped.batch.state)
    for row in range(6):
        same, other = plain.layout[row], swapped.layout[row]
        assert plain.instructions[row] != swapped.instructions[row]
        changed = {NAMES[k] for k in np.flatnonzero(same != other)}
        assert changed <= {"target", "reference", "mark"}
        colours = {same[k] for k, name in enumerate(NAMES) if name.endswith("/colour")}
        assert TASKS[task]().first_colour(other) != TASKS[task]().first_colour(same)
        assert len(colours) >= 2


def test_an_expert_does_what_it_is_told_and_one_who_does_not_listen_is_found_out():
    swapped = make_vec("tabletop/press", num_envs=4, swap=True)
    told = evaluate(Expert(None, swapped.env_spec), swapped, episodes=4)
    assert (sum(told.successes), told.outcome("original_success").count) == (4, 0)

    class Deaf(Expert):
        """Reads what was drawn, as a policy would that goes by the scene."""

        def act(self, obs, state, *, explore):
            return super().act({**obs, "privileged": before["privileged"](obs)}, state, explore=explore)

    from robotrl.envs.tabletop.observation import PRIVILEGED

    def drawn(obs):
        truth = obs["privileged"].clone()
        marks = swapped.layouts["mark"].astype(int)
        truth[:, PRIVILEGED["mark"]] = 0.0
        for row, mark in enumerate(marks):
            truth[row, PRIVILEGED["mark"].start + mark] = 1.0
            at = PRIVILEGED["mark_position"].start + 3 * mark
            truth[row, PRIVILEGED["goal"]] = truth[row, at : at + 3]
        return truth

    before = {"privileged": drawn}
    deaf = evaluate(Deaf(None, swapped.env_spec), swapped, episodes=4)
    assert (sum(deaf.successes), deaf.outcome("original_success").count) == (0, 4)
    assert "original success" in deaf.table("task")


def test_given_layouts_start_a_swapped_episode_again_and_its_state_is_saved_whole():
    env = make_vec("tabletop/stack", num_envs=2, swap=True)
    env.reset(seed=0)
    words = list(env.instructions)
    env.reset(seed=9, options={"layout": env.layouts})
    assert env.instructions == words
    actions = np.zeros((2, 7), np.float32)
    env.step(actions)
    saved = env.state_dict()
    after = env.step(actions)[4]["original_success"]
    other = make_vec("tabletop/stack", num_envs=2, swap=True)
    other.load_state_dict(saved)
    assert other.instructions == words
    np.testing.assert_array_equal(other.step(actions)[4]["original_success"], after)
    np.testing.assert_array_equal(other.layouts["target"], env.layouts["target"])


@pytest.mark.parametrize("task", ["open_drawer", "insert", "tower"])
def test_a_scene_with_nothing_else_to_name_says_so(task):
    with pytest.raises(RobotRLError, match="no other object that its instruction could name"):
        make_vec(f"tabletop/{task}", swap=True)


def test_episodes_have_labels_through_the_wrappers_and_held_out_colours_are_marked():
    config = EnvConfig(
        "tabletop/pick", {"split": "held_out"}, pixels=PixelsConfig(8, 8, ["front"], replace_state=False), history=2
    )
    env = build_env(config, num_envs=2)
    env.reset(seed=0)
    labels = env.episode_labels
    assert labels["task"] == ["pick", "pick"]
    assert labels["pair"] == ["pick green, held out"] * 2
    assert all("green" in text for text in labels["instruction"])
    assert all("{target}" in text for text in labels["paraphrase"])
    env.close()
