"""What is drawn, what counts as done, and what is rewarded."""

import numpy as np
import pytest

from robotrl.envs import make_vec
from robotrl.envs.registry import environments
from robotrl.envs.tabletop.layout import COLOUR_NAMES, NAMES
from robotrl.envs.tabletop.observation import PRIVILEGED, part
from robotrl.envs.tabletop.tasks import TASKS
from robotrl.types import RobotRLError


def make(task, num_envs=1, **options):
    return make_vec(f"tabletop/{task}", num_envs=num_envs, **options)


def put(env, which, place, row=0):
    """Put an object somewhere, at rest and upright."""
    at, vel = env.addresses.object_q[which], env.addresses.object_v[which]
    env.batch.bind("qpos")[row, at : at + 7] = [*place, 1, 0, 0, 0]
    env.batch.bind("qvel")[row, vel : vel + 6] = 0.0


def step(env, times=1, grip=1.0):
    for _ in range(times):
        actions = np.zeros((env.num_envs, 7), np.float32)
        actions[:, 6] = grip
        out = env.step(actions)
    return out


def test_there_are_at_least_twelve_tasks_and_each_is_registered_and_described():
    assert len(TASKS) >= 12
    assert {f"tabletop/{name}" for name in TASKS} == {n for n in environments.names() if n.startswith("tabletop/")}
    for task in TASKS.values():
        assert task.sentence().endswith(".") and task.success


def test_success_needs_half_a_second_and_ends_the_episode():
    env = make("stack", max_episode_steps=None)
    env.reset(seed=0)
    x, y, z = env._reader.read(slice(None), env.layout).objects[0, 1]
    put(env, 0, (x, y, z + 0.04))
    for k in range(1, 11):
        _, reward, terminated, _, infos = step(env)
        assert infos["goal_met"][0]
        assert infos["success"][0] == terminated[0] == (k == 10)
        assert reward[0] == float(k == 10)


def test_a_goal_that_is_lost_starts_the_half_second_again():
    env = make("stack", max_episode_steps=None)
    env.reset(seed=0)
    x, y, z = env._reader.read(slice(None), env.layout).objects[0, 1]
    put(env, 0, (x, y, z + 0.04))
    step(env, 8)
    put(env, 0, (x + 0.1, y, 0.02))
    step(env, 2)
    put(env, 0, (x, y, z + 0.04))
    assert not step(env, 9)[4]["success"][0]
    assert step(env)[4]["success"][0]


def solved_by_hand(task, env):
    """Bring about what the task asks for."""
    s = env._reader.read(slice(None), env.layout)
    q, a = env.batch.bind("qpos"), env.addresses
    goal = env.task.goal(s)[0]
    if task in ("place", "push", "gather"):
        put(env, 0, goal)
    elif task == "stack":
        put(env, 0, s.objects[0, 1] + [0, 0, 0.04])
    elif task == "tower":
        put(env, 1, s.objects[0, 2] + [0, 0, 0.04])
        put(env, 0, s.objects[0, 2] + [0, 0, 0.08])
    elif task == "sort":
        for k in range(2):
            put(env, k, s.marks[0, k] + [0, 0, 0.02])
    elif task == "insert":
        put(env, 0, goal)
        half = 0.5 * s.fixture[0, 3]
        q[0, a.object_q[0] + 3 : a.object_q[0] + 7] = [np.cos(half), 0, 0, np.sin(half)]
    elif task in ("open_drawer", "open_door"):
        q[0, a.part_q[0]] = 0.14 if task == "open_drawer" else 1.2
    elif task in ("close_drawer", "close_door"):
        q[0, a.part_q[0]] = 0.0
    elif task == "store":
        inside = s.from_fixture(np.array([[0.08, 0.0, 0.033]]))[0]
        put(env, 0, inside)
        q[0, a.part_q[0]] = 0.0


@pytest.mark.parametrize("task", [name for name in TASKS if name not in ("reach", "pick", "press")])
def test_a_goal_brought_about_by_hand_counts_and_the_start_does_not(task):
    env = make(task, max_episode_steps=None)
    for seed in range(3):
        env.reset(seed=seed)
        assert not step(env)[4]["goal_met"][0]
        solved_by_hand(task, env)
        _, _, terminated, _, infos = step(env, 10)
        assert infos["success"][0] and terminated[0], (seed, infos)


