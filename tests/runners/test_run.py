"""A run continues exactly where it stopped, leaves everything it promises, and tells a user what it will not do."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file

from robotrl.configs.compose import compose
from robotrl.envs import make_vec
from robotrl.envs.rendering import NO_GL_MESSAGE, has_gl
from robotrl.policies.io import load_policy
from robotrl.registry import learners
from robotrl.rundir import RunDir
from robotrl.runners.run import CHANGEABLE, Run
from robotrl.types import RobotRLError

TASKS = {
    "gaussian": (),
    "wrapped": ("env.action_repeat=2", "env.history=3", "env.obs_delay=1", "env.action_delay=1"),
    "recurrent, terminating": ("env=Hopper-v5", "policy=gru", "policy.gru_size=4"),
    "contact forces": ("env=Ant-v5", "num_envs=2", "total_env_steps=320"),
    "dm_control": ("env=dmc/cartpole-swingup", "num_envs=2", "total_env_steps=320", "eval_every=0"),
    "randomised physics": (
        "env.randomise=[{field: geom_friction, distribution: uniform, low: 0.5, high: 2.0, mode: scale}]",
    ),
    "pixels": (
        *("env.pixels.height=16", "env.pixels.width=16", "env.frame_stack=2", "num_envs=2", "total_env_steps=256"),
        *("eval_every=0", "env.time_limit=24"),
    ),
}
NEEDS_GL = pytest.mark.skipif(not has_gl(), reason=NO_GL_MESSAGE)


@pytest.mark.parametrize("task", [pytest.param(t, marks=NEEDS_GL) if t == "pixels" else t for t in TASKS])
def test_a_stopped_and_resumed_run_ends_with_the_same_bytes(tmp_path, tiny, uninterrupted, task, capsys):
    whole, parts = uninterrupted(*TASKS[task]), tmp_path / "parts"
    assert tiny.start(parts, *TASKS[task], stop_at=100) == 130
    assert f"Stopped and saved at 128 env steps. To go on: robotrl train resume={parts}" in capsys.readouterr().out
    assert tiny.resume(parts, stop_at=200) == 130
    assert tiny.resume(parts) == 0
    tiny.assert_same_end(whole, parts)


@pytest.mark.parametrize("learner", learners.names())
def test_the_same_seed_repeats_and_another_differs(tmp_path, tiny, uninterrupted, learner):
    whole = uninterrupted(learner=learner)
    tiny.start(tmp_path / "again", learner=learner)
    tiny.assert_same_end(whole, tmp_path / "again")
    tiny.start(tmp_path / "other", "seed=1", learner=learner)
    assert tiny.weights(tmp_path / "other") != tiny.weights(whole)


@pytest.mark.parametrize("learner", learners.names())
def test_evaluation_and_checkpoints_do_not_disturb_training(tmp_path, tiny, uninterrupted, learner):
    tiny.start(tmp_path / "bare", "eval_every=0", "checkpoint_every=0", "eval_episodes=1", learner=learner)
    assert tiny.weights(tmp_path / "bare") == tiny.weights(uninterrupted(learner=learner))


def test_a_finished_run_holds_all_it_promises(uninterrupted):
    path = uninterrupted()
    assert {p.name for p in path.iterdir() if "tfevents" not in p.name} == {
        ".lock", "config.yaml", "meta.json", "metrics.jsonl", "checkpoints", "policy", "eval"
    }  # fmt: skip
    assert len([p for p in path.iterdir() if "tfevents" in p.name]) == 1
    assert sorted(int(p.stem) for p in (path / "eval").iterdir()) == [256, 512, 640]
    assert [p.name for p in sorted((path / "checkpoints").iterdir())] == [f"{s:012d}" for s in (384, 512, 640)]
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [row["env_steps"] for row in rows] == list(range(64, 704, 64))
    assert {"train/return", "loss/policy", "eval/return", "time/elapsed", "time/evaluation"} <= set().union(*rows)
    assert all(row["time/elapsed"] >= row["time/evaluation"] for row in rows)


def test_the_last_words_give_the_best_evaluation_with_its_n_and_interval(tmp_path, tiny, capsys):
    tiny.start(tmp_path / "run", stop_at=320)
    tiny.resume(tmp_path / "run")
    printed = capsys.readouterr().out
    said = re.search(r"best evaluation (\S+) at (\d+) env steps \(n = 2 episodes, 95 % interval \[", printed)
    summaries = {int(p.stem): json.loads(p.read_text())["summary"] for p in (tmp_path / "run" / "eval").iterdir()}
    assert float(said[1]) == round(max(s["eval/return"] for s in summaries.values()), 1)
    assert round(summaries[int(said[2])]["eval/return"], 1) == float(said[1])


def test_the_best_policy_is_the_one_of_the_best_evaluation(uninterrupted):
    path = uninterrupted()
    means = {int(p.stem): json.loads(p.read_text())["summary"]["eval/return"] for p in (path / "eval").iterdir()}
    best = json.loads((path / "policy" / "best" / "policy.json").read_text())["meta"]
    assert best["env_steps"] == max(means, key=means.__getitem__)
    assert best["eval"]["eval/return"] == max(means.values())


def test_the_final_policy_is_the_learners_and_loads_without_the_run(tmp_path, tiny, uninterrupted):
    final = load_file(uninterrupted() / "policy" / "final" / "model.safetensors")
    _, tensors = tiny.state(uninterrupted())
    for name, value in final.items():
        assert torch.equal(value, tensors[f"learner/policy/{name}"]), name
    shutil.copytree(uninterrupted() / "policy" / "final", tmp_path / "alone")
    assert load_policy(tmp_path / "alone").spec.id == "HalfCheetah-v5"


def test_the_saved_config_builds_the_same_run(tiny, uninterrupted, tmp_path):
    from robotrl.configs.compose import load_config

    saved = load_config(uninterrupted() / "config.yaml")
    assert saved == compose(tiny.words(uninterrupted()))


def test_the_learning_curve_and_the_video_are_written_where_the_summary_says(tmp_path, tiny, capsys):
    from robotrl.analysis.plots import learning_curve
    from robotrl.envs.rendering import has_gl
    from robotrl.runners.finish import finish
    from robotrl.runners.loop import train

    with tiny.create(tmp_path / "x", "video=true", "total_env_steps=64") as run:
        train(**run.parts())
        assert finish(run, learning_curve) == 0
    said = capsys.readouterr().out
    assert "learning curve plots/learning_curve.png" in said
    assert (tmp_path / "x" / "plots" / "learning_curve.png").read_bytes()[1:4] == b"PNG"
    if has_gl():
        assert "video          videos/final.mp4" in said
        assert (tmp_path / "x" / "videos" / "final.mp4").stat().st_size > 1000
    else:
        assert "No video: Images cannot be rendered" in said


def test_without_gl_the_video_is_skipped_in_one_sentence(tmp_path, tiny, capsys, monkeypatch):
    from robotrl.envs import rendering

    monkeypatch.setattr(rendering, "software_gl", lambda: None)
    assert tiny.start(tmp_path / "x", "video=true", "total_env_steps=64") == 0
    assert "No video: Images cannot be rendered: neither EGL nor OSMesa loads" in capsys.readouterr().out


def test_resuming_a_finished_run_says_so_and_how_to_train_on(tmp_path, tiny, uninterrupted):
    shutil.copytree(uninterrupted(), tmp_path / "x")
    message = r"has finished its 640 env steps; .* robotrl train resume=.*/x total_env_steps=1280"
    with pytest.raises(RobotRLError, match=message):
        Run.resume(tmp_path / "x")
    assert tiny.resume(tmp_path / "x", "total_env_steps=768") == 0
    assert RunDir.open(tmp_path / "x").finished_env_steps == 768
    assert [row["env_steps"] for row in tiny.rows(tmp_path / "x")] == list(range(64, 832, 64))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("learner.gamma=0.5", r"it cannot change learner.gamma \(it is 0.99\)"),
        ("env=Hopper-v5", r"it cannot change env.id \(it is HalfCheetah-v5\)"),
        ("env.options.forward_reward_weight=2", "it cannot change env.options"),
        ("seed=9", r"it cannot change seed \(it is 0\).*With resume= you may give total_env_steps.*init_from="),
        ("checkpoint_evry=9", "checkpoint_every"),
    ],
)
def test_an_override_that_would_make_another_run_is_refused_by_name(uninterrupted, override, told):
    with pytest.raises(RobotRLError, match=told):
        Run.resume(uninterrupted(), [override])


def test_what_may_change_on_resume_may_and_is_saved(tmp_path, tiny):
    tiny.start(tmp_path / "x", stop_at=100)
    values = {
        "total_env_steps": 256,
        "eval_every": 64,
        "eval_episodes": 1,
        "checkpoint_every": 64,
        "checkpoint_keep": 2,
    }
    rest = {"num_threads": 2, "video": False, "wandb": False}
    assert {*values, *rest} == set(CHANGEABLE)
    overrides = [f"{k}={v}" for k, v in (values | rest).items()]
    with pytest.warns(UserWarning, match="differs from the one that began the run in threads"):
        assert tiny.resume(tmp_path / "x", *overrides, f"resume={tmp_path}/x") == 0
    with RunDir.open(tmp_path / "x") as directory:
        assert (values | rest).items() <= directory.load_config().items()
        assert directory.read_meta()["starts"][1]["overrides"][0] == "total_env_steps=256"
    assert sorted(int(p.stem) for p in (tmp_path / "x" / "eval").iterdir()) == [192, 256]


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path, tiny, uninterrupted):
    with tiny.create(tmp_path / "x"):
        pass
    assert tiny.resume(tmp_path / "x") == 0
    tiny.assert_same_end(uninterrupted(), tmp_path / "x")


def test_randomised_physics_are_written_down_and_can_be_replayed(uninterrupted):
    path = uninterrupted(*TASKS["randomised physics"]) / "randomisation.json"
    record = json.loads(path.read_text())["record"]
    assert all(len(values) == 4 for values in record.values())
    env = make_vec("HalfCheetah-v5", num_envs=4, randomise={"record": record})
    env.reset(seed=0)
    assert {name: values.tolist() for name, values in env.randomisation.items()} == record


def test_an_env_without_exact_state_says_at_start_and_at_resume_what_that_means(tmp_path, tiny, capsys):
    words = ("env=gym/Pendulum-v1", "num_envs=2", "total_env_steps=320")
    assert tiny.start(tmp_path / "x", *words, stop_at=150) == 130
    assert "gym/Pendulum-v1 cannot save its exact state: after a resume, running episodes" in capsys.readouterr().out
    run = Run.resume(tmp_path / "x")
    assert "cannot restore its exact state: the running episodes are cut off, new ones start" in capsys.readouterr().out
    fresh = run.collector.collect(run.learner.acting, 4)
    assert fresh["is_first"][0].all()
    assert tiny.complete(run) == 0


def test_a_run_killed_while_it_finished_finishes(tmp_path, tiny, uninterrupted):
    shutil.copytree(uninterrupted(), tmp_path / "x")
    shutil.rmtree(tmp_path / "x" / "policy" / "final")
    meta = json.loads((tmp_path / "x" / "meta.json").read_text())
    (tmp_path / "x" / "meta.json").write_text(json.dumps({"starts": meta["starts"]}))
    assert tiny.resume(tmp_path / "x") == 0
    tiny.assert_same_end(uninterrupted(), tmp_path / "x")


def test_a_run_whose_checkpoints_are_gone_is_not_started_over(tmp_path, uninterrupted):
    shutil.copytree(uninterrupted(), tmp_path / "x")
    shutil.rmtree(tmp_path / "x" / "checkpoints")
    (tmp_path / "x" / "meta.json").unlink()
    before = (tmp_path / "x" / "metrics.jsonl").read_bytes()
    with pytest.raises(
        RobotRLError, match=r"has trained for more than 576 env steps, but there are no checkpoints in it"
    ):
        Run.resume(tmp_path / "x")
    assert (tmp_path / "x" / "metrics.jsonl").read_bytes() == before


def test_a_damaged_checkpoint_costs_the_way_from_the_one_before_it(tmp_path, tiny, uninterrupted):
    tiny.start(tmp_path / "x", stop_at=300)
    newest = max((tmp_path / "x" / "checkpoints").iterdir())
    data = bytearray((newest / "small.safetensors").read_bytes())
    data[len(data) // 2] ^= 4
    (newest / "small.safetensors").write_bytes(data)
    with pytest.warns(UserWarning, match=rf"Skipped the checkpoint .*{newest.name}: small.safetensors does not match"):
        run = Run.resume(tmp_path / "x")
    assert run.progress.env_steps == 256
    assert tiny.complete(run) == 0
    tiny.assert_same_end(uninterrupted(), tmp_path / "x")


def test_a_full_disk_at_a_checkpoint_warns_and_training_goes_on(tmp_path, tiny, uninterrupted, monkeypatch):
    from robotrl.runners import run as run_module

    real, failed = run_module.save_checkpoint, []

    def full_once(directory, tree, *, step, keep):
        if step == 384:
            failed.append(step)
            raise RobotRLError("The checkpoint at 384 env steps could not be saved: it needs 1 MB.")
        return real(directory, tree, step=step, keep=keep)

    monkeypatch.setattr(run_module, "save_checkpoint", full_once)
    with pytest.warns(UserWarning, match=r"384 env steps could not be saved.*Training goes on; the next checkpoint"):
        assert tiny.start(tmp_path / "x") == 0
    assert failed == [384]
    tiny.assert_same_end(uninterrupted(), tmp_path / "x")


def test_a_run_that_cannot_be_built_leaves_its_directory_free(tmp_path, tiny):
    config = compose(tiny.words(tmp_path / "x"))
    config.env.options = {"no_such_option": 1}
    with pytest.raises(RobotRLError, match="no_such_option"):
        Run.create(config)
    assert not (tmp_path / "x").exists()
    tiny.create(tmp_path / "x").close()


def test_a_mistake_that_training_finds_before_its_first_metrics_leaves_the_directory_free(tmp_path, tiny):
    def mistake(run):
        with pytest.raises(RobotRLError, match="mended"), run:
            raise RobotRLError("This can be mended.")

    mistake(tiny.create(tmp_path / "x"))
    assert not (tmp_path / "x").exists()
    with tiny.create(tmp_path / "x"):  # stopped at once, with nothing wrong
        pass
    mistake(Run.resume(tmp_path / "x"))
    assert (tmp_path / "x" / "config.yaml").is_file()  # whoever began it may count on it
    assert tiny.start(tmp_path / "y", stop_at=128) == 130
    mistake(Run.resume(tmp_path / "y"))
    assert (tmp_path / "y" / "checkpoints").is_dir()


def test_a_disk_that_is_full_from_the_start_is_told(tmp_path, tiny, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunDir, "save_config", full)
    with pytest.raises(
        RobotRLError, match=r"could not be written: .*No space left.*Free some space, or choose another"
    ):
        tiny.create(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_missing_gpu_is_told(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RobotRLError, match=r"device=cuda, but PyTorch sees no GPU here. Use device=cpu"):
        tiny.create(tmp_path / "x", "device=cuda")


def test_init_from_starts_with_the_saved_weights_and_normaliser(tmp_path, tiny, uninterrupted, capsys):
    saved = load_policy(uninterrupted()).state_dict()
    run = tiny.create(tmp_path / "x", f"init_from={uninterrupted()}", "policy.hidden=[16, 16]")
    assert "init_from: the policy keeps its own architecture (policy.hidden=[8])" in capsys.readouterr().out
    for name, value in run.learner.policy.state_dict().items():
        assert torch.equal(value, saved[name]), name
    assert tiny.complete(run, stop_at=128) == 130
    assert tiny.resume(tmp_path / "x") == 0


def test_init_from_another_kind_of_env_says_which_groups_differ(tmp_path, tiny, uninterrupted):
    with pytest.raises(RobotRLError, match=r"(?s)state.*17.*11"):
        tiny.create(tmp_path / "x", f"init_from={uninterrupted()}", "env=Hopper-v5")
    assert not (tmp_path / "x").exists()


def test_narrow_networks_get_one_torch_thread_and_wide_ones_all_cores(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    before = torch.get_num_threads()
    try:
        for width, threads in ((255, 1), (256, 3)):
            run = tiny.create(
                tmp_path / f"{width}", f"policy.hidden=[{width}]", "num_threads=null", "total_env_steps=64"
            )
            assert torch.get_num_threads() == threads
            run.close()
    finally:
        torch.set_num_threads(before)


def test_a_rollout_is_learned_from_in_one_update(tmp_path):
    with pytest.raises(RobotRLError, match=r"schedule\.updates is 2, but ppo sees its whole rollout in one update"):
        Run.create(compose(["env=InvertedPendulum-v5", "schedule.updates=2", f"run_dir={tmp_path / 'run'}"]), [])
