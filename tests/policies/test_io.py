import json
import random

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.policies.io import find_policy, load_policy, policy_meta, save_policy
from robotrl.types import RobotRLError
from tests import envs_for_tests as envs


def policy(kind="mlp", env=envs.Target, **config):
    torch.manual_seed(4)
    made = build_policy(PolicyConfig(kind=kind, hidden=[8, 8], **config), env(num_envs=1).env_spec)
    if made.inputs.normaliser is not None:
        made.inputs.normaliser.merge(*made.inputs.normaliser.moments(torch.randn(50, made.inputs.dim)))
    return made


def resave(directory, change):
    """Change `policy.json` as someone would who means it: with a checksum that fits."""
    from robotrl.policies.io import _checksum_of_json

    data = json.loads((directory / "policy.json").read_text())
    data.pop("checksum")
    change(data)
    data["checksum"] = _checksum_of_json(data)
    (directory / "policy.json").write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("kind", "env"), [("mlp", envs.Target), ("gru", envs.Memory), ("cnn", envs.Spot), ("mlp", envs.Pick)]
)
def test_a_policy_comes_back_with_config_spec_normaliser_and_weights(kind, env, tmp_path):
    saved = policy(kind, env)
    loaded = load_policy(save_policy(saved, tmp_path / "p", {"env_steps": 12, 3: float("nan")}))
    assert loaded.config == saved.config
    assert loaded.spec == saved.spec
    assert not loaded.training
    state = saved.state_dict()
    assert state.keys() == loaded.state_dict().keys()
    assert all(torch.equal(state[k], v) for k, v in loaded.state_dict().items())
    if saved.inputs.normaliser is not None:
        x = torch.randn(5, saved.inputs.dim)
        assert torch.equal(saved.inputs.normaliser(x), loaded.inputs.normaliser(x))
    assert policy_meta(tmp_path / "p")["env_steps"] == 12


def test_unbounded_actions_are_saved_too(tmp_path):
    class Free(envs.Target):
        actions = envs.Box(-np.inf, np.inf, (2,), np.float32)

    assert load_policy(save_policy(policy(env=Free), tmp_path)).spec.action.high == (float("inf"),) * 2


