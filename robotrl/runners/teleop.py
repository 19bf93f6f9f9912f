"""A person as a policy: what they press becomes actions, and their episodes are recorded like any policy's."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robotrl.collect import Collector
from robotrl.configs.schema import require_at_least
from robotrl.data.schema import Schema
from robotrl.data.writer import DatasetWriter
from robotrl.envs.config import EnvConfig, build_env
from robotrl.envs.wrappers.ending import EndOnRequest
from robotrl.runners.devices import DISCARD, KEEP, QUIT, Command, Device, open_device
from robotrl.runners.record import record, session_seed
from robotrl.types import EnvSpec, Extras, Obs, RobotRLError, State

KEYS = ("ws", "ad", "eq", "ik", "jl", "uo", "xz", "rf", "tg", "yh", "vb", "nm")
"""By number of the action: the key that raises it, and the one that lowers it."""
AXES = ("-1", "-0", "-4", "", "", "3")
"""By number of the action: the stick's axis, with a minus where it points the other way."""
RATE = 0.1
"""Share of its range that a held number moves a step."""


@dataclass(slots=True)
class TeleopConfig:
    """The keys of `robotrl teleop`."""

    out: str = ""
    env: EnvConfig = field(default_factory=EnvConfig)
    device: str = "keyboard"
    """keyboard, window, terminal or gamepad."""
    script: str | None = None
    """A text of steps and keys, played instead."""
    gamepad: str = "/dev/input/js0"
    episodes: int = 10
    """How many the data set shall hold in the end."""
    task: str | None = None
    speed: float = 0.5
    """Share of an action's bound that a key means; a stick reaches all of it."""
    keys: list[str] = field(default_factory=lambda: list(KEYS))
    axes: list[str] = field(default_factory=lambda: list(AXES))
    camera: str | None = None
    """What the window shows; None: the env's own view."""
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least("", self, episodes=1, seed=0)
        if not 0 < self.speed <= 1:
            raise RobotRLError(f"speed is {self.speed}; it must be above 0 and at most 1.")
        if any(len(pair) not in (0, 2) for pair in self.keys):
            raise RobotRLError(
                f"keys is {self.keys}; each is two letters, the first raises a number, the second lowers it."
            )
        if any(axis and not axis.lstrip("-").isdigit() for axis in self.axes):
            raise RobotRLError(
                f"axes is {self.axes}; each is the number of an axis, as in \"'-1'\" where it is reversed."
            )


