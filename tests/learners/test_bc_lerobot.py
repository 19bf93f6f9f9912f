"""Behaviour cloning trains LeRobot's policies through the same method as ours, weights of single samples included."""

import copy

import pytest
import torch

from robotrl.learners.bc import BC, BCConfig
from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.policies.lerobot_config import LeRobotConfig
from robotrl.types import Progress, RobotRLError
from tests.policies.lerobot_made import ACTION, SMALL, STATE, make_vlm
from tests.policies.test_lerobot import SPEC, observation

pytest.importorskip("lerobot")


def batch_for(policy, rows=4, seed=0):
    """What a data set would serve: windows of two steps that call for two actions, and those that units come from."""
    gen = torch.Generator().manual_seed(seed)
    seen = observation(rows, seed)
    steps = len(policy.windows["action"])
    asked = {f"obs/{g}": seen[g].expand(len(policy.windows[f"obs/{g}"]), *seen[g].shape) for g in policy.obs_groups}
    action = (torch.rand(1, rows, ACTION, generator=gen) - 0.3) * 0.02
    demos = {**asked, "action": action.expand(steps, -1, -1), "valid/action": torch.ones(steps, rows, dtype=torch.bool)}
    fit = {
        "obs/state": torch.randn(1, 100, STATE, generator=gen),
        "action": (torch.rand(1, 100, ACTION, generator=gen) - 0.3) * 0.04,
    }
    return {"demos": demos, "fit": fit}


def learner_of(kind, folder, **config):
    vlm = str(make_vlm(folder / "vlm")) if kind == "smolvla" else None
    settings = LeRobotConfig(type=kind, settings=SMALL[kind], vlm=vlm)
    torch.manual_seed(0)
    policy = build_policy(PolicyConfig(kind="lerobot", lerobot=settings), SPEC)
    config = BCConfig(**{"learning_rate": 3e-3, "lr_schedule": "constant", **config})
    return BC(policy, SPEC, config, num_envs=1)


@pytest.mark.parametrize("kind", ["act", "diffusion"])
def test_a_policy_without_words_can_be_told_its_task_as_a_bag_of_them(kind):
    settings = LeRobotConfig(type=kind, settings=SMALL[kind], tell_task=True)
    policy = build_policy(PolicyConfig(kind="lerobot", lerobot=settings), SPEC)
    policy.fit(batch_for(policy)["fit"])
    again = build_policy(policy.config, SPEC)
    again.load_state_dict(policy.state_dict())
    again.eval()
    obs = observation(1, 0)
    other = {**obs, "instruction": obs["instruction"].roll(1, -1).clamp(min=5)}

    def act(seen):
        torch.manual_seed(0)
        return again.act(seen, again.initial_state(1), explore=False)[1]["chunk"]

    assert again.groups["observation.environment_state"] == "instruction"
    assert not torch.equal(act(obs), act(other))
    assert sum(value.value.mean() for value in again.errors(obs, batch_for(again, 1)["demos"]).values()).isfinite()


@pytest.mark.parametrize("kind", ["act", "diffusion", "smolvla"])
def test_its_losses_fall_on_a_batch_it_sees_again_and_again_and_it_acts_within_bounds(kind, tmp_path):
    learner = learner_of(kind, tmp_path)
    batch = batch_for(learner.policy)
    assert learner.batch_spec["demos"].windows == learner.policy.windows
    learner._fit(batch["fit"])

    def loss():
        torch.manual_seed(3)  # the same noise
        return sum(float(value.detach()) for value in learner._chunk_losses(batch["demos"]).values())

    before = loss()
    for _ in range(12):
        learner.observe({}, Progress(100))
        learner.update(batch)
    assert loss() < 0.9 * before
    assert "fit" not in learner.batch_spec
    action = learner.policy.act(observation(2, 0), learner.policy.initial_state(2), explore=False)[0]
    assert bool((action <= torch.tensor(SPEC.action.high)).all())


def test_a_learner_continues_exactly(tmp_path):
    learner = learner_of("act", tmp_path, ema_decay=0.9)
    batch = batch_for(learner.policy)
    learner.update(batch)
    other = learner_of("act", tmp_path, ema_decay=0.9)
    other.load_state_dict(copy.deepcopy(learner.state_dict()))
    for one in (learner, other):
        torch.manual_seed(7)
        one.update(batch)
    for mine, its in zip(learner.policy.state_dict().values(), other.policy.state_dict().values(), strict=True):
        assert torch.equal(mine, its)


@pytest.mark.parametrize("kind", ["act", "smolvla"])
def test_a_sample_of_weight_zero_does_not_count(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "randn", lambda *size, **rest: torch.zeros(*size))
    learner = learner_of(kind, tmp_path, weight_by="weight")
    batch = batch_for(learner.policy)
    learner._fit(batch["fit"])
    weighed = {**batch["demos"], "weight": torch.tensor([1.0, 1.0, 1.0, 0.0])}
    spoiled = {**weighed, "action": weighed["action"].clone()}
    spoiled["action"][:, 3] += 1.0
    found = []
    for rows in (weighed, spoiled):
        torch.manual_seed(3)
        found.append({name: float(value.detach()) for name, value in learner._chunk_losses(rows).items()})
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_a_field_of_weights_that_is_not_there_is_named(tmp_path):
    learner = learner_of("act", tmp_path, weight_by="advantage")
    with pytest.raises(RobotRLError, match=r"learner\.weight_by is 'advantage', but the data have action"):
        learner.update(batch_for(learner.policy))
