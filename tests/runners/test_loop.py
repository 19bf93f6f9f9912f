import ast
import inspect

import pytest
import torch

from robotrl.collect import Collector
from robotrl.replay import RolloutBuffer
from robotrl.runners import loop
from robotrl.runners.loop import Schedule, train
from robotrl.types import Part, Progress, RobotRLError
from tests.envs_for_tests import Pick, Target
from tests.protocol.harness import Linear


class Diary:
    """A learner that writes down what is asked of it."""

    def __init__(self, lines, metrics=lambda update: {"loss/a": torch.tensor(float(update))}):
        self.policy = self.acting = Linear(2, 2)
        self.lines, self.metrics, self.updates = lines, metrics, 0

    @property
    def batch_spec(self):
        self.lines.append("spec")
        return {"online": Part()}

    def observe(self, fresh, progress):
        self.lines.append(f"observe {progress.env_steps} {sorted(fresh)[:1]}")

    def update(self, batch):
        self.lines.append("update")
        self.updates += 1
        return self.metrics(self.updates), None


def test_the_order_of_an_iteration_is_collect_add_observe_update_hooks():
    lines, seen, progress = [], [], Progress(total_env_steps=12)
    collector = Collector(Target(num_envs=2, length=2))
    learner = Diary(lines)

    def hook(iteration, metrics):
        lines.append(f"hook {iteration}")
        seen.append(metrics)

    train(learner, RolloutBuffer(), collector, Schedule(3, 2.0), progress, hooks=[hook])
    iteration = ["spec", "update", "update"]
    assert lines == [
        "observe 6 ['action']", *iteration, "hook 1",
        "observe 12 ['action']", *iteration, "hook 2",
    ]  # fmt: skip
    assert (progress.env_steps, progress.iterations, progress.updates, progress.episodes) == (12, 2, 4, 6)
    assert [float(m["loss/a"]) for m in seen] == [1.5, 3.5]  # means over the iteration's updates
    assert {"time/collect", "time/update", "train/return", "train/episodes"} <= seen[0].keys()
    assert all(float(m["time/collect"]) >= 0 for m in seen)


def test_it_ends_at_the_first_iteration_that_reaches_the_goal_and_a_reached_goal_does_nothing():
    progress = Progress(total_env_steps=13)
    learner = Diary([])
    collector = Collector(Target(num_envs=2, length=2))
    train(learner, RolloutBuffer(), collector, Schedule(3), progress)
    assert (progress.env_steps, learner.updates) == (18, 3)
    train(learner, RolloutBuffer(), collector, Schedule(3), progress)
    assert learner.updates == 3


def test_stop_is_asked_between_iterations_only():
    progress, learner = Progress(total_env_steps=10**6), Diary([])
    answers = iter([False, False, True])
    train(learner, RolloutBuffer(), Collector(Target(num_envs=2)), Schedule(3), progress, stop=lambda: next(answers))
    assert (progress.iterations, learner.updates) == (2, 2)


@pytest.mark.parametrize("updates", [0.0, 0.25, 1 / 3, 0.7, 1.0, 2.6, 17.0])
def test_updates_add_up_to_the_schedule_whatever_the_fraction(updates):
    schedule, progress, made = Schedule(1, updates), Progress(10**6), 0
    for iteration in range(1, 1001):
        made += schedule.due(progress)
        progress.iterations += 1
        assert made == int(updates * iteration)


def test_no_update_is_owed_for_warm_up():
    schedule, progress = Schedule(1, 1.5, warmup_env_steps=100), Progress(10**6)
    due = []
    for _ in range(4):
        progress.env_steps += 50
        due.append(schedule.due(progress))
        progress.iterations += 1
    assert due == [0, 2, 1, 2]


def test_progress_continues_but_keeps_its_own_goal():
    progress = Progress(10, env_steps=4, grad_steps=3, iterations=2, updates=5, episodes=1)
    other = Progress(20)
    other.load_state_dict(progress.state_dict())
    assert other == Progress(20, env_steps=4, grad_steps=3, iterations=2, updates=5, episodes=1)
    assert other.fraction == 0.2
    assert Progress(0).fraction == 0.0
    assert Progress(4, env_steps=9).fraction == 1.0


def test_a_store_that_does_not_serve_what_is_asked_says_so():
    class Asks(Diary):
        batch_spec = {"a": Part(kind="sequence", batch_size=2)}  # noqa: RUF012

    with pytest.raises(RobotRLError, match="RolloutBuffer serves rollouts, but the part 'a' asks for a sequence"):
        train(Asks([]), RolloutBuffer(), Collector(Target(num_envs=2)), Schedule(3), Progress(6))


def test_the_loop_asks_nobody_what_they_are_and_stays_short():
    tree = ast.parse(inspect.getsource(loop))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"isinstance", "issubclass", "hasattr", "getattr", "type"}
    assert len(inspect.getsource(train).splitlines()) <= 60


def test_discrete_actions_go_through_as_well():
    class Random(Linear):
        def act(self, obs, state, *, explore):
            return torch.randint(0, 4, (len(obs["state"]),)), {}, state

    learner = Diary([])
    learner.acting = Random(2, 2)
    train(learner, RolloutBuffer(), Collector(Pick(num_envs=2)), Schedule(3), Progress(6))
    assert learner.updates == 1
