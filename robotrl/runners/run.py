"""The assembly of one training run, new or resumed, and its end. In between stands `runners.loop.train`.

with Run.create(config, argv) as run:
    train(**run.parts())
    run.finish()
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import nn

from robotrl.checkpoint import load_latest, save_checkpoint
from robotrl.collect import Collector
from robotrl.configs.compose import load_config, train_keys
from robotrl.configs.schema import TrainConfig
from robotrl.envs.config import build_env, for_evaluation
from robotrl.logging import MetricsLog, side_writers
from robotrl.policies import build_policy
from robotrl.policies.io import load_policy
from robotrl.registry import learners
from robotrl.replay.build import build_replay, collects, offline_sources
from robotrl.rundir import RunDir
from robotrl.runners.hooks import EVAL_SEED, CheckpointHook, EvaluationHook, LoggingHook
from robotrl.runners.loop import Schedule
from robotrl.runners.memory import keep_freed_memory
from robotrl.runners.progress import ProgressHook
from robotrl.runners.signals import StopRequest
from robotrl.seeding import rng_state, seed_everything, set_rng_state
from robotrl.types import Progress, RobotRLError, StateDict, check_schedule

WIDE = 256
"""From this layer width on, matrix products are worth more than one thread."""
CHANGEABLE = (
    "total_env_steps", "eval_every", "eval_episodes", "checkpoint_every", "checkpoint_keep", "num_threads", "video",
    "wandb",
)  # fmt: skip
"""Keys that may be given with `resume=`: they do not change what is trained."""


class Run:
    """Everything that one training run is made of. Make it with `create` or `resume`; use it in a `with` statement."""

    def __init__(self, config: TrainConfig, directory: RunDir, checkpoint: StateDict | None = None) -> None:
        self.config, self.dir = config, directory
        self.stop = StopRequest()
        self.progress = Progress(config.total_env_steps)
        _check_device(config.device)
        keep_freed_memory()
        seed_everything(config.seed)
        env: Any = build_env(
            config.env, num_envs=config.num_envs, seed=config.seed, num_threads=config.num_threads, copy=False
        )
        self.env, self.spec = env, env.env_spec
        try:
            self._build(checkpoint)
        except BaseException:
            env.close()
            raise

    def _build(self, checkpoint: StateDict | None) -> None:
        config, spec = self.config, self.spec
        learner_class = learners.get(config.learner_name)
        kind = learner_class.policy_kind if config.policy.kind == "auto" else config.policy.kind
        policy = build_policy(replace(config.policy, kind=kind), spec)
        if config.init_from is not None and checkpoint is None:
            _take_weights(policy, config.init_from)
        policy.to(config.device)
        torch.set_num_threads(config.num_threads or _default_threads(policy))
        try:
            self.learner = learner_class(policy, spec, config.learner, num_envs=config.num_envs)
        except RobotRLError as error:  # of a learner that may stand in another one, which it does not know
            raise RobotRLError(train_keys(config.learner_name).in_full(str(error))) from error
        parts = self.learner.batch_spec
        groups = dict.fromkeys([*policy.obs_groups, *_critic_groups(config.learner)])
        offline = offline_sources(
            parts, config.replay, spec, groups=list(groups), seed=config.seed, device=config.device
        )
        self.replay = build_replay(
            learner_class.replay_class, parts, config.replay, spec, num_envs=config.num_envs, seed=config.seed,
            device=config.device, env_steps=config.total_env_steps, offline=offline,
        )  # fmt: skip
        self.demos: Any = offline.get("demos")
        self.collector = (
            Collector(self.env, seed=config.seed, device=config.device, dump_dir=self.dir.path / "dumps")
            if collects(parts)
            else None
        )
        self.schedule = Schedule(**asdict(config.schedule))
        if self.schedule.updates > 1 and any(part.kind == "rollout" for part in parts.values()):
            raise RobotRLError(
                f"schedule.updates is {self.schedule.updates:g}, but {config.learner_name} sees its whole rollout in "
                "one update, after which its data is used up. Set schedule.updates to 1 and learner.num_epochs to the "
                "passes over the rollout."
            )
        check_schedule(self.learner, self.schedule.rollout_steps, self.schedule.updates)
        if checkpoint is not None:
            self._load(checkpoint)
        self._make_hooks(checkpoint)
        # Last, because building may draw from the global streams, and a first import does so where a second does not.
        if checkpoint is not None:
            set_rng_state(checkpoint["rng"])
        else:
            seed_everything(_training_seed(config.seed))

    def _load(self, checkpoint: StateDict) -> None:
        """Put every owner of state back to where the checkpoint was taken."""
        self.progress.load_state_dict(checkpoint["progress"])
        self.learner.load_state_dict(checkpoint["learner"])
        self.replay.load_state_dict(checkpoint["replay"])
        if self.collector is not None:
            self.collector.load_state_dict(checkpoint["collector"])

    def _make_hooks(self, checkpoint: StateDict | None) -> None:
        config, progress = self.config, self.progress
        self.evaluation = EvaluationHook(
            self.learner,
            self._evaluation_env,
            self.dir,
            progress,
            every=config.eval_every,
            episodes=config.eval_episodes,
            origin=self.origin,
        )
        purge_after = progress.env_steps if any(self.dir.path.glob("events.out.*")) else None
        writers = side_writers(
            self.dir.path, tensorboard=True, wandb=config.wandb, config=asdict(config), purge_after=purge_after
        )
        self.log = MetricsLog(self.dir.metrics, writers)
        self.logging = LoggingHook(self.log, progress, self.evaluation)
        self.bar = ProgressHook(progress, self.logging)
        self.checkpointing = CheckpointHook(self._save, progress, every=config.checkpoint_every)
        if checkpoint is not None:
            self.evaluation.load_state_dict(checkpoint["evaluation"])
            self.logging.load_state_dict(checkpoint["log"])
            self.checkpointing.resumed()

    def _evaluation_env(self) -> Any:
        """An env of its own, so that training's goes on where it was; as many rows as episodes, up to 64."""
        rows = min(self.config.eval_episodes, 64)
        env = for_evaluation(self.config.env)
        return build_env(env, num_envs=rows, seed=EVAL_SEED, num_threads=self.config.num_threads, copy=False)

    @classmethod
    def create(cls, config: TrainConfig, argv: Sequence[str] | None = None) -> Run:
        """A new run, ready to train.

        Args:
            config: all of it; `run_dir` None means `runs/<name>/<time>`.
            argv: the command line, for `meta.json`; None: this process's.

        Raises:
            RobotRLError: the directory is taken, or the configuration names what cannot be built. Nothing is left.
        """
        config = _with_absolute_demos(_with_saved_policy(config))
        name = config.name or f"{config.learner_name}-{config.env.id}".replace("/", "-").replace(":", "-")
        directory = RunDir.create(config.run_dir, name)
        try:
            directory.save_config(config)
            run = cls(config, directory)
            directory.add_start(list(sys.argv if argv is None else argv), 0)
        except OSError as error:
            directory.discard()
            raise RobotRLError(_unwritable(directory, error)) from error
        except BaseException:
            directory.discard()
            raise
        run._say_resumability()
        run._say_other_options()
        return run

    @classmethod
    def resume(cls, path: str | Path, overrides: Sequence[str] = (), argv: Sequence[str] | None = None) -> Run:
        """Continue the run in `path` from its newest valid checkpoint; without one, from its start.

        Args:
            path: the run's directory.
            overrides: `key=value` for keys in `CHANGEABLE`.
            argv: the command line, for `meta.json`; None: this process's.

        Raises:
            RobotRLError: no run there, it has finished, another process trains in it, no checkpoint of it is valid, or
                an override would change what is trained.
        """
        directory = RunDir.open(path)
        try:
            config = _resumed_config(directory, [o for o in overrides if not o.startswith("resume=")])
            loaded = load_latest(directory.checkpoints)
            _refuse_finished(directory, config, loaded[1] if loaded else 0)
            if loaded is None:
                _refuse_lost_checkpoints(directory, config)
            state, env_steps = loaded or (None, 0)
            directory.cut_back(env_steps, 0 if state is None else int(state["log"]["bytes"]))
            run = cls(config, directory, state)
            directory.save_config(config)
            directory.add_start(
                list(sys.argv if argv is None else argv), run.progress.env_steps, overrides=list(overrides)
            )
        except OSError as error:
            directory.close()
            raise RobotRLError(_unwritable(directory, error)) from error
        except BaseException:
            directory.close()
            raise
        total = config.total_env_steps
        say(f"Resuming {directory.path} at {run.progress.env_steps:,} of {total:,} env steps.")
        if loaded and not run.exact:
            say(f"{config.env.id} cannot restore its exact state: the running episodes are cut off, new ones start.")
        return run

    def parts(self) -> dict[str, Any]:
        """The keyword arguments of `runners.loop.train`."""
        return {
            "learner": self.learner,
            "replay": self.replay,
            "collector": self.collector,
            "schedule": self.schedule,
            "progress": self.progress,
            "hooks": [self.evaluation, self.logging, self.bar, self.checkpointing],
            "stop": self.stop,
        }

    def _save(self) -> None:
        state = {
            "progress": self.progress.state_dict(),
            "learner": self.learner.state_dict(),
            "replay": self.replay.state_dict(),
            "collector": None if self.collector is None else self.collector.state_dict(),
            "rng": rng_state(),
            "evaluation": self.evaluation.state_dict(),
            "log": self.logging.state_dict(),
        }
        save_checkpoint(self.dir.checkpoints, state, step=self.progress.env_steps, keep=self.config.checkpoint_keep)
        record = getattr(self.env.unwrapped, "randomisation", {})
        if record:  # the physics in force now; those of every episode follow from the config and the seed
            self.dir.save_randomisation(self.progress.env_steps, record)

    @property
    def origin(self) -> dict[str, Any]:
        """What a saved policy says about its training: from it alone its env can be built again, wrappers included."""
        c = self.config
        return {"run": str(self.dir.path), "learner": c.learner_name, "seed": c.seed, "env_config": asdict(c.env)}

    @property
    def resume_command(self) -> str:
        """What the user types to go on."""
        return f"robotrl train resume={shown(self.dir.path)}"

    @property
    def exact(self) -> bool:
        """Whether a resumed run has the same bytes: its env saves its state exactly, or nothing is collected."""
        return self.collector is None or self.spec.exact_state

    def _say_resumability(self) -> None:
        if not self.exact:
            say(
                f"{self.config.env.id} cannot save its exact state: after a resume, running episodes are cut off, and "
                "the run is not bit-identical to an uninterrupted one."
            )

    def _say_other_options(self) -> None:
        if self.demos is None:
            return
        from robotrl.data.fit import other_options  # what reads data sets is needed by few
        from robotrl.replay.joined import datasets_of

        for dataset in datasets_of(self.demos):
            differ = other_options(dataset, self.config.env.id, self.config.env.options)
            if differ:
                where = shown(dataset.root)
                say(f"The demonstrations in {where} are of another variant of the task: {'; '.join(differ)}.")

    def __enter__(self) -> Run:
        self.stop.__enter__()
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
        self.stop.__exit__(kind, error, trace)
        if kind is KeyboardInterrupt:
            say(f"Stopped at once; what came after the last checkpoint is lost. To go on: {self.resume_command}")
        self.close()
        if isinstance(error, RobotRLError):  # put right, the same command should not find a run in its way
            self.dir.discard_if_unused()

    def close(self) -> None:
        """Close envs and files and give the directory free."""
        self.log.close()
        self.evaluation.close()
        self.env.close()
        self.dir.close()


