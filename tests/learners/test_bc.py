"""What is particular to behaviour cloning; what holds for every learner is in `test_every_learner.py`."""

import pytest
import torch

from robotrl.learners.bc import LOG_STD_MIN, BCConfig
from robotrl.nets.vision import erase, jitter
from robotrl.policies.io import load_policy, save_policy
from robotrl.types import Progress, RobotRLError
from tests import envs_for_tests as envs
from tests.learners.cases import make
from tests.protocol.harness import assert_same


def batch_of(parts, **config):
    (batch,) = parts.replay.batches(parts.learner.batch_spec, 1)
    return batch


def test_nothing_is_collected():
    parts = make("bc", envs.Target(num_envs=2)).run(2)
    assert parts.collector is None
    assert parts.replay.calls["add"] == 0
    assert parts.progress.updates == 16


@pytest.mark.parametrize("kind", ["mlp", "squashed"])
def test_the_squared_error_is_in_units_of_the_action_range(kind):
    parts = make("bc", envs.Target(num_envs=2), kind=kind, loss="mse", policy={"normalise_obs": False})
    policy, batch = parts.learner.policy, batch_of(parts)
    obs = {"state": batch["demos"]["obs/state"][0]}
    action, _, _ = policy.act(obs, {}, explore=False)
    difference = (policy.actions.from_env(action) - policy.actions.from_env(batch["demos"]["action"][0])).square()
    assert parts.learner.update(batch)[0]["loss/mse"].item() == pytest.approx(difference.mean().item(), rel=1e-4)


