import shutil
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from robotrl.configs import compose as module
from robotrl.configs.compose import compose, describe_preset, dump_config, find_preset, load_config, read_config
from robotrl.configs.schema import TrainConfig
from robotrl.envs.config import PixelsConfig
from robotrl.types import RobotRLError

pytestmark = pytest.mark.usefixtures("fake")


def make(*words):
    return compose(["learner=fake", *words])


def test_shorthands_and_dotted_keys_end_in_plain_dataclasses(fake):
    config = make("env=Hopper-v5", "policy=gru", "learner.gamma=0.5", "env.time_limit=9", "policy.hidden=[8,4]")
    assert type(config) is TrainConfig
    assert type(config.learner) is fake
    assert (config.env.id, config.policy.kind, config.learner_name) == ("Hopper-v5", "gru", "fake")
    assert (config.learner.gamma, config.env.time_limit, config.policy.hidden) == (0.5, 9, [8, 4])


def test_keyword_arguments_compose_like_a_command_line():
    words = make("env=Hopper-v5", "learner.gamma=0.5", "env.options.a=[1,2]", "run_dir=a b")
    nested = {
        "learner": "fake",
        "env": "Hopper-v5",
        "learner.gamma": 0.5,
        "env.options": {"a": [1, 2]},
        "run_dir": "a b",
    }
    assert compose(nested) == words


def test_whole_numbers_may_be_written_as_powers_of_ten():
    assert make("total_env_steps=1e6", "num_envs=1_6").total_env_steps == 1_000_000


def test_optional_parts_switch_on_when_one_of_their_keys_is_set():
    assert make().env.pixels is None
    assert make("env.pixels.height=32").env.pixels == PixelsConfig(height=32)
    assert make("env.pixels={}").env.pixels == PixelsConfig()
    assert make("env.pixels.height=32", "env.pixels=null").env.pixels is None


def test_free_form_options_take_any_key_and_merge():
    config = make("env.options={a:1,b:{c:2}}", "env.options.b.d=3", "+env.options.e=x", "env.groups={all:[x,y]}")
    assert config.env.options == {"a": 1, "b": {"c": 2, "d": 3}, "e": "x"}
    assert config.env.groups == {"all": ["x", "y"]}


def test_paths_need_no_quotes():
    assert make("run_dir=/home/josé/a=b (1)").run_dir == "/home/josé/a=b (1)"
    assert make("run_dir='runs/a,b'").run_dir == "runs/a,b"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("env=Hoper-v5", r"Unknown env 'Hoper-v5'\. Did you mean 'Hopper-v5'.*robotrl list envs"),
        ("policy=grru", r"Unknown policy 'grru'\. Did you mean 'gru'"),
        ("learner.gama=0.9", r"Unknown key 'learner\.gama'\. Did you mean 'learner\.gamma'\?"),
        ("+learner.gama=0.9", r"Unknown key 'learner\.gama'\. Did you mean 'learner\.gamma'\?"),
        ("++learner={gama:1}", r"Unknown key 'learner\.gama'\. Did you mean 'learner\.gamma'\?"),
        ("gamma=0.9", r"Unknown key 'gamma'\. Did you mean 'learner\.gamma'\?"),
        ("num_env=4", r"Unknown key 'num_env'\. Did you mean 'num_envs'\?"),
        ("env.pixels.hight=4", r"Unknown key 'env\.pixels\.hight'\. Did you mean 'env\.pixels\.height'"),
        ("policy.hidden.0=4", r"Unknown key 'policy\.hidden\.0'"),
        ("xyzzy=1", r"Unknown key 'xyzzy'\. The keys here: env, learner"),
        ("hydra.run.dir=x", r"Unknown key 'hydra\.run\.dir'"),
        ("learner.gamma=abc", r"learner\.gamma is 'abc'; it must be a number\."),
        ("learner.clip=abc", r"learner\.clip is 'abc'; it must be a number or null\."),
        ("num_envs=1.5", r"num_envs is 1\.5; it must be a whole number\."),
        ("learner.flag=maybe", r"learner\.flag is 'maybe'; it must be true or false\."),
        ("learner.sizes=[1,b]", r"learner\.sizes is \[1, 'b'\]; it must be a list of whole numbers"),
        ("learner.sizes=3", r"learner\.sizes is 3; it must be a list of whole numbers"),
        ("seed=null", r"seed is None; it must be a whole number\."),
        ("learner.gamma=0", r"learner\.gamma is 0\.0; it must be in \(0, 1\]\."),
        ("num_envs=0", r"num_envs is 0; it must be at least 1\."),
        ("schedule.rollout_steps=0", r"schedule\.rollout_steps is 0; it must be at least 1\."),
        ("schedule.updates=nan", r"schedule\.updates is nan; it must be a number\."),
        ("num_threads=0", r"num_threads is 0; it must be at least 1\."),
        ("device=tpu", r"device is 'tpu'; it must be cpu, cuda"),
        ("env=[1]", r"env=\[1\]: give a name"),
        ("seed", r"Cannot read 'seed': settings are written key=value, as in env=HalfCheetah-v5"),
        ("--foo", r"Unknown option '--foo'"),
        ("~seed", r"'~seed': keys cannot be deleted"),
        ("seed=1,2", r"several values.* add --multirun.*seed=\[1,2\]"),
        ("learner.gamma=f(3)", r"Cannot read the value of 'learner\.gamma=f\(3\)'.*Unknown function 'f'"),
        ("preset=sharde", r"Unknown preset 'sharde' for fake\."),
        ("preset=mine.yaml", r"There is no preset file 'mine\.yaml'"),
    ],
)
def test_a_mistake_is_told_in_the_users_words(word, message):
    with pytest.raises(RobotRLError, match=message) as caught:
        make(word)
    assert "omegaconf" not in str(caught.value).lower()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["learner=dac", "learner.sac.demo_ratio=2"], r"^learner\.sac\.demo_ratio is 2\.0; it must lie in \[0, 1\]"),
        (["learner=dac", "learner.penalty_coef=0"], r"^learner\.penalty_coef is 0\.0; it must be greater"),
        (["learner=props", "learner.ppo.gamma=2"], r"^learner\.ppo\.gamma is 2\.0"),
    ],
)
def test_a_key_of_a_nested_configuration_is_named_in_full(words, message):
    with pytest.raises(RobotRLError, match=message):
        compose(words)