def say(text: str) -> None:
    """One line to stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def shown(path: Path) -> str:
    """A path as the user would type it: relative to where they are, when it lies below."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _training_seed(seed: int) -> int:
    """Another stream than the one that drew the weights."""
    return int(np.random.SeedSequence((seed, 1)).generate_state(1, np.uint64)[0] >> 1)


def _check_device(device: str) -> None:
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise RobotRLError(f"device={device}, but PyTorch sees no GPU here. Use device=cpu, or run robotrl doctor.")


def _default_threads(policy: nn.Module) -> int:
    """One thread for narrow networks, whose products are too small to share; else every core this process may use."""
    widest = max((m.out_features for m in policy.modules() if isinstance(m, nn.Linear)), default=0)
    images = any(isinstance(m, nn.Conv2d) for m in policy.modules())
    return len(os.sched_getaffinity(0)) if widest >= WIDE or images else 1


def _with_saved_policy(config: TrainConfig) -> TrainConfig:
    """With `init_from`, the architecture is that of the saved policy, and the saved configuration says so."""
    if config.init_from is None:
        return config
    saved = load_policy(config.init_from).config
    changed = sorted(k for k, v in asdict(saved).items() if v != asdict(config.policy)[k] and k != "kind")
    if changed:
        said = ", ".join(f"policy.{k}={asdict(saved)[k]}" for k in changed)
        say(f"init_from: the policy keeps its own architecture ({said}).")
    return replace(config, policy=saved, init_from=str(Path(config.init_from).absolute()))


