"""Does an environment keep what RobotRL's learners, collector and checkpoints rely on?

`check_env("gym/CartPole-v1")` or `check_env(my_vector_env)` steps it with random actions and collects everything that
is wrong into one error. Every registered env of RobotRL passes; run it on your own before you train on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from robotrl.envs.base import action_spec, array_spec
from robotrl.types import EnvSpec, RobotRLError

_LONGEST = 2000  # steps; episodes with a longer time limit are not run to their end
_PLAIN = (bool, int, float, str, type(None), np.ndarray, np.generic)


def check_env(env: Any, *, random_starts: bool = True, **options: Any) -> None:
    """Raise one error that lists every problem; return silently if there is none.

    Args:
        env: an id that `robotrl.make_vec` takes, or a vector env (which is stepped and left at an arbitrary state).
        random_starts: whether episodes start differently; False for an env that always starts the same.
        options: the task's options, with an id.

    Raises:
        RobotRLError: what is wrong, why it matters and what to do, one line a problem.
    """
    found = find_problems(env, random_starts=random_starts, **options)
    if found:
        name = env if isinstance(env, str) else getattr(getattr(env, "env_spec", None), "id", type(env).__name__)
        lines = "\n".join(f"- {problem}" for problem in found)
        raise RobotRLError(f"The env '{name}' has {len(found)} problem{'s' * (len(found) > 1)}:\n{lines}")


def find_problems(env: Any, *, random_starts: bool = True, **options: Any) -> list[str]:
    """The problems `check_env` would raise, as sentences; an env that cannot be made at all raises."""
    if not isinstance(env, str):
        return _run(env, None, random_starts=random_starts)
    from robotrl.envs import make_vec

    env_id: str = env

    def make(num_envs: int) -> Any:
        return make_vec(env_id, num_envs=num_envs, **options)

    made = make(3)
    try:
        return _run(made, make, random_starts=random_starts)
    finally:
        made.close()


def _run(env: Any, make: Callable[[int], Any] | None, *, random_starts: bool) -> list[str]:
    problems = list(_check_declarations(env))
    if problems:
        return problems  # the other checks read these declarations
    checks: list[tuple[str, Iterator[str]]] = [
        ("stepping it", _check_episodes(env)),
        ("stepping it with actions at their bounds", _check_bounds(env)),
        ("repeating a seed", _check_seeds(env, random_starts=random_starts)),
        ("saving and loading its state", _check_state(env, make)),
    ]
    if make is not None:
        checks.append(("changing num_envs", _check_episode_numbers(env, make)))
        checks.append(("turning autoreset off", _check_waiting(make)))
    for what, check in checks:
        try:
            problems.extend(check)
        except Exception as error:  # a check that cannot finish is a finding, not the end of the others
            problems.append(f"{what.capitalize()} raised {type(error).__name__}: {error} It must run without errors.")
    return list(dict.fromkeys(problems))


def _check_declarations(env: Any) -> Iterator[str]:
    """Spec and spaces."""
    spec = getattr(env, "env_spec", None)
    if not isinstance(spec, EnvSpec):
        yield "It has no env_spec, so no policy can be built for it: set env_spec to a robotrl.types.EnvSpec."
        return
    for name in ("num_envs", "single_observation_space", "observation_space", "single_action_space", "action_space"):
        if not hasattr(env, name):
            yield f"It has no {name}: derive it from robotrl.envs.base.VectorEnv and set it."
            return
    if not isinstance(env.single_observation_space, spaces.Dict):
        yield "Its single_observation_space is no Dict: observations are named groups; call the only one 'state'."
        return
    expected = {name: array_spec(space) for name, space in env.single_observation_space.spaces.items()}
    told = {name: (group.shape, group.dtype) for name, group in spec.obs.items()}
    if told != {name: (group.shape, group.dtype) for name, group in expected.items()}:
        yield (
            f"Its env_spec.obs says {told}, but its observation space has {expected}: a saved policy would not fit. "
            "Build the spec from the space with robotrl.envs.base.array_spec."
        )
    for name, space in env.single_observation_space.spaces.items():
        shape = space.shape or ()
        if name.startswith("image/") and (space.dtype != np.uint8 or len(shape) != 3 or shape[0] > 4):
            yield f"Its image group '{name}' is {space.dtype} {space.shape}: make it uint8 [channels, height, width]."
    try:
        action = action_spec(env.single_action_space)
    except TypeError as error:
        yield f"Its actions cannot be learned: {error}."
        return
    if action != spec.action:
        yield f"Its env_spec.action is {spec.action}, but its action space says {action}: make them agree."
    if not np.all(np.isfinite([*action.low, *action.high])):
        yield "Its actions are unbounded, so a policy could command anything: give the action space finite bounds."
    if env.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
        yield (
            f"Its autoreset mode is {env.metadata.get('autoreset_mode')}: collectors need SAME_STEP, where a step that "
            "ends an episode returns the next one's first observation, and final_obs in the infos. Declare it."
        )


def _check_episodes(env: Any) -> Iterator[str]:
    """Shapes, dtypes, finiteness, final_obs and the time limit, until every row has ended or the limit has passed."""
    limit = env.env_spec.time_limit
    rng = np.random.default_rng(0)
    obs, _ = env.reset(seed=0)
    yield from _check_obs(env, obs, "reset")
    length = np.zeros(env.num_envs, np.int64)
    ended = np.zeros(env.num_envs, np.bool_)
    for _ in range(min(limit or _LONGEST, _LONGEST) + 1):
        kept, kept_copy = obs, {name: value.copy() for name, value in obs.items()}
        obs, reward, terminated, truncated, infos = env.step(_actions(env, rng))
        length += 1
        done = np.asarray(terminated) | np.asarray(truncated)
        found = [
            *_check_obs(env, obs, "step"),
            *_check_returns(env, reward, terminated, truncated),
            *_check_final(env, obs, done, infos),
            *_check_limit(limit, length, terminated, truncated),
        ]
        if getattr(env, "copy", True) and any(not _same(kept[name], kept_copy[name]) for name in kept):
            found.append("It overwrites the observations of the step before although copy is on: return copies.")
        if found:
            yield from found
            return
        length[done] = 0
        ended |= done
        if ended.all():
            return


def _check_obs(env: Any, obs: Mapping[str, Any], where: str) -> Iterator[str]:
    groups = env.single_observation_space.spaces
    if set(obs) != set(groups):
        yield f"Its {where} returns the groups {sorted(obs)}, but its space has {sorted(groups)}: return exactly those."
        return
    for name, space in groups.items():
        value = obs[name]
        shape = (env.num_envs, *space.shape)
        if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype != space.dtype:
            found = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            yield f"Its {where} returns '{name}' as {found}, but its space says {space.dtype} {shape}: make them agree."
        elif not np.all(np.isfinite(value)):
            row = int(np.flatnonzero(~np.isfinite(value.reshape(len(value), -1)).all(axis=1))[0])
            yield f"Its {where} returns a value in '{name}', row {row}, that is not finite: learning would spread it."
        elif isinstance(space, spaces.Box) and not (np.all(value >= space.low) and np.all(value <= space.high)):
            yield f"Its {where} returns '{name}' outside of the bounds of its space: widen the space or clip."


def _check_returns(env: Any, reward: Any, terminated: Any, truncated: Any) -> Iterator[str]:
    if not isinstance(reward, np.ndarray) or reward.shape != (env.num_envs,) or reward.dtype.kind != "f":
        yield f"Its step returns rewards as {type(reward).__name__}: return a floating-point array [num_envs]."
    elif not np.all(np.isfinite(reward)):
        yield "Its step returns a reward that is not finite: learning would spread it."
    for name, value in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(value, np.ndarray) or value.shape != (env.num_envs,) or value.dtype != np.bool_:
            yield f"Its step returns {name} as {type(value).__name__}: return a bool array [num_envs]."


def _check_final(env: Any, obs: Mapping[str, Any], done: NDArray[np.bool_], infos: Mapping[str, Any]) -> Iterator[str]:
    if not done.any():
        if "final_obs" in infos:
            yield "Its infos have final_obs although no row ended: leave both final_obs and _final_obs out then."
        return
    final, valid = infos.get("final_obs"), infos.get("_final_obs")
    if not isinstance(final, Mapping) or valid is None:
        yield (
            "Its infos lack final_obs (a dict of groups) and _final_obs (bool [num_envs]) where an episode ended: "
            "without the last observation a truncated episode cannot bootstrap."
        )
        return
    if not np.array_equal(valid, done):
        yield "Its infos['_final_obs'] is not where episodes ended (terminated or truncated): make it so."
        return
    for row in np.flatnonzero(done):
        if set(final) != set(obs):
            yield f"Its final_obs has the groups {sorted(final)}, its observation {sorted(obs)}: make them agree."
            return
        if all(_same(final[name][row], obs[name][row]) for name in obs):
            yield (
                f"Its final_obs of row {row} is the next episode's first observation: store the last observation "
                "before the reset, else values bootstrap from the wrong episode."
            )
            return


def _check_limit(
    limit: int | None, length: NDArray[np.int64], terminated: NDArray[np.bool_], truncated: NDArray[np.bool_]
) -> Iterator[str]:
    if limit is None:
        return
    at_limit = length == limit
    if np.any(at_limit & terminated & ~truncated):
        yield (
            f"It terminates at its time limit of {limit} steps: running out of time is a truncation, after which "
            "values bootstrap. Set truncated, not terminated."
        )
    elif np.any(at_limit & ~truncated) or np.any(length > limit):
        yield f"It goes on beyond its time limit of {limit} steps: truncate there, or set env_spec.time_limit to None."


def _check_bounds(env: Any) -> Iterator[str]:
    """The lowest and the highest action."""
    env.reset(seed=0)
    space = env.action_space
    extremes = (space.low, space.high) if isinstance(space, spaces.Box) else (space.start, space.start + space.nvec - 1)
    for actions in extremes:
        obs, reward, terminated, truncated, _ = env.step(np.array(actions, space.dtype))
        yield from _check_obs(env, obs, "step at an action bound")
        yield from _check_returns(env, reward, terminated, truncated)


def _check_seeds(env: Any, *, random_starts: bool) -> Iterator[str]:
    """The same seed repeats, another differs, and so does the next reset."""
    first, again, other = (_trace(env, seed, 30) for seed in (5, 5, 6))
    if not _same_trace(first, again):
        yield (
            "It gives other results with the same seed and actions, so no run could be repeated: draw every random "
            "number from the generator that reset(seed=...) sets."
        )
    if random_starts and _same_trace(first, other):
        yield (
            "It gives the same results with another seed: use the seed of reset(seed=...), or check it with "
            "random_starts=False if its episodes are meant to be all alike."
        )
    start, _ = env.reset(seed=5)
    start = {name: value.copy() for name, value in start.items()}
    following, _ = env.reset()
    if random_starts and all(_same(start[name], following[name]) for name in start):
        yield "Its reset() without a seed starts the same episodes again: go on to the next ones."


def _check_state(env: Any, make: Callable[[int], Any] | None) -> Iterator[str]:
    """Exact continuation where it is claimed, else the following episodes."""
    rng = np.random.default_rng(1)
    env.reset(seed=7)
    for _ in range(10):
        env.step(_actions(env, rng))
    state = env.state_dict()
    strange = sorted(set(_strange(state, "")))
    if strange:
        yield f"Its state_dict holds objects ({', '.join(strange)}): only numbers, texts and arrays are saved."
    fresh = env if make is None else make(env.num_envs)
    try:
        if fresh is not env:
            fresh.reset(seed=8)
        if env.env_spec.exact_state:
            actions = [_actions(env, rng) for _ in range(30)]
            expected = [_copied(env.step(action)) for action in actions]
            fresh.load_state_dict(state)
            if not _same_trace(expected, [_copied(fresh.step(action)) for action in actions]):
                yield (
                    "It claims exact_state, but continues differently from a loaded state: save everything a step "
                    "reads (simulator warm start, random streams, counters), or set exact_state=False."
                )
        else:
            expected_obs = _copied(env.reset())[0]
            fresh.load_state_dict(state)
            found = fresh.reset()[0]
            if not all(_same(expected_obs[name], found[name]) for name in expected_obs):
                yield "Its reset() after load_state_dict does not start the episodes that would have followed."
    finally:
        if fresh is not env:
            fresh.close()


def _check_episode_numbers(env: Any, make: Callable[[int], Any]) -> Iterator[str]:
    """Episode i starts from (seed, i), however many envs run side by side, also after an autoreset."""
    count, rng = env.num_envs, np.random.default_rng(2)
    single = make(1)
    try:
        singles = [_copied(single.reset(seed=11)[0])] + [_copied(single.reset()[0]) for _ in range(2 * count - 1)]
    finally:
        single.close()
    obs, _ = env.reset(seed=11)
    starts = {row: _row(obs, row) for row in range(count)}
    second = np.zeros(count, np.bool_)
    for _ in range(min(env.env_spec.time_limit or _LONGEST, _LONGEST) + 1):
        obs, _, terminated, truncated, _ = env.step(_actions(env, rng))
        for row in np.flatnonzero((terminated | truncated) & ~second):
            starts[count + int(row)] = _row(obs, row)
            second[row] = True
        if second.all():
            break
    for i, start in sorted(starts.items()):
        if not all(_same(start[name], singles[i][name][0]) for name in start):
            how = "a reset" if i < count else "an autoreset"
            yield (
                f"Its episode {i}, begun by {how} with num_envs={count}, starts differently with num_envs=1: an "
                "evaluation would depend on num_envs. Start slot j's k-th episode from (seed, j + k * num_envs) alone, "
                "see robotrl.envs.seeding."
            )
            return


def _check_waiting(make: Callable[[int], Any]) -> Iterator[str]:
    """With autoreset off, finished rows wait for reset_mask, and only the rows named are reset."""
    env = make(3)
    try:
        if not hasattr(env, "disable_autoreset"):
            return
        env.disable_autoreset()
        rng = np.random.default_rng(3)
        env.reset(seed=13)
        for _ in range(min(env.env_spec.time_limit or _LONGEST, _LONGEST) + 1):
            before, _, terminated, truncated, infos = _copied(env.step(_actions(env, rng)))
            done = terminated | truncated
            if "final_obs" in infos:
                yield "Its infos have final_obs although disable_autoreset() was called: finished rows must wait."
                return
            if done.any():
                break
        else:
            return
        after = _copied(env.reset(options={"reset_mask": done})[0])
        for row in range(env.num_envs):
            kept = all(_same(before[name][row], after[name][row]) for name in before)
            if kept == bool(done[row]):
                yield "Its reset(options={'reset_mask': mask}) does not reset exactly the rows of the mask: make it so."
                return
    finally:
        env.close()


def _actions(env: Any, rng: np.random.Generator) -> NDArray[Any]:
    space = env.action_space
    if isinstance(space, spaces.Box):
        return rng.uniform(np.maximum(space.low, -1e6), np.minimum(space.high, 1e6)).astype(space.dtype)
    return rng.integers(space.start, space.start + space.nvec).astype(space.dtype)


def _trace(env: Any, seed: int, steps: int) -> list[Any]:
    rng = np.random.default_rng(4)
    obs, _ = env.reset(seed=seed)
    return [(_copied(obs),)] + [_copied(env.step(_actions(env, rng))) for _ in range(steps)]


def _copied(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return tuple(_copied(item) for item in value) if isinstance(value, tuple) else value


def _row(obs: Mapping[str, Any], row: Any) -> dict[str, Any]:
    return {name: value[row].copy() for name, value in obs.items()}


def _same(a: Any, b: Any) -> bool:
    return np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind == "f")


def _same_trace(a: list[Any], b: list[Any]) -> bool:
    """Whether observations, rewards and ends are equal to the bit; infos are not compared."""
    for one, two in zip(a, b, strict=True):
        if not all(_same(one[0][name], two[0][name]) for name in one[0]):
            return False
        if not all(_same(x, y) for x, y in zip(one[1:4], two[1:4], strict=True)):
            return False
    return True


def _strange(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strange(item, f"{path}/{key}")
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strange(item, path)
    elif not isinstance(value, _PLAIN) or (isinstance(value, np.ndarray) and value.dtype.hasobject):
        yield f"{path} is a {type(value).__name__}"


__all__ = ["check_env", "find_problems"]
