import math

import pytest

from robotrl.analysis.runs import load_run
from robotrl.configs.compose import CONFIG_DIR, compose, presets
from robotrl.envs.config import build_env
from robotrl.envs.registry import environments
from robotrl.envs.rendering import NO_GL_MESSAGE, has_gl
from robotrl.registry import learners
from robotrl.runners.finish import finish
from robotrl.runners.loop import train
from robotrl.runners.run import Run
from tests.demos import write_demos
from tests.lock_features import options as env_options
from tests.runners.conftest import IMITATES

MORE = {
    "bc": ["policy.wam.autoencoder_steps=2"],
    "ailboost": ["learner.member_env_steps=16"],
    "dreamer": ["schedule.rollout_steps=4", "learner.batch_length=3", "total_env_steps=64"],
    "bc/act": [
        "learner.batch_size=2",
        *(f"policy.lerobot.settings.{name}=16" for name in ("dim_model", "dim_feedforward", "latent_dim")),
        *(f"policy.lerobot.settings.{name}=1" for name in ("n_heads", "n_encoder_layers", "n_vae_encoder_layers")),
    ],
    "bc/diffusion": ["learner.batch_size=2", "policy.lerobot.settings.down_dims=[16,32]"],
}
"""Settings without which one iteration of a learner's preset (or of that preset) makes no update, or takes a minute."""
ALL = [(learner, preset) for learner in learners.names() for preset in presets(learner)]


@pytest.mark.parametrize(("learner", "preset"), ALL)
def test_a_preset_composes_builds_and_runs_an_iteration(learner, preset, tmp_path):
    words = [f"learner={learner}", f"preset={preset}"]
    words += [f"env.options.{name}={value}" for name, value in env_options(preset).items()]
    config = compose(words)
    if config.env.pixels is not None and not has_gl():
        pytest.skip(NO_GL_MESSAGE)
    assert config.preset == f"{learner}/{preset}"
    one = config.num_envs * config.schedule.rollout_steps
    short = [
        "schedule.warmup_env_steps=0",
        f"schedule.updates={min(config.schedule.updates, 1)}",
        f"total_env_steps={one}",
        "eval_episodes=1",
        "env.time_limit=40",
        "video=false",
        f"run_dir={tmp_path / 'r'}",
    ]
    if learner in IMITATES or getattr(config.learner, "demo_ratio", 0.0) > 0.0:
        env = build_env(compose([*words, *short]).env, num_envs=1, seed=0, num_threads=1)
        short.append(f"replay.demos={write_demos(tmp_path / 'demos', env)}")
    run = Run.create(compose([*words, *short, *MORE.get(learner, MORE.get(f"{learner}/{preset}", []))]))
    with run:
        train(**run.parts())
        assert finish(run) == 0
    row = load_run(tmp_path / "r").metrics.iloc[-1]
    losses = [value for key, value in row.items() if str(key).startswith("loss/")]
    assert losses
    assert all(math.isfinite(value) for value in losses)


@pytest.mark.parametrize(("learner", "preset"), [p for p in ALL if p[1] in environments or "/" in p[1]])
def test_a_preset_named_after_an_env_is_for_that_env(learner, preset):
    assert compose([f"learner={learner}", f"preset={preset}"]).env.id == preset
    assert compose([f"learner={learner}", f"env={preset}"]).preset == f"{learner}/{preset}"


@pytest.mark.parametrize("learner", learners.names())
def test_every_learner_has_a_shared_preset_and_its_yaml_starts_from_its_schema(learner):
    assert "shared" in presets(learner)
    text = (CONFIG_DIR / "learner" / f"{learner}.yaml").read_text()
    assert f"defaults:\n  - {learner}_schema\n" in text


def test_every_preset_is_of_a_registered_learner():
    assert {path.name for path in (CONFIG_DIR / "preset").iterdir()} <= set(learners.names())
