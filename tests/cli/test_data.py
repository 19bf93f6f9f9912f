import pytest

from robotrl.data.dataset import Dataset
from tests.data import made


def test_collect_records_and_the_same_command_completes_it(program, trained, tmp_path):
    line = f"collect policy_dir={trained} episodes=3 env.time_limit=20 num_envs=2 out=demos"
    status, out, err = program(line)
    assert (status, err) == (0, "")
    assert "3 episodes (" in out and "demos holds 3 of 3 in" in out and "Return of all 3 attempts: mean" in out
    assert Dataset("demos").env_spec.id == "Hopper-v5"
    assert program(line)[1] == "demos holds 3 episodes already; for more give a larger episodes=.\n"
    status, out, _ = program(line.replace("episodes=3", "episodes=5"))
    assert "2 episodes (" in out and "holds 5 of 5" in out
    out = program(line.replace("episodes=3", "episodes=6"))[1]
    assert "Return of all 1 attempts: mean" in out and "interval" not in out  # one return has none
    dataset = Dataset("demos")
    assert len({(e.seed, e.number) for e in dataset.episodes}) == 6
    assert [s["policy_dir"] for s in dataset.own["sessions"]] == [str(trained / "policy/final")] * 3


def test_demonstrations_of_another_variant_of_the_task_are_said_before_training(program, tmp_path):
    lock = "env=lock/combination env.options.horizon=2 env.options.instance={}"
    line = f"collect {lock} policy=expert explore=true episodes=30 num_envs=10 out=demos"
    assert program(line.format(1))[0] == 0
    train = (
        f"train {lock} learner=hnpg preset=lock/combination replay.demos=demos num_envs=4 schedule.rollout_steps=2 "
        "total_env_steps=8 eval_episodes=2 num_threads=1 run_dir={}"
    )
    status, out, _ = program(train.format(2, "other"))
    assert status == 0
    assert "demos are of another variant of the task: env.options.instance is 1 there and 2 here." in out
    assert "variant" not in program(train.format(1, "same"))[1]


def test_an_experts_noise_is_a_setting_and_what_it_meant_is_kept(program, tmp_path):
    line = "collect env=tabletop/reach policy=expert explore=true expert.noise={} episodes=1 num_envs=1 out=demos"
    assert program(line.format(0.5))[0] == 0
    dataset = Dataset("demos")
    columns = dataset.read(["action", "expert_action"])
    assert (columns["action"][:, :3] != columns["expert_action"][:, :3]).any()
    assert (columns["action"][:, 3:] == columns["expert_action"][:, 3:]).all()
    assert dataset.own["sessions"][0]["expert"]["noise"] == 0.5
    status, _, err = program(line.format(-1))
    assert status == 2 and "noise must not be negative" in err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("collect env=Hopper-v5 policy=random", "Where to? Give out="),
        ("collect env=Hopper-v5 out=x", "Whose episodes? Give either policy_dir= or policy="),
        ("collect policy=random out=x", "In which env? Give env="),
        ("collect env=Hopper-v5 policy=mlp out=x", "policy=mlp is a kind that has to be trained"),
        ("collect env=Hopper-v5 policy=expert out=x", "There is no expert for the env 'Hopper-v5'"),
        ("collect env=Hopper-v5 policy=randm out=x", "Unknown policy 'randm'. Did you mean 'random'"),
        ("collect env=Hopper-v5 policy=random out=x episodes=0", "episodes is 0; it must be at least 1"),
        ("data", "There are: info, show, merge, convert, repair"),
        ("data inof x", "Did you mean 'info'"),
        ("data info", "takes one folder"),
        ("data info nowhere", "There is no data set at nowhere"),
        ("data merge a b", "give out=<new folder>"),
        ("data convert a out=b", "Give to=lerobot (from Minari) or to=minari"),
        ("data show d episode=9", "There is no episode 9: d has 0 to 1"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(program, tmp_path, line, said):
    made.dataset(tmp_path / "d", 2)
    status, _, err = program(line)
    assert status == 2
    assert said in err and err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d"]


def test_a_policy_of_another_env_is_refused_before_anything_is_written(program, trained, tmp_path):
    status, _, err = program(f"collect policy_dir={trained} env=Walker2d-v5 out=demos")
    assert status == 2
    assert "A policy for Hopper-v5 does not fit Walker2d-v5" in err
    assert not (tmp_path / "demos").exists()


def test_data_is_described_shown_merged_converted_and_repaired(program, tmp_path):
    made.dataset(tmp_path / "d", 3, "front")
    out = program("data info d")[1]
    assert "steps     18 at 20 a second" in out and "success   2 of the 3 episodes" in out
    assert "obs/image/front" in out and "observation.images.front" in out
    assert program("data show d episode=1 out=sheet.png")[1] == "written to sheet.png\n"
    assert (tmp_path / "sheet.png").read_bytes()[:4] == b"\x89PNG"
    assert program("data merge d d out=all")[1] == "6 episodes written to all\n"
    assert program("data convert all to=minari out=m")[1] == "6 episodes written to m\n"
    assert program("data convert m to=lerobot out=back fps=20")[1] == "6 episodes written to back\n"
    assert program("data repair back")[1] == "back is in order: 6 episodes, 36 steps.\n"
    assert program("data repair d out=again")[1] == "3 whole episodes of d are now in again.\n"