def test_loading_leaves_the_random_streams_alone(tmp_path):
    save_policy(policy(), tmp_path)
    before = torch.get_rng_state()
    load_policy(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_directory_stands_for_its_final_else_its_best_policy(tmp_path):
    best = save_policy(policy(), tmp_path / "run" / "policy" / "best", {"which": "best"})
    assert find_policy(tmp_path / "run") == best
    final = save_policy(policy(), tmp_path / "run" / "policy" / "final", {"which": "final"})
    assert find_policy(tmp_path / "run") == find_policy(tmp_path / "run" / "policy") == final
    assert policy_meta(tmp_path / "run" / "policy" / "best")["which"] == "best"
    with pytest.raises(RobotRLError, match=r"There is no policy in .*nowhere: no policy\.json"):
        load_policy(tmp_path / "nowhere")


def test_saving_again_replaces_and_leaves_nothing_else(tmp_path):
    save_policy(policy(), tmp_path)
    save_policy(policy(log_std_init=-1.0), tmp_path)
    assert load_policy(tmp_path).log_std.tolist() == [-1.0, -1.0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors", "policy.json"]


def test_a_crash_between_the_two_files_leaves_a_policy_that_loads(tmp_path):
    save_policy(policy(), tmp_path, {"env_steps": 1})
    before = (tmp_path / "policy.json").read_bytes()
    save_policy(policy(log_std_init=-1.0), tmp_path, {"env_steps": 2})
    weights = (tmp_path / "model.safetensors").read_bytes()
    save_policy(policy(), tmp_path, {"env_steps": 1})
    (tmp_path / "model.safetensors").write_bytes(weights)
    assert (tmp_path / "policy.json").read_bytes() == before
    assert load_policy(tmp_path).log_std.tolist() == [-1.0, -1.0]


@pytest.mark.parametrize("file", ["policy.json", "model.safetensors"])
def test_a_flipped_bit_anywhere_is_noticed(file, tmp_path):
    save_policy(policy(), tmp_path)
    intact, rng = (tmp_path / file).read_bytes(), random.Random(1)
    accepted = 0
    for _ in range(150):
        damaged = bytearray(intact)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        (tmp_path / file).write_bytes(damaged)
        try:
            same = load_policy(tmp_path).state_dict()
        except RobotRLError as error:
            assert "is not a readable RobotRL policy" in str(error) or "newer RobotRL" in str(error)  # noqa: PT017
            continue
        accepted += 1  # spaces between the values, or padding
        assert all(torch.equal(v, same[k]) for k, v in policy().state_dict().items())
    assert accepted < 60


@pytest.mark.parametrize("file", ["policy.json", "model.safetensors"])
@pytest.mark.parametrize("keep", [0, 7, 200, -1])
def test_a_truncated_file_is_an_error_with_a_way_out(file, keep, tmp_path):
    save_policy(policy(), tmp_path)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[:keep])
    with pytest.raises(RobotRLError, match=r"is not a readable RobotRL policy: .*Load another one"):
        load_policy(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"format_version": "1"}', '{"format_version": 1}', "\x00\xff"])
def test_a_foreign_description_is_an_error(text, tmp_path):
    save_policy(policy(), tmp_path)
    (tmp_path / "policy.json").write_text(text)
    with pytest.raises(RobotRLError, match="is not a readable RobotRL policy"):
        load_policy(tmp_path)
    with pytest.raises(RobotRLError, match="is not a readable RobotRL policy"):
        policy_meta(tmp_path)


def test_foreign_weights_are_named(tmp_path):
    save_policy(policy(), tmp_path)
    save_file({"encoder.weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(RobotRLError, match=r"has other tensors than the policy: \['encoder\.weight'"):
        load_policy(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(RobotRLError, match="is not a readable RobotRL policy"):
        load_policy(tmp_path)


def test_a_newer_format_says_upgrade(tmp_path):
    save_policy(policy(), tmp_path)
    resave(tmp_path, lambda data: data.update(format_version=99))
    with pytest.raises(RobotRLError, match=r"newer RobotRL \(policy format 99.*Upgrade RobotRL"):
        load_policy(tmp_path)


def test_settings_that_are_not_known_are_named(tmp_path):
    save_policy(policy(), tmp_path)
    resave(tmp_path, lambda data: data["config"].update(telepathy=True))
    with pytest.raises(RobotRLError, match=r"settings that this RobotRL does not know: \['telepathy'\]"):
        load_policy(tmp_path)


def test_a_kind_is_looked_up_and_never_imported_from_a_file(tmp_path):
    save_policy(policy(), tmp_path)
    resave(tmp_path, lambda data: data["config"].update(kind="os:system"))
    with pytest.raises(RobotRLError, match="'os:system', which is not registered"):
        load_policy(tmp_path)


@pytest.mark.parametrize("change", [{"hidden": [10**7, 10**7]}, {"gru_size": 10**8, "kind": "gru"}])
def test_a_description_that_asks_for_more_than_the_file_holds_allocates_nothing(change, tmp_path):
    save_policy(policy(), tmp_path)
    resave(tmp_path, lambda data: data["config"].update(change))
    with pytest.raises(RobotRLError, match=r"other tensors than the policy|another shape than the policy's"):
        load_policy(tmp_path)


def test_an_observation_as_large_as_a_house_allocates_nothing(tmp_path):
    save_policy(policy(), tmp_path)
    resave(tmp_path, lambda data: data["env"]["obs"]["state"].update(shape=[10**6, 10**6]))
    with pytest.raises(RobotRLError, match="another shape than the policy's"):
        load_policy(tmp_path)


def test_an_oversized_description_is_not_read(tmp_path):
    save_policy(policy(), tmp_path)
    with (tmp_path / "policy.json").open("ab") as file:
        file.write(b" " * (1 << 20))
    with pytest.raises(RobotRLError, match="larger than 1 MB"):
        load_policy(tmp_path)
