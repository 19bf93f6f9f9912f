"""The numbers the code keeps, so that a newcomer follows a transition from `env.step` to `backward()` in an evening."""

import ast
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType

import pytest
import torch

from robotrl.cli import VERBS
from tests.house.tree import LINKED, PACKAGE, ROOT, functions, length, modules, parse

MAX_FUNCTION, MAX_CLASS, MAX_LEARNER_FILE, MAX_VERB_FILE, MAX_LOOP = 80, 300, 300, 80, 60

LONGER: dict[str, str] = {}
"""`path:name` -> why this one may be longer than the soft limit."""

PPO_PLACES = {
    "runners/loop.py", "collect.py", "replay/rollout.py", "learners/ppo.py", "policies/stochastic.py",
    "policies/actions.py", "functional/",
}  # fmt: skip
"""What a reader of PPO goes through, in order. `functional/` counts as one place, with all its lines that run: its
functions (GAE, a Gaussian's log-probability) are looked up rather than followed. So are the env and the layers in
`nets/`, which peers' counts leave out as well."""


def too_long() -> set[str]:
    found = set()
    for module in modules():
        tree = parse(module)
        found |= {f"{module}:{f.name}" for f in functions(tree) if length(f) > MAX_FUNCTION}
        classes = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
        found |= {f"{module}:{c.name}" for c in classes if length(c) > MAX_CLASS}
    return found


def test_functions_have_at_most_80_lines_and_classes_300_but_for_listed_exceptions():
    assert too_long() == set(LONGER)


@pytest.mark.parametrize("path", sorted((PACKAGE / "learners").glob("*.py")), ids=lambda p: p.name)
def test_a_learners_file_has_at_most_300_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LEARNER_FILE


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_at_most_80_lines(verb):
    path = PACKAGE / "cli" / f"{verb}.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_VERB_FILE


def loop() -> ast.FunctionDef | ast.AsyncFunctionDef:
    (train,) = (f for f in functions(parse(Path("robotrl/runners/loop.py"))) if f.name == "train")
    return train


def test_the_loop_has_at_most_60_lines():
    assert length(loop()) <= MAX_LOOP


def test_the_loop_asks_no_owner_for_its_type():
    calls = [node.func for node in ast.walk(loop()) if isinstance(node, ast.Call)]
    called = {function.id for function in calls if isinstance(function, ast.Name)}
    assert called & {"isinstance", "issubclass", "type", "hasattr", "getattr"} == set()


SOURCES = [PACKAGE.resolve(), *((ROOT / name).resolve() for name in LINKED)]


def is_project(code: CodeType) -> bool:
    file = Path(code.co_filename)  # "<string>" where a dataclass wrote the function
    return file.is_absolute() and any(file.resolve().is_relative_to(folder) for folder in SOURCES)


@contextmanager
def entered_functions() -> Iterator[set[CodeType]]:
    """Collects every function of the project that is entered meanwhile, in any thread."""
    seen: set[CodeType] = set()
    monitoring, tool = sys.monitoring, sys.monitoring.COVERAGE_ID

    def entered(code: CodeType, _: int) -> object:
        if is_project(code) and code.co_name != "<module>":
            seen.add(code)
        return monitoring.DISABLE  # once is enough, and the rest of the run keeps its speed

    monitoring.use_tool_id(tool, "budgets")
    monitoring.register_callback(tool, monitoring.events.PY_START, entered)
    monitoring.set_events(tool, monitoring.events.PY_START)
    try:
        yield seen
    finally:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)
        monitoring.restart_events()


def test_a_reader_of_ppo_follows_at_most_700_lines_in_7_places_from_env_to_gradient():
    """Full length, docstrings included, of every function that `train` enters, in any thread."""
    from robotrl.collect import Collector
    from robotrl.envs import make_vec
    from robotrl.learners.ppo import PPO, PPOConfig
    from robotrl.policies import build_policy
    from robotrl.policies.config import PolicyConfig
    from robotrl.replay.rollout import RolloutBuffer
    from robotrl.runners.loop import Schedule, train
    from robotrl.types import Progress

    env = make_vec("Hopper-v5", num_envs=2, copy=False)
    policy = build_policy(PolicyConfig(), env.env_spec)
    learner = PPO(policy, env.env_spec, PPOConfig(num_epochs=2, num_minibatches=2), num_envs=2)
    with entered_functions() as seen:
        train(learner, RolloutBuffer(), Collector(env), Schedule(rollout_steps=64), Progress(total_env_steps=256))
    lines: dict[str, set[tuple[str, int]]] = {}
    for code in seen:
        file = code.co_filename.rpartition("/robotrl/")[2]
        if not file.startswith(("envs/", "nets/", "types.py")):
            source, start = inspect.getsourcelines(code)
            place = "functional/" if file.startswith("functional/") else file
            lines.setdefault(place, set()).update((file, start + i) for i in range(len(source)))
    total = {place: len(found) for place, found in lines.items()}
    assert set(total) == PPO_PLACES
    assert len(PPO_PLACES) <= 7
    assert sum(total.values()) <= 700, total


def project_frames() -> tuple[list[str], bool]:
    """The project's functions that led to the caller's caller, innermost first, and whether `main` called them."""
    names = []
    frame = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if is_project(code):
            if code.co_name == "main" and code.co_filename.endswith("cli/__init__.py"):
                return names, True
            names.append(f"{Path(code.co_filename).name}:{code.co_name}")
        frame = frame.f_back
    return names, False


def test_at_most_three_calls_lie_between_main_and_backward_and_between_main_and_env_step(monkeypatch, tmp_path):
    from robotrl.cli import main
    from robotrl.envs.native import NativeVectorEnv

    calls: dict[str, set[tuple[str, ...]]] = {"env.step": set(), "backward": set(), "backward in a thread": set()}
    step, backward = NativeVectorEnv.step, torch.Tensor.backward

    def watched_step(self, actions):
        names, below_main = project_frames()
        assert below_main
        calls["env.step"].add(tuple(names))
        return step(self, actions)

    def watched_backward(self, *args, **kwargs):
        names, below_main = project_frames()
        calls["backward" if below_main else "backward in a thread"].add(tuple(names))
        return backward(self, *args, **kwargs)

    monkeypatch.setattr(NativeVectorEnv, "step", watched_step)
    monkeypatch.setattr(torch.Tensor, "backward", watched_backward)
    small = ["num_envs=2", "total_env_steps=16", "schedule.rollout_steps=8", "eval_episodes=1", "video=false"]
    assert main(["train", "env=Hopper-v5", f"run_dir={tmp_path / 'run'}", *small, "--debug"]) == 0
    collecting = {names for names in calls["env.step"] if "collect.py:collect" in names}  # the others evaluate
    assert collecting and max(map(len, collecting)) <= 3, collecting
    assert calls["backward"] and max(map(len, calls["backward"])) <= 3, calls["backward"]
    # a network that trains beside another one: its loss is one call from `update`, which hands it to the thread
    assert all(len(names) == 1 for names in calls["backward in a thread"]), calls["backward in a thread"]
