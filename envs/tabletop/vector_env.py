"""The vector environment of the tabletop suite: steps, observes, rewards, restarts, and saves itself exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np
from gymnasium.vector.utils import batch_space
from mujoco.batch import Batch
from numpy.typing import NDArray

from robotrl.envs.base import ObsDict, StepResult, VectorEnv, action_spec
from robotrl.envs.native.vector_env import _check_positive, _cores
from robotrl.envs.native.view import View
from robotrl.envs.randomise import Randomiser, Record
from robotrl.envs.seeding import EpisodeStreams
from robotrl.envs.tabletop import language, layout, observation, randomisation
from robotrl.envs.tabletop.controller import Controller
from robotrl.envs.tabletop.faults import Faults
from robotrl.envs.tabletop.kinematics import Kinematics
from robotrl.envs.tabletop.reader import Reader
from robotrl.envs.tabletop.scene import CONTROL_HZ, Addresses, build_model, rest_posture
from robotrl.envs.tabletop.swap import Swap
from robotrl.envs.tabletop.tasks import TASKS
from robotrl.envs.tabletop.tasks.base import TabletopTask, labels
from robotrl.types import ArraySpec, EnvSpec, RobotRLError, StateDict

STATE_FORMAT = 1
RAMP = 5
"""Parts of a control step in each of which the servos' commands move on, so that they get no jerks."""
_SHARES = (np.arange(1, RAMP + 1) / RAMP)[:, None, None]
HOLD = round(0.5 * CONTROL_HZ)
"""Control steps that a goal has to be kept to count: half a second."""