def test_an_unknown_learner_is_named_with_the_nearest():
    with pytest.raises(RobotRLError, match=r"Unknown learner 'ppoo'\. Did you mean 'ppo'.*robotrl list learners"):
        compose(["learner=ppoo"])


def test_a_learner_of_an_installed_package_is_chosen_by_its_import_string(monkeypatch):
    monkeypatch.setitem(sys.modules, "outside_package", SimpleNamespace(Outside=Outside))
    config = compose(["learner=outside_package:Outside", "learner.rate=0.5"])
    assert (config.learner, config.learner_name) == (OutsideConfig(0.5), "outside_package:Outside")


@dataclass(slots=True)
class OutsideConfig:
    rate: float = 0.1


class Outside:
    config_class = OutsideConfig


@pytest.fixture
def own_presets(tmp_path, monkeypatch):
    """The package's configuration folder, copied, with a tuned preset for `fake` on Hopper and a broken one."""
    root = tmp_path / "configs"
    shutil.copytree(module.CONFIG_DIR, root, ignore=shutil.ignore_patterns("__pycache__"))
    presets = root / "preset" / "fake"
    presets.mkdir(parents=True)
    (presets / "shared.yaml").write_text("learner: {gamma: 0.7}\n")
    (presets / "Hopper-v5.yaml").write_text("env: {id: Hopper-v5}\nlearner: {gamma: 0.9}\nnum_envs: 8\n")
    (presets / "typo.yaml").write_text("learner: {gama: 0.9}\n")
    (presets / "wrong.yaml").write_text("learner: {gamma: much}\n")
    monkeypatch.setattr(module, "CONFIG_DIR", root)
    return presets


@pytest.mark.usefixtures("own_presets")
def test_auto_takes_the_values_tuned_for_the_env_and_says_so():
    tuned, other = make("env=Hopper-v5"), make("env=Walker2d-v5")
    assert (tuned.learner.gamma, tuned.num_envs, tuned.preset) == (0.9, 8, "fake/Hopper-v5")
    assert "tuned for this env" in describe_preset(tuned)
    assert (other.learner.gamma, other.preset) == (0.7, "fake/shared")
    assert "for all envs" in describe_preset(other)
    assert make("env=Hopper-v5", "preset=shared").learner.gamma == 0.7
    assert make("env=Hopper-v5", "preset=none").learner.gamma == 0.99
    assert "no preset" in describe_preset(make("preset=none"))


@pytest.mark.usefixtures("own_presets")
def test_the_command_line_wins_over_a_preset_and_a_preset_may_choose_the_env():
    config = make("preset=Hopper-v5", "learner.gamma=0.8", "num_envs=2")
    assert (config.env.id, config.learner.gamma, config.num_envs) == ("Hopper-v5", 0.8, 2)
    assert make("preset=fake/Hopper-v5", "env=Walker2d-v5").env.id == "Walker2d-v5"