class Person:
    """Acts in one env as a person does with a device, at the env's own pace.

    Numbers whose bounds lie evenly around zero (velocities, small motions) are what is held, and zero when nothing is.
    Others (an opening, a joint's angle) stay where they were put and move while a key is held; one between 0 and 1
    starts at 1, others at 0 or at the bound next to it. An episode begins with the first key.

    Args:
        spec: of the env, whose actions are a vector within finite bounds.
        device: what is pressed.
        config: keys, axes and speed.
    """

    obs_groups: tuple[str, ...] = ()

    def __init__(self, spec: EnvSpec, device: Device, config: TeleopConfig) -> None:
        action = spec.action
        if action.kind != "continuous" or len(action.shape) != 1 or not np.isfinite([*action.low, *action.high]).all():
            raise RobotRLError(f"{spec.id} cannot be moved by hand: its actions are not numbers within bounds.")
        if len(config.keys) < action.shape[0]:
            raise RobotRLError(
                f"{spec.id} has {action.shape[0]} numbers to move, and keys= names {len(config.keys)} pairs."
            )
        self.spec, self.device, self.config = spec, device, config
        self.low, self.high = np.array(action.low), np.array(action.high)
        self.momentary = np.isclose(self.low, -self.high)
        unit = np.isclose(self.low, 0) & np.isclose(self.high, 1)
        self.rest = np.where(unit, 1.0, np.clip(0.0, self.low, self.high))
        self.env: Any = None
        """What `show` draws; set once it is made."""
        self.stopped = self.discarded = False
        self._asked: bool | None = None
        self._held: frozenset[str] = frozenset()
        self._began = 0.0

    def initial_state(self, num_envs: int) -> State:
        """Where held numbers are, and whether the episode waits for its first key."""
        if num_envs != 1:
            raise RobotRLError("A person moves one robot at a time: num_envs=1.")
        return {"target": torch.tensor(self.rest)[None], "waiting": torch.ones(1, dtype=torch.bool)}

    def reset_state(self, state: State, done: Tensor) -> State:
        """Back to rest, waiting."""
        fresh = self.initial_state(1)
        return fresh if bool(done.any()) else state

    def act(self, obs: Obs, state: State, *, explore: bool) -> tuple[Tensor, Extras, State]:
        """See `robotrl.types.Policy.act`; no extras. Returns when the step is due."""
        command = self._wait(first=bool(state["waiting"][0]))
        for key, asked in ((KEEP, True), (DISCARD, False), (QUIT, False)):
            if key in command.held - self._held:  # once, however long it is held
                self._asked, self.discarded, self.stopped = asked, not asked, key == QUIT
        self._held = command.held
        target = state["target"][0].numpy().copy()
        motion = self._motion(command)
        held = np.clip(target + motion * RATE * (self.high - self.low), self.low, self.high)
        target = np.where(self.momentary, self.rest, held)
        action = np.clip(np.where(self.momentary, motion * self.high, target), self.low, self.high)
        following = {"target": torch.from_numpy(target)[None], "waiting": torch.zeros(1, dtype=torch.bool)}
        return torch.from_numpy(action.astype(np.float32))[None], {}, following

    def asked(self) -> bool | None:
        """Whether the episode is to end now, and how it counts; once."""
        asked, self._asked = self._asked, None
        return asked

    def kept(self) -> bool:
        """Whether the episode that just ended is to be saved; once."""
        discarded, self.discarded = self.discarded, False
        return not discarded

    def _motion(self, command: Command) -> NDArray[np.float64]:
        """Of each number, in [-1, 1]."""
        motion = np.zeros(len(self.low))
        for i, pair in enumerate(self.config.keys[: len(motion)]):
            if pair:
                motion[i] += self.config.speed * ((pair[0] in command.held) - (pair[1] in command.held))
        for i, axis in enumerate(self.config.axes[: len(motion)]):
            if axis:
                share = command.axes.get(abs(int(axis)), 0.0)
                motion[i] += -share if axis.startswith("-") else share
        motion[-1] += self.config.speed * (("button5" in command.held) - ("button4" in command.held))
        return np.clip(motion, -1.0, 1.0)

    def _wait(self, *, first: bool) -> Command:
        """The command of this step, once its time has come; before an episode's first one, once there is any."""
        self.device.show(self._view, self._text(waiting=first))
        command = self.device.poll()
        while first and self.device.paced and not _moves(command):
            time.sleep(0.01)
            self._held = command.held
            command = self.device.poll()
        if self.device.paced and self.spec.control_hz:
            now = time.monotonic()
            due = self._began + 1.0 / self.spec.control_hz
            if not first and now < due:
                time.sleep(due - now)
                command = self.device.poll()
            self._began = max(due, now) if not first else now
        return command

    def _view(self) -> NDArray[np.uint8]:
        frame: NDArray[np.uint8] = self.env.render_rows([0], height=480, width=640, camera=self.config.camera)[0]
        return frame

    def _text(self, *, waiting: bool) -> str:
        said = getattr(self.env.unwrapped, "instructions", None) if self.env is not None else None
        task = self.config.task or (said[0] if said else self.spec.id)
        how = "any key begins" if waiting else "Enter keeps, Backspace discards, Esc stops"
        return f"{task}  ({how})"


def _moves(command: Command) -> bool:
    """Whether an episode begins with it: not with the key that ended the last one."""
    return bool(command.held - {KEEP, DISCARD}) or any(command.axes.values())


def teleoperate(config: TeleopConfig) -> str:
    """Record a person's episodes until the data set holds what is asked for; a line about what came of it.

    Raises:
        RobotRLError: the device is not there, or the env cannot be moved with it.
    """
    with ExitStack() as stack:
        inner: Any = build_env(config.env, num_envs=1, seed=config.seed, num_threads=1, copy=False)
        stack.callback(inner.close)
        device = open_device(config.device, config.script, config.gamepad)
        stack.callback(device.close)
        person = Person(inner.env_spec, device, config)
        env = person.env = EndOnRequest(inner, person.asked)
        writer = stack.enter_context(DatasetWriter(config.out, Schema.from_env(env.env_spec), env=env.env_spec))
        before, wanted = writer.num_episodes, max(config.episodes, writer.num_episodes)
        seed = session_seed(config.seed, len(writer.sessions))
        writer.begin_session(
            seed=seed, env_config=asdict(config.env), policy=f"person, {config.script or config.device}"
        )
        record(
            person,
            Collector(env, seed=seed, dump_dir=Path(config.out).absolute().parent),
            writer,
            episodes=wanted,
            seed=seed,
            task=config.task,
            keep=lambda _: person.kept(),
            max_attempts=1 << 40,
            chunk=1,
            stop=lambda: person.stopped,
        )
        total = writer.num_episodes
    return f"{total - before} episodes recorded; {config.out} holds {total} of {config.episodes}."


__all__ = ["Person", "TeleopConfig", "teleoperate"]