def _with_absolute_demos(config: TrainConfig) -> TrainConfig:
    """A resumed run may be started from another folder."""
    if config.replay.demos is None:
        return config
    return replace(config, replay=replace(config.replay, demos=str(Path(config.replay.demos).absolute())))


def _critic_groups(config: Any) -> list[str]:
    """Observation groups that the critics of a learner, or of the learners inside it, read in place of the policy's."""
    parts = [getattr(config, item.name) for item in fields(config)]
    inner = [name for part in parts if is_dataclass(part) for name in _critic_groups(part)]
    return [*(getattr(config, "critic_groups", None) or ()), *inner]


def _take_weights(policy: Any, init_from: str) -> None:
    """Weights and normaliser of a saved policy of the same architecture."""
    saved = load_policy(init_from)
    saved.check_env(policy.spec)
    policy.load_state_dict(saved.state_dict())


def _resumed_config(directory: RunDir, overrides: list[str]) -> TrainConfig:
    config = load_config(directory.config, overrides)
    before, after = _leaves(directory.load_config()), _leaves(asdict(config))
    changed = [key for key, value in before.items() if key not in after or after[key] != value]
    refused = [key for key in changed if key not in CHANGEABLE]
    if refused:
        names = ", ".join(f"{key} (it is {before[key]})" for key in refused)
        raise RobotRLError(
            f"resume= continues the run as it is, so it cannot change {names}: that would be another run. With "
            f"resume= you may give {', '.join(CHANGEABLE)}. To start a new run from these weights: "
            f"init_from={shown(directory.path)}."
        )
    return config