@pytest.mark.usefixtures("own_presets")
def test_a_preset_with_a_typo_names_file_and_key():
    with pytest.raises(
        RobotRLError, match=r"Unknown key 'learner\.gama' in the preset .*fake/typo\.yaml\. Did you mean"
    ):
        make("preset=typo")
    with pytest.raises(
        RobotRLError, match=r"Wrong value for 'learner\.gamma' in the preset .*fake/wrong\.yaml: .* number"
    ):
        make("preset=wrong")


def test_a_preset_file_of_the_users_own_is_checked_the_same_way(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("learner:\n  gamma: 0.6\nenv: {options: {x: 1}}\n")
    config = make(f"preset={path}")
    assert (config.learner.gamma, config.env.options, config.preset) == (0.6, {"x": 1}, str(path))
    assert str(path) in describe_preset(config)
    path.write_text("learner: {gama: 0.6}\n")
    with pytest.raises(RobotRLError, match=r"Unknown key 'learner\.gama' in the preset .*mine\.yaml\. Did you mean"):
        make(f"preset={path}")
    path.write_text("learner: {gamma: much}\n")
    with pytest.raises(RobotRLError, match=r"learner\.gamma is 'much' \(in the preset .*mine\.yaml\)"):
        make(f"preset={path}")
    path.write_text("learner: {gamma")
    with pytest.raises(RobotRLError, match=r"Cannot read the preset .*mine\.yaml"):
        make(f"preset={path}")


def test_presets_are_looked_up_by_short_and_full_name():
    assert find_preset("none", "fake", None) is None
    assert find_preset("auto", "fake", "Hopper-v5") is None


def test_a_saved_configuration_loads_as_it_was(tmp_path):
    config = make(
        "env=Hopper-v5", "learner.gamma=0.5", "env.pixels.height=8", "env.options.a=[1,{b:2}]", "policy.hidden=[3]"
    )
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    assert load_config(path) == config
    more = load_config(path, ["total_env_steps=5e6", "learner.gamma=0.4"])
    assert (more.total_env_steps, more.learner.gamma, more.env) == (5_000_000, 0.4, config.env)


def test_a_damaged_or_foreign_saved_configuration_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    with pytest.raises(RobotRLError, match="Cannot read the configuration"):
        load_config(path)
    path.write_text("a: {b")
    with pytest.raises(RobotRLError, match="is not YAML"):
        load_config(path)
    path.write_text("learner_name: fake\nlearner: {gama: 1}\n")
    with pytest.raises(RobotRLError, match=r"Unknown key 'learner\.gama' in .*config\.yaml\. Did you mean"):
        load_config(path)
    path.write_text("learner_name: fake\nseed: x\n")
    with pytest.raises(RobotRLError, match=r"seed is 'x' \(in .*config\.yaml\); it must be a whole number"):
        load_config(path)
    path.write_text("learner_name: fake\nname: ${oc.env:HOME}\n")
    with pytest.raises(RobotRLError, match="is not the configuration of a run"):
        load_config(path)


def test_a_saved_configuration_cannot_choose_what_is_imported(tmp_path):
    path = tmp_path / "config.yaml"
    for key, text in {
        "learner": "learner_name: antigravity:Thing\n",
        "env": "learner_name: fake\nenv: {id: 'antigravity:Thing'}\n",
        "policy": "learner_name: fake\npolicy: {kind: 'antigravity:Thing'}\n",
    }.items():
        path.write_text(text)
        with pytest.raises(RobotRLError, match=f"names the class 'antigravity:Thing'.*repeat {key}=antigravity:Thing"):
            load_config(path)
    path.write_text("learner_name: fake\nenv: {id: 'antigravity:make'}\n")
    assert load_config(path, ["env=antigravity:make"]).env.id == "antigravity:make"


def test_composing_inside_a_running_hydra_application_leaves_it_alone():
    with initialize_config_dir(str(module.CONFIG_DIR), version_base="1.3"):
        make()
        assert GlobalHydra.instance().is_initialized()
        assert "seed" in hydra_compose("train", overrides=["learner=fake"])
    assert not GlobalHydra.instance().is_initialized()


@dataclass(slots=True)
class Small:
    episodes: int = 10
    out: str | None = None


def test_small_configurations_are_read_with_the_same_messages():
    example = "episodes=3"
    assert read_config(Small(out="x"), [], example=example) == Small(out="x")
    assert read_config(Small(), ["episodes=1e2", "out=a b"], example=example) == Small(100, "a b")
    with pytest.raises(RobotRLError, match=r"Unknown key 'episode'\. Did you mean 'episodes'\?"):
        read_config(Small(), ["episode=3"], example=example)
    with pytest.raises(RobotRLError, match=r"episodes is 'x'; it must be a whole number"):
        read_config(Small(), ["episodes=x"], example=example)