class TabletopVectorEnv(VectorEnv):
    """One task of the suite; see `robotrl.envs.base.VectorEnv` for the conventions and `make` for the options.

    Observations: `state` (float32, what a real arm knows), `privileged` (float32, ground truth) and `instruction`
    (int64 tokens); `robotrl.envs.tabletop.observation` names their parts. Images come with `env.pixels`, from the
    cameras `front` and `wrist`. Infos: `success` (the goal kept for half a second), `goal_met` (at this moment),
    `progress`, `clipped` (how many numbers of the action were out of range), `unreachable` and `lost`, all `[N]`.
    """

    view: ClassVar[dict[str, Any]] = {"distance": 1.2, "azimuth": 140.0, "elevation": -28.0, "lookat": (0.36, 0, 0.16)}
    walks: ClassVar[bool] = False
    default_camera_config: ClassVar[None] = None

    def __init__(
        self,
        env_id: str,
        *,
        num_envs: int,
        num_threads: int | None = None,
        copy: bool = True,
        max_episode_steps: int | None = -1,
        randomise: Any = None,
        control: str = "delta",
        reward: str = "sparse",
        split: str = "all",
        swap: bool = False,
        terminate_on_success: bool = True,
        timestep: float | None = None,
        memory: int | None = None,
    ) -> None:
        self.name = env_id.partition("/")[2]
        self.task = TASKS[self.name]()
        self.num_envs, self.copy = num_envs, copy
        _check_positive("num_threads", num_threads)
        limit = round(self.task.seconds * CONTROL_HZ) if max_episode_steps == -1 else max_episode_steps
        _check_positive("max_episode_steps", limit)
        self.model = build_model(self.task.props, timestep=timestep, memory=memory)
        self.substeps = round(1.0 / (CONTROL_HZ * self.model.opt.timestep))
        self._shaped, self._terminates = reward == "shaped", terminate_on_success
        self._colours = self.task.allowed(split)
        threads = _cores() if num_threads is None else num_threads
        self.batch = Batch(self.model, num_envs, min(threads, num_envs))
        self.addresses = Addresses(self.model, self.task.props)
        self.kinematics = Kinematics(self.model)
        self._rest = rest_posture(self.kinematics)
        self.controller = Controller(self.kinematics, num_envs, mode=control, rest=self._rest)
        self._initial_row: NDArray[np.float64] = self.batch.state[0].copy()
        self._ctrl: NDArray[np.float64] = self.batch.bind("ctrl")
        if isinstance(randomise, str):
            randomise = randomisation.terms(randomise, self.model)
        self._randomiser = Randomiser(randomise, self.model, self.batch) if randomise else None
        coloured = self.addresses.object_geom or self.addresses.mark_geom
        self._colour: NDArray[np.float32] | None = self.batch.expand("geom_rgba") if coloured else None
        self.layout = np.zeros((num_envs, len(layout.NAMES)))
        self._swap = Swap(self.task, num_envs, self._colours, HOLD) if swap else None
        self.outcomes = ("original_success",) if swap else ()
        self._reader = Reader(self.batch, self.addresses, self.kinematics, self.task)
        self._faults = Faults(env_id, self.batch, self._reader)
        self._limit = np.iinfo(np.int64).max if limit is None else limit
        self._steps, self._episode = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)
        self._held: NDArray[np.int64] = np.zeros(num_envs, np.int64)
        self._progress = np.zeros(num_envs)
        self._obs = {name: np.zeros((num_envs, size), np.float32) for name, size in observation.SIZES.items()}
        self._obs["instruction"] = np.zeros((num_envs, language.LENGTH), np.int64)
        self.instructions: list[str] = [""] * num_envs
        """The instruction of each row's episode, in words."""
        self._seed: int | None = None
        self._view: View | None = None
        self._make_spaces(env_id, limit)

    def _make_spaces(self, env_id: str, limit: int | None) -> None:
        spaces = _group_spaces()
        self.single_observation_space = gymnasium.spaces.Dict(spaces, sort_keys=False)
        self.single_action_space = self.controller.action_space()
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        units = {"state": observation.STATE_UNIT, "privileged": observation.PRIVILEGED_UNIT, "instruction": "tokens"}
        self.env_spec = EnvSpec(
            id=env_id,
            obs={name: ArraySpec(space.shape, space.dtype.name, units[name]) for name, space in spaces.items()},
            action=action_spec(self.single_action_space),
            control_hz=CONTROL_HZ,
            time_limit=limit,
            success=f"{self.task.success}, kept for half a second",
            exact_state=True,
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsDict, dict[str, NDArray[Any]]]:
        """Start an episode in every row.

        Args:
            seed: episode numbers start again from 0 under this seed; None: the next episodes under the same seed.
            options: `{"episode": int [N]}` says which episodes to start, `{"reset_mask": bool [N]}` in which rows only,
                `{"layout": {name: [N]}}` where things are put instead of being drawn, as `layouts` returned it.
        """
        options = options or {}
        mask = options.get("reset_mask")
        rows: NDArray[np.intp] = np.arange(self.num_envs) if mask is None else np.flatnonzero(mask)
        if seed is None and self._seed is not None:
            self._episode[rows] += self.num_envs
        else:
            self._seed = self.default_seed if seed is None else seed
            self._streams = EpisodeStreams(self._seed)
            self._episode[:] = np.arange(self.num_envs)
        if "episode" in options:
            self._episode[rows] = np.asarray(options["episode"])[rows]
        given = layout.rows_from(options["layout"], self.num_envs)[rows] if "layout" in options else None
        self._start_episodes(rows.astype(np.int32), given)
        return self._returned_obs(), {}

    def step(self, actions: NDArray[np.floating[Any]]) -> StepResult:
        """Apply `actions [N, A]` (see `robotrl.envs.tabletop.controller`) for one control step in every row."""
        if self._seed is None:
            raise RobotRLError("No episode has started yet. Call reset() before step().")
        c = self.controller
        start = np.column_stack([c.q, c.fingers])
        c.command(actions)
        ramp = start + _SHARES * (np.column_stack([c.q, c.fingers]) - start)
        for part in range(RAMP):
            self._ctrl[:] = ramp[part]
            self._faults.step(self.substeps * (part + 1) // RAMP - self.substeps * part // RAMP)
        self._faults.check(self._seed, self._episode, self._steps)
        before = self._progress.copy() if self._shaped else None
        met = self._observe(slice(None))
        self._held = np.where(met, self._held + 1, 0)
        success = self._held >= HOLD
        self._obs["privileged"][:, observation.PRIVILEGED["held_for"]] = np.minimum(self._held / HOLD, 1.0)[:, None]
        reward = success.astype(np.float64)
        if before is not None:
            reward += self._progress - before
        self._steps += 1
        lost = self._reader.lost()  # a failure: no hand gets it back
        terminated = success | lost if self._terminates else lost.copy()
        truncated = self._steps >= self._limit
        infos: dict[str, Any] = {
            "success": success,
            "_success": np.ones(self.num_envs, np.bool_),
            "goal_met": met,
            "progress": self._progress.copy(),
            "clipped": c.clipped.copy(),
            "unreachable": c.unreachable.copy(),
            "lost": lost,
        }
        if self._swap is not None:
            infos["original_success"] = self._swap.count()
        done = terminated | truncated
        if self._autoreset and done.any():
            self._restart(done, infos)
        return self._returned_obs(), reward, terminated, truncated, infos

    def _restart(self, done: NDArray[np.bool_], infos: dict[str, Any]) -> None:
        rows = np.flatnonzero(done).astype(np.int32)
        infos["final_obs"] = {name: value.copy() for name, value in self._obs.items()}
        infos["_final_obs"] = done
        self._episode[rows] += self.num_envs
        self._start_episodes(rows, None)

    def _start_episodes(self, rows: NDArray[np.int32], given: NDArray[np.float64] | None) -> None:
        assert self._seed is not None
        if not rows.size:
            return
        if self._randomiser is not None:
            self._randomiser.start_episodes(self._seed, rows, self._episode[rows])
        drawn = self._draw(self._episode[rows].tolist()) if given is None else given
        self.layout[rows] = drawn if self._swap is None else self._swap.start(rows, drawn)
        state = self.batch.state
        state[rows] = self._initial_row
        self.batch.warning[rows] = 0
        self._reader.place(rows, self.layout[rows])
        self._ctrl[rows, :7], self._ctrl[rows, 7] = self.layout[rows, :7], 0.04
        self.controller.reset(rows, self.layout[rows, :7])
        self._steps[rows], self._held[rows] = 0, 0
        self._reader.introduce(self.layout[rows], rows, self._obs["privileged"])
        self._show(rows)
        self._observe(rows)

    def _draw(self, episodes: list[int]) -> NDArray[np.float64]:
        streams, colours = self._streams, self._colours  # `at` moves one generator, so one after the other
        return np.stack([_episode(layout.Draw(streams.at(e), colours), self._rest, self.task) for e in episodes])

    def _show(self, rows: NDArray[np.int32]) -> None:
        """Colours and words of the episodes that `rows` start."""
        a, tokens = self.addresses, language.tokenizer()
        if self._colour is not None:
            for kind, geoms in (("object", a.object_geom), ("mark", a.mark_geom)):
                for k, geom in enumerate(geoms):
                    self._colour[rows, geom] = layout.rgba(self.layout[rows], f"{kind}{k}/colour")
        for row in rows.tolist():
            self.instructions[row] = self.task.instruction(self.layout[row])
            self._obs["instruction"][row] = tokens.encode(self.instructions[row])

    def _observe(self, rows: Any) -> NDArray[np.bool_]:
        """Write the observations of `rows`; whether their goals are met now."""
        snapshot = self._reader.read(rows, self.layout)
        self._progress[rows] = self.task.progress(snapshot)
        if self._swap is not None:
            self._swap.see(snapshot, rows)
        self._reader.write(snapshot, rows, self.controller, self._obs)
        return self.task.solved(snapshot)

    def _returned_obs(self) -> ObsDict:
        return {name: value.copy() for name, value in self._obs.items()} if self.copy else dict(self._obs)

    @property
    def randomisation(self) -> Record:
        """Physics and looks in force: `field/object` -> one number a simulation `[N]`; empty without `randomise`."""
        return {} if self._randomiser is None else self._randomiser.record

    @property
    def layouts(self) -> dict[str, NDArray[np.float64]]:
        """How the running episodes started: name -> `[N]`; `reset(options={"layout": ...})` starts them again."""
        drawn = self.layout if self._swap is None else self._swap.drawn  # a swap follows from what was drawn
        return {name: drawn[:, k].copy() for k, name in enumerate(layout.NAMES)}

    @property
    def episode_labels(self) -> dict[str, list[str]]:
        """Task, instruction, wording, and task with colour (`pick green, held out`), a text a row."""
        return labels(self.name, self.task, self.layout)

    def state_dict(self) -> StateDict:
        """State rows, commands, episode counters, the seed, and what was drawn."""
        if self._seed is None:
            raise RobotRLError("This env has no state yet. Call reset() before state_dict().")
        return {
            "format": STATE_FORMAT,
            "id": self.env_spec.id,
            "control": self.controller.mode,
            "seed": self._seed,
            "rows": self.batch.state.copy(),
            "warnings": self.batch.warning.copy(),
            "steps": self._steps.copy(),
            "episode": self._episode.copy(),
            "held": self._held.copy(),
            "progress": self._progress.copy(),
            "layout": self.layout.copy(),
            **({} if self._swap is None else {"swap": self._swap.state_dict()}),
            "controller": self.controller.state_dict(),
            "obs": {name: value.copy() for name, value in self._obs.items()},
            "randomisation": self.randomisation,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken, with any number of threads.

        Raises:
            RobotRLError: the state is of another task, control mode or number of envs.
        """
        saved = (state["id"], state["control"], np.shape(state["rows"]))
        mine = (self.env_spec.id, self.controller.mode, self.batch.state.shape)
        if saved != mine:
            raise RobotRLError(
                f"The saved state is of {saved[0]} with control={saved[1]} and rows {saved[2]}, but this env is "
                f"{mine[0]} with control={mine[1]} and rows {mine[2]}. Make the env as the run that saved it did."
            )
        self._seed = int(state["seed"])
        self._streams = EpisodeStreams(self._seed)
        self.batch.state[:], self.batch.warning[:] = state["rows"], state["warnings"]
        self._steps[:], self._episode[:], self._held[:] = state["steps"], state["episode"], state["held"]
        self._progress[:], self.layout[:] = state["progress"], state["layout"]
        self.controller.load_state_dict(state["controller"])
        if self._randomiser is not None:
            self._randomiser.resume(self._seed, state["randomisation"])
        elif state["randomisation"]:
            raise RobotRLError("The saved state is randomised, but this env is not. Give it 'randomise' too.")
        if self._swap is not None:
            self._swap.load_state_dict(state["swap"])
        self._show(np.arange(self.num_envs, dtype=np.int32))
        for name, value in self._obs.items():
            value[:] = state["obs"][name]

    def render_rows(
        self, rows: Sequence[int], *, height: int, width: int, camera: str | int | None = None
    ) -> NDArray[np.uint8]:
        """Pictures `[len(rows), height, width, 3]` of the simulations `rows` as they are now.

        Args:
            rows: which simulations.
            height: pixels.
            width: pixels.
            camera: `front`, `wrist`, or None: from beside the table.
        """
        if self._view is None:
            self._view = View(self, self.batch)
        return self._view.render(rows, height=height, width=width, camera=camera)

    def new_data(self) -> mujoco.MjData:
        """A state of the model of its own, for a viewer; see `copy_state`."""
        return mujoco.MjData(self.model)

    def copy_state(self, data: mujoco.MjData, row: int = 0) -> None:
        """Write the simulation `row` as it is now into `data`, with all that follows from its positions."""
        mujoco.mj_setState(self.model, data, self.batch.state[row], mujoco.mjtState.mjSTATE_INTEGRATION.value)
        mujoco.mj_forward(self.model, data)

    def close_extras(self, **kwargs: Any) -> None:
        """Free the renderer, if pictures were taken."""
        if self._view is not None:
            self._view.close()


def _group_spaces() -> dict[str, Any]:
    """The observation groups of one env."""
    box = gymnasium.spaces.Box
    sizes = observation.SIZES.items()
    spaces: dict[str, Any] = {name: box(-np.inf, np.inf, (size,), np.float32) for name, size in sizes}
    spaces["instruction"] = box(0, len(language.tokenizer()) - 1, (language.LENGTH,), np.int64)
    return spaces


def _episode(draw: layout.Draw, rest: NDArray[np.float64], task: TabletopTask) -> NDArray[np.float64]:
    """One episode's start: posture, what the task draws, the wording."""
    noise = draw.rng.uniform(-0.06, 0.06, 7)
    for i in range(7):
        draw[f"joint{i + 1}"] = float(rest[i] + noise[i])
    task.draw(draw)
    draw["paraphrase"] = int(draw.rng.integers(len(task.templates)))
    return draw.values