def _unwritable(directory: RunDir, error: OSError) -> str:
    return f"{shown(directory.path)} could not be written: {error}. Free some space, or choose another run_dir=."


def _leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys to values; an empty mapping is a value."""
    if isinstance(tree, dict) and tree:
        return {k: v for key, value in tree.items() for k, v in _leaves(value, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): list(tree) if isinstance(tree, tuple) else tree}


def _refuse_finished(directory: RunDir, config: TrainConfig, env_steps: int) -> None:
    finished = directory.finished_env_steps
    if finished is not None and max(finished, env_steps) >= config.total_env_steps:
        where = shown(directory.path)
        raise RobotRLError(
            f"The run in {where} has finished its {finished:,} env steps; its policy is in policy/final. "
            f"To train it further: robotrl train resume={where} total_env_steps={2 * finished}"
        )


def _refuse_lost_checkpoints(directory: RunDir, config: TrainConfig) -> None:
    """Starting again from nothing is right after an early kill, and would be a loss later."""
    env_steps = directory.surely_passed()
    if 0 < config.checkpoint_every <= env_steps:
        raise RobotRLError(
            f"The run in {shown(directory.path)} has trained for more than {env_steps:,} env steps, but there are no "
            "checkpoints in it, so it cannot be continued. Restore its checkpoints/ from a backup, or start a new run."
        )


__all__ = ["CHANGEABLE", "Run", "say", "shown"]
