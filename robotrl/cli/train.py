"""`robotrl train`: one training run, its continuation, or a sweep."""

from __future__ import annotations

from pathlib import Path

from robotrl.analysis.plots import learning_curve
from robotrl.configs.compose import compose, describe_preset
from robotrl.runners.finish import finish
from robotrl.runners.loop import train
from robotrl.runners.run import Run

HELP = """robotrl train [key=value ...]

  env=HalfCheetah-v5   learner=ppo   policy=auto   (robotrl list shows all)
  preset=auto          values tuned for the env where there are some; shared, demo, none, or a YAML file of your own
  total_env_steps=1e6  seed=0  num_envs=64  device=cpu  num_threads=  run_dir=  name=  init_from=<policy directory>
  eval_every=1e5  eval_episodes=10  checkpoint_every=2e5  checkpoint_keep=3  video=true  wandb=false
  learner.<key>=  policy.<key>=  env.<key>=  env.options.<key>=  schedule.<key>=   everything else, by its dotted name

Continue a run exactly where its last checkpoint stands, also after a kill:
  robotrl train resume=<run directory>
Run all combinations of several values, one process a run; call it again to continue or complete a sweep:
  robotrl train --multirun env=Hopper-v5,Walker2d-v5 seed=0,1,2 run_dir=runs/sweep [--jobs 2]
"""
EXAMPLE = "robotrl train env=InvertedPendulum-v5 total_env_steps=20_000 num_envs=8 run_dir=runs/quick"


def run(argv: list[str]) -> int:
    """Compose, build, train. The loop is called from here, so that the path to the gradient stays short."""
    if "--multirun" in argv or "-m" in argv:
        from robotrl.cli.sweep import sweep

        return sweep(argv)
    resumed = next((word.partition("=")[2] for word in argv if word.startswith("resume=")), None)
    if resumed:
        job = Run.resume(Path(resumed), argv, ["robotrl", "train", *argv])
    else:
        config = compose(argv)
        print(describe_preset(config))
        job = Run.create(config, ["robotrl", "train", *argv])
    with job:
        train(**job.parts())
        return finish(job, plot=learning_curve)