def test_the_likelihood_is_that_of_the_acting_policy():
    parts = make("bc", envs.Target(num_envs=2), policy={"normalise_obs": False})
    policy, batch = parts.learner.policy, batch_of(parts)
    rows = batch["demos"]
    out = policy.sequence(policy.inputs({"state": rows["obs/state"]}), {}, rows["is_first"])
    normal = torch.distributions.Normal(out, policy.log_std.exp())
    expected = -normal.log_prob(policy.actions.from_env(rows["action"])).sum(-1).mean()
    assert parts.learner.update(batch)[0]["loss/nll"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_steps_behind_an_episodes_end_do_not_count():
    parts = make("bc", envs.Target(num_envs=2, length=5), length=4, batch_size=200)
    batch = batch_of(parts)
    valid = batch["demos"]["valid"]
    assert not valid.all()
    spoiled = {"demos": {**batch["demos"], "action": torch.where(valid.unsqueeze(-1), batch["demos"]["action"], 1e6)}}
    assert parts.learner.update(spoiled)[0]["loss/nll"] < 1e3


def test_a_recurrent_policy_learns_from_windows_longer_than_one_step():
    parts = make("bc", envs.Target(num_envs=2), kind="gru", length=6, learning_rate=1e-2).run(20)
    losses = [metrics["loss/nll"].item() for metrics in parts.log]
    assert losses[-1] < losses[0] - 1.0


def test_the_deviation_of_demonstrations_without_noise_stays_finite():
    parts = make("bc", envs.Target(num_envs=2), learning_rate=0.5).run(10)
    assert parts.learner.policy.log_std.min() >= LOG_STD_MIN


def test_the_normaliser_takes_the_demonstrations_moments():
    parts = make("bc", envs.Target(num_envs=2), batch_size=512).run(5)
    normaliser = parts.learner.policy.inputs.normaliser
    seen = torch.cat([batch_of(parts)["demos"]["obs/state"][0] for _ in range(20)])
    torch.testing.assert_close(normaliser.mean.float(), seen.mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(normaliser.var.sqrt().float(), seen.std(0), atol=0.1, rtol=0)


def test_the_learning_rate_falls_to_zero_over_the_run():
    learner = make("bc", envs.Target(num_envs=2), learning_rate=0.1).learner
    learner.observe({}, Progress(100, env_steps=75))
    assert learner._adam.lr == pytest.approx(0.025)


def test_weight_decay_takes_off_a_share():
    weights = {}
    for decay in (0.0, 10.0):
        parts = make("bc", envs.Target(num_envs=2), weight_decay=decay, lr_schedule="constant").run(2)
        weights[decay] = parts.learner._flat.norm()
    assert weights[10.0] < 0.95 * weights[0.0]


def test_discrete_actions_have_no_squared_error():
    with pytest.raises(RobotRLError, match=r"Pick has discrete actions, .* Use learner.loss=nll"):
        make("bc", envs.Pick(num_envs=2), loss="mse")


def chunks(**config):
    return make("bc", envs.Told(num_envs=2), kind="vla", **config)


def test_a_chunk_policy_is_fitted_to_the_data_before_the_first_gradient_and_asks_for_that_once():
    parts = chunks(ema_decay=0.9)
    learner = parts.learner
    assert set(learner.batch_spec) == {"demos", "fit"}
    parts.run(1)
    assert set(learner.batch_spec) == {"demos"}
    assert bool(learner.policy.fitted) and bool(learner.student.fitted)
    assert torch.equal(learner.policy.scaling.scale, learner.student.scaling.scale)
    assert learner.policy.scaling.scale.item() == pytest.approx(0.8, abs=1e-4)  # columns are -0.8, 0 and 0.8
    assert learner.policy.vocabulary.taught[[envs.Told.RED, envs.Told.BLUE, envs.Told.PRESS]].all()
    assert not learner.policy.vocabulary.taught[[3, 5]].any()


def test_actions_behind_the_episodes_end_do_not_count_in_chunks():
    parts = chunks()
    parts.run(1)
    batch = batch_of(parts)
    assert not batch["demos"]["valid/action"].all()
    losses = []
    for behind in (0.0, 0.5):
        torch.manual_seed(1)
        valid = batch["demos"]["valid/action"]
        action = torch.where(valid.unsqueeze(-1), batch["demos"]["action"], behind)
        rows = {**batch["demos"], "action": action}
        with torch.no_grad():
            errors = parts.learner.student.errors({k[4:]: v[0] for k, v in rows.items() if k.startswith("obs/")}, rows)
        losses.append(errors["flow"].value[~valid].mean())
        assert torch.equal(errors["flow"].valid, valid)
    assert losses[0] != losses[1]  # so without the mask they would have counted


def test_the_policy_is_a_running_mean_of_the_student():
    parts = chunks(ema_decay=0.5, lr_schedule="constant", learning_rate=1e-2)
    learner = parts.learner
    before = learner._mean.detach().clone()
    parts.run(1)
    assert learner.policy is not learner.student
    assert not torch.equal(learner._mean, before)
    mean, (batch,) = learner._mean.detach().clone(), parts.replay.batches(learner.batch_spec, 1)
    learner.update(batch)
    keep = min(0.5, (1 + learner._updates) / (10 + learner._updates))
    torch.testing.assert_close(learner._mean.data, mean * keep + learner._flat.data * (1 - keep))
    assert chunks().learner.student is not None and chunks().learner._mean is None


def test_a_gaussian_policy_can_be_averaged_too_and_its_normaliser_follows():
    parts = make("bc", envs.Target(num_envs=2), ema_decay=0.9).run(2)
    learner = parts.learner
    assert torch.equal(learner.policy.inputs.normaliser.mean, learner.student.inputs.normaliser.mean)
    assert learner.policy.inputs.normaliser.count > 0
    obs = torch.randn(4, 2)
    torch.testing.assert_close(learner.policy.inputs.normaliser(obs), learner.student.inputs.normaliser(obs))


def test_the_learning_rate_warms_up_and_falls_like_a_cosine():
    parts = chunks(warmup_updates=10, learning_rate=1.0, lr_schedule="cosine", max_grad_norm=1e-9)
    learner = parts.learner
    (batch,) = parts.replay.batches(learner.batch_spec, 1)
    learner.observe({}, Progress(100, env_steps=0))
    learner.update(batch)
    assert learner._adam.lr == pytest.approx(0.1)
    for fraction, share in ((25, 0.8536), (50, 0.5), (100, 0.0)):
        learner.observe({}, Progress(100, env_steps=fraction))
        assert learner._adam.lr == pytest.approx(share, abs=1e-4)


@pytest.mark.parametrize("kind", ["mlp", "vla"])
def test_another_field_than_the_action_can_be_imitated(kind):
    env = envs.Told if kind == "vla" else envs.Target
    parts, other = (make("bc", env(num_envs=2), kind=kind, label=label) for label in ("action", "meant"))
    windows = [part.windows or {} for part in other.learner.batch_spec.values()]
    assert all("action" not in w and ("meant" in w) == (kind == "vla") for w in windows)
    batch = batch_of(parts)
    half = {}
    for name, rows in batch.items():
        half[name] = {key.replace("action", "meant"): value for key, value in rows.items()}
        half[name] |= {"meant": 0.5 * rows["action"], "action": torch.full_like(rows["action"], 9.0)}
    for rows in batch.values():
        rows["action"] = 0.5 * rows["action"]
    for learner, rows in ((parts.learner, batch), (other.learner, half)):
        torch.manual_seed(1)
        learner.update(rows)
    assert_same(parts.state()["learner"], other.state()["learner"])


def test_a_label_that_the_data_lack_is_named():
    parts = make("bc", envs.Target(num_envs=2), label="expert_action")
    with pytest.raises(RobotRLError, match=r"learner\.label is 'expert_action', which the data do not have"):
        parts.run(1)
    with pytest.raises(RobotRLError, match=r"no \['expert_action'\], which a window asks for"):
        chunks(label="expert_action").run(1)


def test_losses_can_be_weighed_by_name():
    assert chunks(loss_coefs={"flow": 2.0}).learner._coef == {"flow": 2.0, "ahead": 1.0, "named": 1.0}
    with pytest.raises(
        RobotRLError, match=r"names \['flo'\], but this policy's losses are \['flow', 'ahead', 'named'\]"
    ):
        chunks(loss_coefs={"flo": 2.0})


def test_bfloat16_learns_the_same_within_its_precision():
    losses = {p: [m["loss/flow"].item() for m in chunks(matmul_precision=p).run(3).log] for p in ("fp32", "bf16")}
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
    assert losses["bf16"] != losses["fp32"]


def test_pictures_are_recoloured_within_bounds_and_each_in_its_own_way():
    pictures = torch.full((6, 3, 8, 8), 100, dtype=torch.uint8)
    changed = jitter(pictures, 0.2)
    assert changed.dtype == torch.uint8 and not torch.equal(changed, pictures)
    assert (changed.float() - 100).abs().max() < 0.5 * 128
    assert (changed.flatten(2) == changed.flatten(2)[..., :1]).all()  # every pixel of a channel alike
    assert len(changed[:, :, 0, 0].unique(dim=0)) == 6
    assert jitter(pictures, 0.0) is pictures


def test_parts_of_pictures_are_covered_by_their_mean_colour():
    pictures = torch.randint(0, 256, (40, 3, 24, 24), dtype=torch.uint8)
    covered = erase(pictures, 2)
    changed = (covered != pictures).any(1)
    share = changed.float().mean((1, 2))
    assert 0.02 < share.mean() < 0.25 and share.max() < 0.5
    mean = pictures.float().mean((2, 3)).to(torch.uint8)
    for i in range(40):
        assert (covered[i][:, changed[i]] == mean[i][:, None]).all()
    assert len({tuple(c.flatten().tolist()) for c in changed}) > 30  # each picture in its own way
    assert erase(pictures, 0) is pictures


def test_training_goes_on_from_a_saved_chunk_policy(tmp_path):
    parts = chunks(learning_rate=3e-3, lr_schedule="constant").run(15)
    saved = load_policy(save_policy(parts.learner.policy, tmp_path))
    again = chunks()
    again.learner.policy.load_state_dict(saved.state_dict())
    again.run(1)
    first, last = (parts.log[i]["loss/flow"] for i in (0, -1))
    assert last < 0.8 * first
    assert again.log[0]["loss/flow"] < (first + last) / 2


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"lr_schedule": "step"}, "lr_schedule is 'step'; it must be linear or cosine or constant"),
        ({"ema_decay": 1.0}, r"ema_decay is 1.0; it must lie in \[0, 1\)"),
        ({"image_jitter": -0.1}, "image_jitter is -0.1; it must not be negative"),
        ({"matmul_precision": "fp8"}, "matmul_precision is 'fp8'; it must be fp32 or bf16"),
        ({"loss": "l1"}, "loss is 'l1'; it must be nll or mse"),
        ({"length": 0}, "length is 0; it must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be greater than 0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0; it must not be negative"),
    ],
)
def test_wrong_settings_are_told(settings, told):
    with pytest.raises(RobotRLError, match=told):
        BCConfig(**settings)
