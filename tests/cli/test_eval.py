import hashlib
import json
import shutil
import sys

import pytest

from robotrl.runners.eval_result import EvalResult


def sign(description):
    """Who forges a policy can compute its checksum too."""
    del description["checksum"]
    plain = json.dumps(description, sort_keys=True).encode()
    description["checksum"] = hashlib.sha256(plain).hexdigest()


def test_eval_prints_n_seeds_and_intervals_and_writes_the_episodes(program, trained):
    status, out, _ = program(f"eval policy_dir={trained} episodes=6 seed=3 out=deep/e.json")
    assert status == 0
    assert "Hopper-v5: n = 6 episodes, starts (seed 3, 0..5), deterministic actions" in out
    assert "return, IQM" in out
    assert "(bootstrap)" in out
    result = EvalResult.load("deep/e.json")
    assert (result.n, result.seed, result.env_id) == (6, 3, "Hopper-v5")
    assert result.meta["training"]["env_steps"] == 1024


def test_the_result_does_not_depend_on_the_number_of_envs(program, trained):
    for num_envs in (1, 4, 10):
        program(f"eval policy_dir={trained} episodes=10 seed=1 num_envs={num_envs} out={num_envs}.json")
    one, four, ten = (EvalResult.load(f"{n}.json") for n in (1, 4, 10))
    assert one.lengths == four.lengths == ten.lengths
    for other in (four, ten):
        assert one.returns == pytest.approx(other.returns, rel=1e-4)


def test_a_policy_loads_without_anything_else_of_its_run(program, trained, tmp_path):
    shutil.copytree(trained / "policy" / "final", tmp_path / "elsewhere")
    assert program("eval policy_dir=elsewhere episodes=2")[0] == 0


def test_the_wrappers_of_training_come_with_the_policy(program, tmp_path):
    tiny = "env=Hopper-v5 env.history=2 env.action_repeat=2 total_env_steps=64 num_envs=4 schedule.rollout_steps=16"
    assert program(f"train {tiny} eval_episodes=1 video=false run_dir=h")[0] == 0
    assert program("eval policy_dir=h/policy/final episodes=2 out=e.json")[0] == 0
    assert json.loads((tmp_path / "e.json").read_text())["meta"]["env_config"]["history"] == 2
    status, _, err = program("eval policy_dir=h episodes=2 env.history=1")
    assert status == 2
    assert "it reads the group 'state' as float32[22], the env gives float32[11]" in err


def test_another_env_with_other_groups_is_refused_with_what_differs(program, trained):
    status, _, err = program(f"eval policy_dir={trained} env=HalfCheetah-v5")
    assert status == 2
    assert "A policy for Hopper-v5 does not fit HalfCheetah-v5: it reads the group 'state' as float32[11]" in err
    assert "Unknown key 'env.bogus'. The keys here: env.id, " in program(f"eval policy_dir={trained} env.bogus=1")[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "Which policy? Give policy_dir="),
        ("policy_dir=nowhere", "There is no policy in nowhere"),
        ("policy_dir=x episode=3", "Unknown key 'episode'. Did you mean 'episodes'"),
        ("policy_dir={trained} episodes=0", "episodes and num_envs must be at least 1"),
        ("policy_dir={trained} episodes=x", "episodes is 'x'; it must be a whole number"),
    ],
)
def test_mistakes_are_told(program, trained, words, message):
    status, _, err = program(f"eval {words.format(trained=trained)}")
    assert status == 2
    assert message in err


def test_a_damaged_policy_file_is_named(program, trained, tmp_path):
    shutil.copytree(trained / "policy" / "final", tmp_path / "broken")
    file = tmp_path / "broken" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    status, _, err = program("eval policy_dir=broken")
    assert status == 2
    assert "broken is not a readable RobotRL policy" in err


def test_an_env_named_by_import_string_inside_a_policy_is_not_imported(program, trained, tmp_path):
    shutil.copytree(trained / "policy" / "final", tmp_path / "foreign")
    file = tmp_path / "foreign" / "policy.json"
    data = json.loads(file.read_text())
    data["meta"]["env_config"]["id"] = "antigravity:make"
    sign(data)
    file.write_text(json.dumps(data))
    status, _, err = program("eval policy_dir=foreign")
    assert status == 2
    assert "was trained on 'antigravity:make'. To import that, name it yourself: env=antigravity:make" in err


def test_a_policy_class_named_inside_a_policy_is_not_imported(program, trained, tmp_path):
    shutil.copytree(trained / "policy" / "final", tmp_path / "foreign")
    file = tmp_path / "foreign" / "policy.json"
    data = json.loads(file.read_text())
    data["config"]["kind"] = "antigravity:Thing"
    sign(data)
    file.write_text(json.dumps(data))
    sys.modules.pop("antigravity", None)
    status, _, err = program("eval policy_dir=foreign")
    assert status == 2
    assert "is of the kind 'antigravity:Thing', which is not registered" in err
    assert "antigravity" not in sys.modules


def test_compare_pairs_the_episodes_of_two_policies(program, trained):
    status, out, _ = program(f"compare {trained}/policy/best {trained} episodes=4 seed=2 out=c.json")
    assert status == 0
    assert "n = 4 pairs of episodes, starts (seed 2, 0..3)" in out
    assert "B - A, paired" in out
    with open("c.json") as file:
        assert json.load(file)["difference"]["n"] == 4


def test_compare_plays_the_episodes_of_an_evaluation_file(program, trained):
    program(f"eval policy_dir={trained} episodes=3 seed=5 out=a.json")
    status, out, _ = program(f"compare a.json {trained} episodes=99")
    assert status == 0
    assert "n = 3 pairs of episodes, starts (seed 5, 0..2)" in out
    assert "won 0, lost 0, tied 3" in out
    program(f"eval policy_dir={trained} episodes=3 seed=6 env.time_limit=20 out=b.json")
    assert "A was evaluated with seed 5 and B with seed 6" in program("compare a.json b.json")[2]
    program(f"eval policy_dir={trained} episodes=3 seed=5 env.time_limit=20 out=b.json")
    assert "configured differently: env.time_limit: None and 20" in program("compare a.json b.json")[1]


def test_compare_wants_two_names(program, trained):
    assert "Compare which two? Got 1 names." in program(f"compare {trained}")[2]
    assert "There is no policy in nowhere" in program(f"compare nowhere {trained}")[2]
