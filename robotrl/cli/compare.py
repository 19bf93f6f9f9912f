"""`robotrl compare`: two policies on the same episodes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from robotrl.analysis.compare import compare
from robotrl.cli.bar import episodes_bar
from robotrl.configs.compose import from_saved, read_config
from robotrl.envs.config import EnvConfig
from robotrl.runners.eval_result import EvalResult
from robotrl.runners.saved import evaluate_saved, trained_env
from robotrl.types import RobotRLError

HELP = """robotrl compare A B [key=value ...]

A and B are each a run directory (its policy/final), a policy directory, or a JSON file written by `robotrl eval out=`.
Policies are evaluated on the same episodes now, with the env each was trained on; a JSON file is taken as it is, and
its episodes and seed are then used for the other side. Prints the paired difference B - A with its 95 % interval.

  episodes=100  seed=0  num_envs=  num_threads=
  out=          write both evaluations and the difference as JSON
"""
EXAMPLE = "robotrl compare runs/quick/policy/best runs/quick/policy/final episodes=10"


@dataclass(slots=True)
class CompareConfig:
    """The keys of `robotrl compare`."""

    episodes: int = 100
    seed: int = 0
    num_envs: int | None = None
    num_threads: int | None = None
    out: str | None = None


def run(argv: list[str]) -> int:
    """Evaluate what is not evaluated yet, and print the comparison."""
    names = [word for word in argv if "=" not in word and not word.startswith("-")]
    if len(names) != 2:
        raise RobotRLError(f"Compare which two? Got {len(names)} names. As in: {EXAMPLE}")
    config = read_config(CompareConfig(), [w for w in argv if w not in names], example="episodes=100")
    known = [EvalResult.load(name) if Path(name).is_file() else None for name in names]
    given = next((result for result in known if result is not None), None)
    if given is not None:
        config.seed, config.episodes = given.seed, given.n
    a, b = (result or _evaluate(name, config, given) for name, result in zip(names, known, strict=True))
    result = compare(a, b, name_a=names[0], name_b=names[1])
    print(result)
    differ = _differing(a, b)
    if differ:
        print(f"Note: the envs were configured differently: {', '.join(differ)}.")
    if config.out is not None:
        data = {"a": a.to_json(), "b": b.to_json(), "difference": asdict(result.difference)}
        Path(config.out).write_text(json.dumps(data, indent=1) + "\n")
        print(f"written to {config.out}")
    return 0


def _evaluate(name: str, c: CompareConfig, other: EvalResult | None) -> EvalResult:
    env = trained_env(name)
    played = (other.meta.get("env_config") or {}) if other is not None else {}
    if played and played.get("id") != env.id and ":" not in str(played.get("id")):
        task = from_saved(EnvConfig, played, "the evaluation file")
        env = replace(env, id=task.id, options=task.options, randomise=task.randomise)
    with episodes_bar(name) as bar:
        return evaluate_saved(
            name, env, episodes=c.episodes, seed=c.seed, num_envs=c.num_envs, num_threads=c.num_threads, progress=bar
        )


def _differing(a: EvalResult, b: EvalResult) -> list[str]:
    first, second = a.meta.get("env_config") or {}, b.meta.get("env_config") or {}
    return [
        f"env.{key}: {first[key]} and {second[key]}" for key in first if key in second and first[key] != second[key]
    ]
