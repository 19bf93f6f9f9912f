"""`robotrl tune`: search hyper-parameters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robotrl.configs.compose import compose, read_config
from robotrl.runners.tuning import Search, read_space, split_words
from robotrl.types import RobotRLError

HELP = """robotrl tune key=value ... key=range ...

Searches the keys that are given as ranges, with everything else as in `robotrl train`:
  loguniform(1e-5,1e-2)  uniform(0.9,0.999)  int(4,16)  logint(8,512)  choice(tanh,relu)

  run_dir=         directory of the search (study.db, one folder a trial); the same command continues it
  space=           a YAML file with more keys: `learner.gamma: uniform(0.9,0.999)`, `policy.activation: [tanh, relu]`
  trials=20        how many in total
  seeds=1          training seeds a trial is averaged over; more are slower and less lucky
  prune=true       end trials early that lag behind the median at the same env steps (set eval_every= for it)
"""
EXAMPLE = (
    "robotrl tune env=InvertedPendulum-v5 total_env_steps=20_000 num_envs=8 eval_every=5000 trials=3 "
    "'learner.learning_rate=loguniform(1e-4,1e-2)' run_dir=runs/search"
)
OWN = ("trials", "seeds", "prune", "space", "run_dir")


@dataclass(slots=True)
class TuneConfig:
    """The keys of `robotrl tune` that are not those of training."""

    run_dir: str = ""
    space: str | None = None
    trials: int = 20
    seeds: int = 1
    prune: bool = True


def run(argv: list[str]) -> int:
    """Search, and print the best values and the command to train with them."""
    own = [word for word in argv if word.partition("=")[0] in OWN]
    config = read_config(TuneConfig(), own, example="trials=20")
    words, space = split_words([word for word in argv if word not in own])
    space |= read_space(config.space) if config.space else {}
    if not config.run_dir or not space or config.trials < 1 or config.seeds < 1:
        raise RobotRLError(f"A search needs run_dir=, a range, and trials and seeds of at least 1. As in: {EXAMPLE}")
    if any(word.startswith(("seed=", "resume=")) for word in words):
        raise RobotRLError(
            "A search sets the seed itself (seeds= says how many) and continues when it is called again."
        )
    compose([*words, *(f"{key}={searched.values[0]}" for key, searched in space.items())])  # mistakes first
    search = Search(Path(config.run_dir), words, space, seeds=config.seeds, prune=config.prune, say=print)
    status = search.run(config.trials)
    best = search.best()
    if best is not None:
        print(best)
        print("The best of many trials is a lucky one: train it again with new seeds before you report it.")
    if status:
        print("Stopped. To continue: the same command again.")
    return status
