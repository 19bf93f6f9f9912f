"""`robotrl eval`: play a saved policy and report its score with intervals."""

from __future__ import annotations

from dataclasses import dataclass, field

from robotrl.analysis.predictions import predict_saved
from robotrl.cli.bar import episodes_bar
from robotrl.cli.trained import read_for_policy
from robotrl.configs.compose import read_config
from robotrl.envs.config import EnvConfig
from robotrl.policies.io import load_policy
from robotrl.runners.media import film_saved
from robotrl.runners.saved import evaluate_saved
from robotrl.runners.sheet import sheet_of_tasks
from robotrl.types import RobotRLError

HELP = """robotrl eval policy_dir=<directory> [key=value ...]

  policy_dir=   a policy directory (runs/x/policy/best) or a run directory (its policy/final)
  env=          default: the env the policy was trained on, wrappers included; env.<key>= changes one of its settings
  tasks=        several tasks of the env's family, as in tasks=[pick,press]; episodes= is then of each
  episodes=100  seed=0  num_envs=  explore=false  device=cpu  num_threads=
  out=          write the episodes and the summary as JSON, which `robotrl compare` reads
  video=        write a film of the first episode (.mp4)
  predictions=  of Dreamer: a picture (.png) of what it imagines and what happens; errors and states go beside it
  sheet=        write the first 16 episodes side by side: a film (.mp4), or a picture of moments of each (.png)

Episode i starts from (seed, i) whatever num_envs is, so two policies meet the same starts. The tabletop suite's success
is told per task, wording and colour; env.options.swap=true names another object of the same scene: who listens?
"""
EXAMPLE = "robotrl eval policy_dir=runs/quick episodes=10 seed=1 out=runs/quick/eval-seed1.json"


@dataclass(slots=True)
class EvalConfig:
    """The keys of `robotrl eval`."""

    policy_dir: str = ""
    env: EnvConfig = field(default_factory=EnvConfig)
    tasks: list[str] = field(default_factory=list)
    episodes: int = 100
    seed: int = 0
    num_envs: int | None = None
    explore: bool = False
    device: str = "cpu"
    num_threads: int | None = None
    out: str | None = None
    video: str | None = None
    sheet: str | None = None
    predictions: str | None = None


def read(argv: list[str]) -> EvalConfig:
    """The configuration, with the env of the policy's training for what is not said about it."""
    words = {"example": "policy_dir=runs/x/policy/best", "shorthands": {"env": "env.id"}}
    asked = read_config(EvalConfig(), argv, **words)  # type: ignore[arg-type]
    if not asked.policy_dir:
        raise RobotRLError(f"Which policy? Give policy_dir=, as in: {EXAMPLE}")
    return read_for_policy(asked, asked.policy_dir, argv, **words)  # type: ignore[arg-type]


def run(argv: list[str]) -> int:
    """Evaluate, print the table, write what was asked for."""
    c = read(argv)
    if c.predictions is not None:
        found, files = predict_saved(c.policy_dir, c.env, c.predictions, episodes=min(10, c.episodes), seed=c.seed)
        print(f"{found}\nwritten to {', '.join(map(str, files))}")
    keys = ("tasks", "episodes", "seed", "num_envs", "explore", "device", "num_threads")
    with episodes_bar("eval") as progress:
        result = evaluate_saved(c.policy_dir, c.env, **{key: getattr(c, key) for key in keys}, progress=progress)
    print("\n\n".join(text for text in (str(result), result.tables()) if text))
    if c.out is not None:
        print(f"written to {result.save(c.out)}")
    if c.video is not None:
        print(f"written to {film_saved(c.video, load_policy(c.policy_dir).to(c.device), c.env, seed=c.seed)}")
    if c.sheet is not None:
        policy, shown = load_policy(c.policy_dir).to(c.device), min(16, c.episodes * max(1, len(c.tasks)))
        print(f"written to {sheet_of_tasks(c.sheet, policy, c.env, c.tasks, episodes=shown, seed=c.seed)}")
    return 0
