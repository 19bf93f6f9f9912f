"""Tiny runs that take a second, and what it means that two of them ended alike."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from robotrl.checkpoint import load_latest
from robotrl.configs.compose import compose
from robotrl.envs.config import build_env
from robotrl.runners.finish import finish
from robotrl.runners.loop import train
from robotrl.runners.run import Run
from robotrl.statetree import flatten
from tests.demos import write_demos

TINY = (
    *("preset=none", "num_envs=4", "schedule.rollout_steps=16", "total_env_steps=640", "num_threads=1", "video=false"),
    *("eval_every=256", "eval_episodes=2", "checkpoint_every=128", "policy.hidden=[8]", "env.time_limit=40"),
)
_ADVERSARIAL = (
    "learner.sac.batch_size=16", "learner.sac.random_env_steps=128", "schedule.updates=2",
    "learner.discriminator_batch_size=16", "learner.discriminator_hidden=[8]",
)  # fmt: skip
TINY_LEARNER = {
    "ppo": ("learner.num_epochs=2", "learner.num_minibatches=2"),
    "props": (
        "learner.target_steps=32", "learner.behaviour_epochs=2", "learner.behaviour_minibatches=2",
        "learner.ppo.num_epochs=2", "learner.ppo.num_minibatches=2",
    ),
    "sac": ("learner.batch_size=16", "learner.random_env_steps=128", "schedule.updates=2"),
    "trpo": ("learner.value_epochs=2", "learner.value_minibatches=2"),
    "npg": ("learner.value_epochs=2", "learner.value_minibatches=2"),
    "hnpg": (
        "schedule.rollout_steps=40", "learner.critic_steps=3", "learner.critic_hidden=[8]",
    ),
    "bc": ("learner.batch_size=16", "schedule.rollout_steps=64"),
    "flashsac": (
        "learner.batch_size=16", "learner.random_env_steps=128", "schedule.updates=2", "learner.critic_hidden=[8]",
    ),
    "dac": (*_ADVERSARIAL,),
    "dreamer": (
        "policy.world_model=tiny", "learner.batch_size=4", "learner.batch_length=8", "learner.horizon=4",
    ),
    "pets": (
        "learner.batch_size=16", "learner.random_env_steps=128", "policy.models=2", "policy.planner.horizon=2",
        "policy.planner.candidates=8", "policy.planner.elites=4", "policy.planner.keep=2",
        "policy.planner.iterations=2",
    ),
    "mbpo": (
        "learner.sac.batch_size=16", "learner.sac.random_env_steps=128", "learner.model_hidden=[8]",
        "learner.models=2", "learner.model_batch_size=8", "learner.model_first_updates=1",
    ),
    "ailboost": (
        *_ADVERSARIAL, "learner.member_env_steps=40", "learner.explore_env_steps=40", "learner.discriminator_updates=4",
    ),
}  # fmt: skip
"""What makes one update of a learner take milliseconds; a new learner that needs it adds a line."""
IMITATES = ("bc", "dac", "ailboost", "hnpg")
"""Learners that need demonstrations."""


class TinyRuns:
    """Starts, stops and resumes tiny runs in this process, and compares how they ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def words(self, directory: Path, *more: str, learner: str = "ppo") -> list[str]:
        own = TINY_LEARNER.get(learner, ())
        if learner in IMITATES:
            own = (*own, f"replay.demos={self.demos()}")
        return [f"run_dir={directory}", f"learner={learner}", *TINY, *own, *more]

    def demos(self) -> Path:
        """Demonstrations of the env of the tiny runs; made once."""
        root = self._folder / "demos"
        if not root.exists():
            write_demos(root, build_env(compose(TINY).env, num_envs=1, seed=0, num_threads=1))
        return root

    def create(self, directory: Path, *more: str, learner: str = "ppo") -> Run:
        return Run.create(compose(self.words(directory, *more, learner=learner)))

    def start(self, directory: Path, *more: str, stop_at: int | None = None, learner: str = "ppo") -> int:
        return self.complete(self.create(directory, *more, learner=learner), stop_at)

    def resume(self, directory: Path, *overrides: str, stop_at: int | None = None) -> int:
        return self.complete(Run.resume(directory, overrides), stop_at)

    def complete(self, run: Run, stop_at: int | None = None) -> int:
        """Train to the end, or until the iteration that reaches `stop_at` env steps; the exit code."""

        def stop_there(_iteration: int, _metrics: object) -> None:
            if stop_at is not None and run.progress.env_steps >= stop_at:
                run.stop.request()

        with run:
            parts = run.parts()
            parts["hooks"].append(stop_there)
            train(**parts)
            return finish(run)

    def state(self, directory: Path) -> tuple[str, dict[str, torch.Tensor]]:
        """All of the newest checkpoint but what a clock writes."""
        state, _ = load_latest(directory / "checkpoints")
        state.pop("log")
        state["evaluation"].pop("seconds")
        nodes, tensors = flatten(state)
        return json.dumps(nodes, sort_keys=True), tensors

    def rows(self, directory: Path) -> list[dict]:
        """`metrics.jsonl` but for times."""
        rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]

    def weights(self, directory: Path) -> bytes:
        return (directory / "policy" / "final" / "model.safetensors").read_bytes()

    def assert_same_end(self, one: Path, other: Path) -> None:
        """The same bytes: weights, optimiser, normaliser, envs, random streams, metrics, evaluations."""
        assert self.weights(one) == self.weights(other)
        (nodes, tensors), (other_nodes, other_tensors) = self.state(one), self.state(other)
        assert nodes == other_nodes
        assert tensors.keys() == other_tensors.keys()
        for name, value in tensors.items():
            assert value.numpy().tobytes() == other_tensors[name].numpy().tobytes(), name
        assert self.rows(one) == self.rows(other)
        assert {p.name for p in (one / "eval").iterdir()} == {p.name for p in (other / "eval").iterdir()}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyRuns:
    return TinyRuns(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def uninterrupted(tiny: TinyRuns, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The directory of a finished run with these words; made once."""
    made: dict[tuple[str, ...], Path] = {}

    def run(*more: str, learner: str = "ppo") -> Path:
        key = (learner, *more)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("uninterrupted") / "run"
            assert tiny.start(made[key], *more, learner=learner) == 0
        return made[key]

    return run