def test_pressing_another_button_as_well_does_not_count():
    env = make("press", max_episode_steps=None)
    env.reset(seed=0)
    s = env._reader.read(slice(None), env.layout)
    s.parts[0] = 0.0
    s.parts[0, s.mark[0]] = 0.009
    assert env.task.solved(s)[0]
    s.parts[0] = 0.009
    assert not env.task.solved(s)[0]


def test_shaped_rewards_add_up_to_the_progress_made_plus_one_for_success():
    env = make("open_drawer", 2, reward="shaped", max_episode_steps=None)
    env.reset(seed=0)
    start = env._progress.copy()
    total = np.zeros(2)
    for k in range(12):
        if k == 1:
            env.batch.bind("qpos")[0, env.addresses.part_q[0]] = 0.14
        _, reward, terminated, _, infos = step(env)
        total += reward
        if terminated.any():
            break
    assert terminated.tolist() == [True, False]
    np.testing.assert_allclose(total - [1.0, 0.0], infos["progress"] - start)
    assert ((infos["progress"] >= 0) & (infos["progress"] <= 1)).all()


@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if task.held_out])
def test_held_out_colours_appear_in_their_own_split_only(task):
    key = "mark" if task == "press" else "target"
    for split in ("train", "held_out"):
        env = make(task, 40, split=split)
        env.reset(seed=0)
        numbers = [
            env.layouts[f"{'mark' if key == 'mark' else 'object'}{int(k)}/colour"][row]
            for row, k in enumerate(env.layouts[key])
        ]
        named = {COLOUR_NAMES[int(n)] for n in numbers}
        assert (named <= set(TASKS[task].held_out)) == (split == "held_out")
        assert named.isdisjoint(TASKS[task].held_out) == (split == "train")


def test_a_task_that_names_no_colour_has_no_held_out_split():
    with pytest.raises(RobotRLError, match="holds none out"):
        make("open_drawer", split="held_out")


@pytest.mark.parametrize("task", TASKS)
def test_an_episodes_start_is_replayed_from_its_layout(task):
    env = make(task, 3, seed=1)
    obs, _ = env.reset()
    layouts = env.layouts
    assert set(layouts) == set(NAMES)
    other = make(task, 3, seed=2)
    different, _ = other.reset()
    assert not np.array_equal(obs["privileged"], different["privileged"])
    again, _ = other.reset(options={"layout": layouts})
    assert all(np.array_equal(obs[name], again[name]) for name in obs)
    assert other.instructions == env.instructions


def test_a_layout_with_a_wrong_name_or_value_is_refused():
    env = make("pick", 2)
    env.reset(seed=0)
    good = env.layouts
    with pytest.raises(RobotRLError, match="Did you mean 'object0/x'"):
        env.reset(options={"layout": good | {"object0/xx": 0.0}})
    with pytest.raises(RobotRLError, match="lacks target"):
        env.reset(options={"layout": {k: v for k, v in good.items() if k != "target"}})
    with pytest.raises(RobotRLError, match="finite"):
        env.reset(options={"layout": good | {"target": np.array([np.nan, 0.0])}})


@pytest.mark.parametrize("task", TASKS)
def test_things_start_apart_within_reach_and_clear_of_the_goal(task):
    env = make(task, 64)
    obs, _ = env.reset(seed=0)
    present = part(obs["privileged"], PRIVILEGED, "object_present") > 0
    places = part(obs["privileged"], PRIVILEGED, "object_position", 3)
    for row in range(64):
        mine = places[row][present[row]]
        gaps = [np.linalg.norm(a - b) for i, a in enumerate(mine) for b in mine[:i]]
        assert min(gaps, default=1.0) > 0.085
        assert (np.linalg.norm(mine[:, :2], axis=1) < 0.72).all() and (mine[:, 0] > 0.3).all()
    assert not step(env)[4]["goal_met"].any()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"reward": "dense"}, "must be one of: sparse, shaped"),
        ({"split": "heldout"}, "Did you mean 'held_out'"),
        ({"rewards": "sparse"}, "Did you mean 'reward'"),
        ({"timestep": 1.0}, "timestep"),
        ({"terminate_on_success": "yes"}, "true or false"),
        ({"memory": -1}, "bytes"),
    ],
)
def test_a_wrong_option_is_explained(options, says):
    with pytest.raises(RobotRLError, match=says):
        make("pick", **options)


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(RobotRLError, match=r"Did you mean .*tabletop/stack"):
        make("stakc")
